# %% [markdown]
# # The graph: what a forward pass records, and how the backward pass uses it
#
#     dL/dx  =  sum over every use of x   of   dL/dy * dy/dx
#
# In the forward pass each op makes a node. The node holds the name of the op, its line, the nodes
# of its inputs, and the arrays that its backward function needs. All nodes together are the graph.
# It is also called a tape, because the backward pass reads it in reverse. The first sections use
# this word. (`tensor.record()` is different: it keeps everything that ran, for you to look at. See
# 8_looking_inside/1_watch_a_model.py.)

# %%
import textwrap

import numpy as np

from tensor import Tensor, grad
from tensor.base import Accumulator
from tensor.errors import GraphError
from tensor.graph import reachable

x = Tensor([[0.5, -1.0], [2.0, 0.3], [1.0, 1.0]])  # (3, 2): data, wants no gradient
w = Tensor([[0.1, -0.2], [0.3, 0.4], [-0.5, 0.6]], requires_grad=True)  # (3, 2)
b = Tensor([0.1, -0.1], requires_grad=True)  # (2,), used for all three rows

scaled = x * w
h = scaled + b
y = h.tanh().sum()

# %% [markdown]
# ## 1. The tape, oldest first
#
# A leaf is a tensor that no op made: here w and b. The backward pass ends at the nodes of leaves.

# %%
names = {w.node: "w", b.node: "b"}
tape = reachable([y.node])  # every node behind y, oldest first
print("The tape of y = tanh(x * w + b).sum():\n")
for node in tape:
    if isinstance(node, Accumulator):
        print(f"leaf {names[node]:4} {node.shape!s:6}")
    else:
        kept = ", ".join(
            f"{name} {getattr(value, 'shape', value)}" for name, value in node.kept().items()
        )
        print(f"{node.op:9} {node.shape!s:6}  {node.line!s:38}  keeps {kept or 'nothing'}")
assert [node.op for node in tape if not isinstance(node, Accumulator)] == [
    "multiply",
    "expand",
    "add",
    "tanh",
    "sum",
]

# %% [markdown]
# multiply(a, b) keeps its a, which is x, to compute dw = x dy. It does not keep w, since x needs no
# gradient. add keeps nothing. The engine added expand: b was repeated for three rows, and the
# gradient of a repeated value is the sum over the repeats.
#
# ## 2. The backward pass by hand: newest node first
#
# Each node in turn computes the gradients of its inputs. All nodes that used its result are newer.
# So they had their turn earlier, and the node has its whole gradient.
# (3_gradients/4_why_topological_order.py shows why that matters.)

# %%
print("\nThe walk back:\n")
gradients = {y.node: np.ones((), np.float32)}  # dy/dy = 1
for node in reversed(tape):
    dy = gradients[node]
    if isinstance(node, Accumulator):
        continue
    for parent, dx in zip(node.parents, node.gradients(dy), strict=True):
        if parent is not None:
            gradients[parent] = gradients[parent] + dx if parent in gradients else dx
            print(
                f"{node.op:8} takes dy {dy.shape!s:6} and hands {dx.shape!s:6} "
                f"to {names.get(parent, parent.op)}"
            )
y.backward()
print("\ndy/db by hand ", gradients[b.node], "\nb.grad        ", b.grad.numpy())
assert np.array_equal(gradients[w.node], w.grad.numpy())
assert np.array_equal(gradients[b.node], b.grad.numpy())

# %% [markdown]
# ## 3. The backward pass frees the graph
#
# So the memory is free again before the next step. A second backward pass has nothing to read.

# %%
try:
    y.backward()
except GraphError as error:
    print(
        textwrap.fill(
            f"\nGraphError: {error}", 98, subsequent_indent="    ", replace_whitespace=False
        )
    )
else:
    raise AssertionError("there was something left")

# %% [markdown]
# ## 4. Leaves accumulate: small batches add up to a large one
#
# To start from 0 again, write `.grad = None`, or call `zero_grad()` of an optimiser.
# (3_gradients/3_why_gradients_add_up.py shows what happens without.)

# %%
a = Tensor(3.0, requires_grad=True)
print()
for i in (1, 2):
    (a * a).backward()  # a is used twice: 3 from each side
    print(f"after backward {i}   a.grad = {a.grad.item():4}   each adds d(a * a)/da = a + a = 6")
    assert a.grad.item() == 6 * i
a.grad = None

# %% [markdown]
# ## 5. Diamonds: two paths lead from q back to p
#
# p waits for the gradients of both paths, and passes on their sum once.
#
#     p = 3a,   q = 2p + 5p          dq/da = 3 * (2 + 5)

# %%
p = 3 * a
q = 2 * p + 5 * p
(dq,) = grad(q, a)
print("\np = 3a, q = 2p + 5p: dq/da =", dq.item())
assert dq.item() == 3 * (2 + 5)

p = a
for _ in range(50):
    p = p + p
steps, (dp,) = len(reachable([p.node])) - 1, grad(p, a)
print(
    f"50 doublings, one after the other: dp/da = {int(dp.item())}, over as many paths, "
    f"in {steps} steps"
)
assert dp.item() == 2**50
assert steps == 50

# %% [markdown]
# ## 6. grad() returns gradients, also of intermediate results, and changes no .grad

# %%
p = 3 * a
dp, da = grad(p * p, [p, a])
print(
    f"\np = 3a = {p.item()}: d(p * p)/dp = 2p = {dp.item()}, d(p * p)/da = 2p * 3 = {da.item()}, "
    f"and a.grad is {a.grad}"
)
assert (dp.item(), da.item(), a.grad) == (18, 54, None)
