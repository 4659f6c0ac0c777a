"""While you compute forward, the engine writes a tape; backward reads it in reverse.

    dL/dx  =  sum over every use of x   of   dL/dy * dy/dx

Each entry is a node: which op, on which line, from which nodes, and what its gradient needs. Here the tape is printed, walked back by
hand, and compared with what the engine does.
"""

import numpy as np

from tensor import Tensor, grad
from tensor.errors import GraphError
from tensor.graph import Accumulator, reachable

x = Tensor([[0.5, -1.0], [2.0, 0.3], [1.0, 1.0]])  # (3, 2): data, wants no gradient
w = Tensor([[0.1, -0.2], [0.3, 0.4], [-0.5, 0.6]], requires_grad=True)  # (3, 2)
b = Tensor([0.1, -0.1], requires_grad=True)  # (2,), used for all three rows

scaled = x * w
h = scaled + b
y = h.tanh().sum()

names = {w.node: "w", b.node: "b"}
tape = reachable([y.node])  # every node behind y, oldest first
print("1. The tape of y = tanh(x * w + b).sum(), oldest first\n")
for node in tape:
    if isinstance(node, Accumulator):  # the node of a leaf: where gradients end
        print(f"leaf {names[node]:4} {node.shape!s:6}")
    else:
        kept = ", ".join(f"{name} {getattr(value, 'shape', value)}" for name, value in node.kept().items())
        print(f"{node.op:9} {node.shape!s:6}  {node.line!s:38}  keeps {kept or 'nothing'}")
print("\nmultiply(a, b) keeps its a, which is x, to make dw = dy * x. It does not keep w: nobody asked for dx. add keeps nothing.")
print("expand is the engine's: b was repeated for three rows, and the gradient of a repeat is a sum over the repeats.")

print("\n2. The walk: newest first, each node asks its op for the gradient of each input\n")
gradients = {y.node: np.ones((), np.float32)}  # dy/dy = 1
for node in reversed(tape):
    dy = gradients[node]
    if isinstance(node, Accumulator):
        continue
    for parent, dx in zip(node.parents, node.gradients(dy), strict=True):
        if parent is not None:
            gradients[parent] = gradients[parent] + dx if parent in gradients else dx
            print(f"{node.op:8} takes dy {dy.shape!s:6} and hands {dx.shape!s:6} to {names.get(parent, parent.op)}")
y.backward()
print("\ndy/db by hand ", gradients[b.node], "\nb.grad        ", b.grad.numpy())
assert np.array_equal(gradients[w.node], w.grad.numpy())
assert np.array_equal(gradients[b.node], b.grad.numpy())

print("\n3. The walk frees the tape behind it, so the memory is back before the next step; a second walk has nothing to read\n")
try:
    y.backward()
except GraphError as error:
    print("GraphError:", error)

print("\n4. Leaves accumulate: small batches add up to a large one, and .grad = None (or zero_grad()) is for you to say\n")
a = Tensor(3.0, requires_grad=True)
for i in (1, 2):
    (a * a).backward()  # a is used twice: 3 from each side
    print(f"after backward {i}   a.grad = {a.grad.item():4}   each adds d(a*a)/da = a + a = 6")
a.grad = None

print("\n5. Diamonds: two ways lead from q back to p, which waits for both and passes on their sum, once\n")
p = 3 * a
q = 2 * p + 5 * p
print("p = 3a,  q = 2p + 5p:    dq/da = 3 * (2 + 5) =", grad(q, a)[0].item())
p = a
for _ in range(50):
    p = p + p
print("50 doublings, one after the other:    dp/da = 2^50 =", int(grad(p, a)[0].item()), "  over 2^50 paths, in 50 steps")

print("\n6. grad() returns gradients, those of intermediates too, and leaves every .grad alone\n")
p = 3 * a
dp, da = grad(p * p, [p, a])
print("d(p*p)/dp = 2p =", dp.item(), "    d(p*p)/da = 2p * 3 =", da.item(), "    a.grad is", a.grad)
