# %% [markdown]
# # Why topological order?
#
# Below is an engine for single numbers, with a right backward pass and three others, which run
# without any error. Two of them return wrong gradients. One is right, and takes for ever. (The
# parents of a node are the nodes of its inputs.)

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
    """dy/dx by one of the backward passes."""
    leaf = Number(x)
    backward(function(leaf))
    return leaf.grad


def truth(function, x=3.0):
    """dy/dx by the engine."""
    leaf = Tensor(x, dtype="float64", requires_grad=True)
    return tensor.grad(function(leaf), leaf)[0].item()


# %% [markdown]
# ## Four backward passes
#
# A node must have its whole gradient before it passes gradients to its parents. In y = b + b b,
# with b = x + x, the number b is used twice: directly in the sum, and in the product. Three passes
# do it differently:
#
# - first met: b passes on its gradient, 1, before the gradient from b b has arrived
# - at once: b passes on its gradient each time it grows, so the earlier part is passed on again
# - path by path: each path from y to x is followed alone. The result is right, but with every step
#   there are twice as many paths


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


for backward in (first_met, at_once, path_by_path, right):
    print(f"dy/dx at 3, {backward.__name__:12} {ask(near_and_far, backward)}")
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
# The engine need not search for an order. Nodes are numbered as they are made, and the parents of a
# node are always older. So the right order is: each node once, the newest first
# (3_gradients/2_the_graph.py does this by hand).

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
