# %% [markdown]
# # Why topological order?
#
# Below is an engine of single numbers, a right walk back over its graph, and other walks that run
# without any complaint. Two of them return wrong gradients, and one is right and takes for ever. (A
# node's parents are the nodes it was made from.)

# %%
from collections import deque

import tensor
from tensor import Tensor
from tensor.graph import reachable


class Number:
    """A value, and its parents: (parent, slope) for each use, slope = d value / d parent."""

    def __init__(self, value, parents=()):
        self.value, self.parents, self.grad = value, parents, 0.0

    def __add__(self, other):
        return Number(self.value + other.value, ((self, 1.0), (other, 1.0)))

    def __mul__(self, other):
        return Number(self.value * other.value, ((self, other.value), (other, self.value)))


def right(y):
    """Parents before children in `order`, by depth-first search; then the other way round, each
    node once, its gradient complete.
    """
    order, seen = [], set()

    def visit(node):
        if node not in seen:
            seen.add(node)
            for parent, _ in node.parents:
                visit(parent)
            order.append(node)

    visit(y)
    y.grad = 1.0
    for node in reversed(order):
        for parent, slope in node.parents:
            parent.grad += slope * node.grad


def ask(function, backward, x=3.0):
    """dy/dx by a walk over numbers."""
    leaf = Number(x)
    backward(function(leaf))
    return leaf.grad


def truth(function, x=3.0):
    """dy/dx by the engine."""
    leaf = Tensor(x, dtype="float64", requires_grad=True)
    return tensor.grad(function(leaf), leaf)[0].item()


# %% [markdown]
# ## The walks
#
# A node must have heard from all who used it before it hands on what it heard. In y = b + b b, with
# b = x + x, b is used near y and again further away. Three ways not to walk:
#
# - first met, first served: b hands on what it has, 1, before b b has told it more
# - at once: b hands on each time it hears something, and what it had before is handed on again
# - path by path: each contribution travels alone. The result is right, but the paths double with
# every step


# %%
def first_met(y):
    y.grad, seen, queue = 1.0, {y}, deque([y])
    while queue:
        node = queue.popleft()
        for parent, slope in node.parents:
            parent.grad += slope * node.grad
            if parent not in seen:
                seen.add(parent)
                queue.append(parent)


def at_once(node, start=True):
    node.grad = 1.0 if start else node.grad
    for parent, slope in node.parents:
        parent.grad += slope * node.grad
        at_once(parent, start=False)


def path_by_path(node, dy=1.0):
    node.grad += dy
    # how many visits that took
    return 1 + sum(path_by_path(parent, dy * slope) for parent, slope in node.parents)


def near_and_far(x):
    b = x + x
    return b + b * b


for walk in (first_met, at_once, path_by_path, right):
    print(f"dy/dx at 3, {walk.__name__:12} {ask(near_and_far, walk)}")
print("dy/dx at 3, engine      ", truth(near_and_far))
assert (
    ask(near_and_far, right)
    == ask(near_and_far, path_by_path)
    == truth(near_and_far)
    == 2 * (1 + 2 * 6)
)
assert ask(near_and_far, first_met) < truth(near_and_far) < ask(near_and_far, at_once), (
    "too little, and too much"
)

print()
for doublings in (5, 10, 15):
    y = Number(1.0)
    for _ in range(doublings):
        y = y + y
    visits = path_by_path(y)
    print(f"{doublings:2} doublings: {doublings + 1:2} nodes, {visits:6,} visits path by path")
    assert visits == 2 ** (doublings + 1) - 1

# %% [markdown]
# ## How the engine does it
#
# It needs no search for an order: nodes are numbered as they are made, and what a node was made
# from is always older. So newest first, each node once, is such an order
# (3_gradients/2_the_graph.py walks it by hand).

# %%
leaf = Tensor(3.0, requires_grad=True)
nodes = reachable([near_and_far(leaf).node])  # oldest first
place = {node: i for i, node in enumerate(nodes)}
print("\nthe engine's nodes, oldest first:", *(node.op for node in nodes))
assert all(
    place[parent] < place[node]
    for node in nodes
    if node is not leaf.node
    for parent in node.parents
)
