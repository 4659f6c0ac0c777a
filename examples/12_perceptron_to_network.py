"""From a step that cannot be differentiated to a network that learns by gradients.

    perceptron (Rosenblatt 1958)    y = 1 if x w + b > 0 else 0      w <- w + (t - y) x,   b <- b + (t - y)
    network                         p = sigmoid(sigmoid(x W1 + b1) W2 + b2)      w <- w - rate * dloss/dw, for every weight w

One line divides OR. No line divides XOR, and the perceptron goes round for ever; two layers bend it.
"""

import tensor
from tensor import Tensor, nn, optim

x = Tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])  # (4, 2)
OR = Tensor([0.0, 1.0, 1.0, 1.0])
XOR = Tensor([0.0, 1.0, 1.0, 0.0])

print("1. The step has no gradient: move w a little and, nearly always, nothing changes\n")
w = Tensor([0.3, 0.2], requires_grad=True)
try:
    (x @ w).step().sum().backward()
except RuntimeError as error:
    print("GraphError:", error)

print("\n2. Rosenblatt's rule needs none: at a mistake, add the input or take it away\n")


def perceptron(targets, passes):
    w, b, history = tensor.zeros(2), tensor.zeros(1), []
    for _ in range(passes):
        mistakes = 0
        for i in range(4):
            error = targets[i] - (x[i] @ w + b).step()  # (1,): 1, 0 or -1
            w += error * x[i]
            b += error
            mistakes += int(error.item() != 0)
        history.append(mistakes)
        if mistakes == 0:
            break
    return w, b, history


w, b, history = perceptron(OR, passes=20)
print("OR    mistakes in each pass:", *history, "   w =", w.tolist(), " b =", b.tolist(), "  y =", (x @ w + b).step().tolist())
w, b, history = perceptron(XOR, passes=20)
print("XOR   mistakes in each pass:", *history)

print("""
3. Why XOR fails: it asks of w and b

    [0,0] -> 0    b           <= 0
    [0,1] -> 1    w2 + b      >  0
    [1,0] -> 1    w1 + b      >  0
    [1,1] -> 0    w1 + w2 + b <= 0

The middle two add up to w1 + w2 + 2b > 0; take the last away and b > 0 is left. The first says b <= 0.
""")

print("4. A layer between, and sigmoid in place of the step: a slope everywhere, so the error can be sent back to both layers\n")
tensor.manual_seed(0)


class Network(nn.Module):
    """logits = sigmoid(x W1 + b1) W2 + b2.   x: (4, 2)   hidden: (4, 2)   logits: (4,)"""

    def __init__(self):
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 1)

    def __call__(self, x):
        return self.second(self.first(x).sigmoid()).squeeze(1)


network = Network()
optimizer = optim.SGD(network, lr=4.0)
for step in range(601):
    optimizer.zero_grad()
    loss = tensor.binary_cross_entropy(network(x), XOR)
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        print(f"step {step:3}   loss {loss.item():.4f}   p(1) =", network(x).sigmoid().numpy().round(2))
hidden = network.first(x).sigmoid()
print("\nWhat the hidden layer made of the four inputs; in these coordinates one line divides 0 from 1:")
for inputs, values, target in zip(x.tolist(), hidden.numpy().round(2), XOR.tolist(), strict=True):
    print("   ", inputs, "->", values, "   target", int(target))
assert ((network(x) > 0) == (XOR > 0.5)).numpy().all()
