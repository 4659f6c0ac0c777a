"""While you compute forward, the engine writes a tape; backward reads it in reverse.

    dL/dx  =  sum over every use of x   of   dL/dy * dy/dx

Each entry is a node: which op, on which line, from which nodes, and what its gradient needs. Here the tape is printed, walked back by
hand, and compared with what the engine does.
"""

import numpy as np

from tensor import Tensor, grad
from tensor.autograd import Accumulator, reachable

x = Tensor([[0.5, -1.0], [2.0, 0.3], [1.0, 1.0]])  # data: (3, 2), wants no gradient
w = Tensor([[0.1, -0.2], [0.3, 0.4], [-0.5, 0.6]], requires_grad=True)
b = Tensor([0.1, -0.1], requires_grad=True)  # (2,), is broadcast to (3, 2)

scaled = x * w
h = scaled + b
y = h.tanh().sum()

print("1. The tape of y = tanh(x * w + b).sum(), oldest first\n")
for node in reachable([y.node]):
    if isinstance(node, Accumulator):
        print(f"leaf      {node.shape}   {'w' if node is w.node else 'b'}, where gradients end")
    else:
        kept = ", ".join(f"{name} {getattr(value, 'shape', value)}" for name, value in node.kept().items())
        print(f"{node.op:9} {node.shape!s:7} {node.line!s:38} keeps {kept or 'nothing'}")
print("\nmultiply keeps x (to make dw), not w: nobody asked for dx. add keeps nothing. b was expanded; the gradient of that is a sum.")

print("\n2. The walk: newest first, so each node has all its contributions before it passes them on\n")
gradients = {y.node: np.ones((), np.float32)}  # dy/dy = 1
for node in reversed(reachable([y.node])):
    dy = gradients[node]
    if isinstance(node, Accumulator):
        continue
    for function, parent in zip(node.backward, node.parents, strict=True):
        if parent is not None:
            dx = function(dy)
            gradients[parent] = gradients[parent] + dx if parent in gradients else dx
            print(f"{node.op:9} {dy.shape!s:7} -> {parent.op:9} {dx.shape!s:7}")
y.backward()
print("\nb, by hand ", gradients[b.node], "  by the engine ", b.grad.numpy())
assert np.allclose(gradients[w.node], w.grad.numpy())
assert np.allclose(gradients[b.node], b.grad.numpy())

print("\n3. The graph is freed as it is read: memory is given back, and a second pass must be asked for beforehand\n")
try:
    y.backward()
except RuntimeError as error:
    print("GraphError:", error)

print("\n4. Leaves accumulate, until their .grad is set to None\n")
a = Tensor(3.0, requires_grad=True)
for use in (1, 2):
    (a * a).backward()
    print(f"after backward {use}:  a.grad = {a.grad.item()}     (each adds d(a*a)/da = 2a = 6)")
a.grad = None

print("\n5. A diamond: two paths from a to the result, and their gradients add\n")
p = 3 * a
q = 2 * p + 5 * p
print("p = 3a,  q = 2p + 5p   ->   dq/dp = 2 + 5,   dq/da = 3 * 7 =", grad(q, a)[0].item())
print("To pass p's gradient on after the first path alone would give 6, or 6 + 21: hence newest first.")

print("\n6. grad() returns gradients, of intermediates too, and touches no .grad\n")
p = 3 * a
dp, da = grad(p * p, [p, a])
print("d(p*p)/dp = 2p =", dp.item(), "  d(p*p)/da = 2p * 3 =", da.item(), "  a.grad is", a.grad)
