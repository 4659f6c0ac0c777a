# %% [markdown]
# # From a step that cannot be differentiated to a network that learns by gradients
#
#     perceptron     y = 1 if x w + b > 0 else 0
#     it learns      w <- w + (t - y) x,   b <- b + (t - y)       t is the target; Rosenblatt 1958
#
#     network        p = sigmoid(sigmoid(x W1 + b1) W2 + b2)
#     it learns      w <- w - rate * dloss/dw                     for every weight w
#
# A perceptron draws one line: its result is 1 on one side, and 0 on the other. One line is enough
# for OR. No line is enough for XOR, and the perceptron repeats its mistakes for ever. A network of
# two layers learns XOR. At the end there is a picture.

# %%
import matplotlib.pyplot as plt
import numpy as np

import tensor
from tensor import Tensor, nn, optim

x = Tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])  # (4, 2)
OR = Tensor([0.0, 1.0, 1.0, 1.0])
XOR = Tensor([0.0, 1.0, 1.0, 0.0])

# %% [markdown]
# ## 1. A step has no slope: change w a little, and nearly always the result is the same
#
# (So the engine raises an error for the gradient of a step: 4_networks/1_neurons.py.)

# %%
rng = np.random.default_rng(0)
w = np.array([0.3, 0.2])
before = (x @ w).step().tolist()
moves = 0.01 * rng.standard_normal((1000, 2))
changed = sum((x @ (w + move)).step().tolist() != before for move in moves)
print(f"1000 small moves of w: in {changed} of them an answer of the perceptron changed")
assert changed == 0

# %% [markdown]
# ## 2. Rosenblatt's rule needs no slope: after a mistake, add or subtract the input


# %%
def perceptron(targets, passes=20):
    """The mistakes of each pass over the four inputs, and w and b after it."""
    w, b, mistakes, states = tensor.zeros(2), tensor.zeros(1), [], []
    for _ in range(passes):
        mistakes.append(0)
        for i in range(4):
            error = targets[i] - (x[i] @ w + b).step()  # (1,): 1, 0 or -1
            w += error * x[i]
            b += error
            mistakes[-1] += int(error.item() != 0)
        states.append((*w.tolist(), *b.tolist()))
        if mistakes[-1] == 0:
            break
    return mistakes, states


mistakes, states = perceptron(OR)
*w, b = states[-1]
answers = (x @ w + b).step().tolist()
print("\nOR    mistakes in each pass:", *mistakes, "  then w", w, " b", b, "  y", answers)
assert answers == OR.tolist()

mistakes, states = perceptron(XOR)
print("XOR   mistakes in each pass:", *mistakes)
again = next(i for i in range(1, len(states)) if states[i] in states[:i])
since = states.index(states[again])
print(
    f"      after pass {again + 1} w and b are what they were after pass {since + 1}: "
    "from here on it goes round for ever"
)
assert min(mistakes) > 0

# %% [markdown]
# ## 3. Why no line can do XOR: the conditions on w and b
#
#     [0, 0] -> 0    b           <= 0
#     [0, 1] -> 1    w2 + b      >  0
#     [1, 0] -> 1    w1 + b      >  0
#     [1, 1] -> 0    w1 + w2 + b <= 0
#
# The two conditions in the middle give w1 + w2 + 2b > 0. With the last condition, b > 0 follows.
# But the first condition is b <= 0.
#
# ## 4. One more layer, and sigmoids in place of steps
#
# A sigmoid has a slope everywhere, so both layers get a gradient. The loss is binary cross-entropy,
# the mean of -ln p of the right answer (4_networks/3_softmax_and_loss.py has more).

# %%
tensor.manual_seed(0)


class Network(nn.Module):
    """logits = sigmoid(x W1 + b1) W2 + b2.   x: (4, 2)   hidden: (4, 2)   logits: (4,)"""

    def __init__(self):
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 1)

    def __call__(self, x):
        return self.second(self.first(x).sigmoid()).squeeze(1)


network = Network()
optimizer = optim.SGD(network, lr=4.0)
print("\nA network of two layers learns XOR:")
for step in range(601):
    optimizer.zero_grad()
    logits = network(x)
    loss = tensor.binary_cross_entropy_with_logits(logits, XOR)
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        print(f"step {step:3}   loss {loss.item():.4f}   p(1) =", logits.sigmoid().numpy().round(2))
p = network(x).sigmoid().numpy()
right = np.where(XOR.numpy() == 1, p, 1 - p)
print(f"by hand, the mean of -ln p of the right answers is {-np.log(right).mean():.4f}")
by_formula = tensor.binary_cross_entropy(Tensor(p), XOR)
assert np.isclose(-np.log(right).mean(), by_formula.item(), rtol=1e-4)
assert (right > 0.9).all()

# %% [markdown]
# ## 5. What the hidden layer did: it moved the four inputs, so that one line is enough
#
# The second layer is a single neuron, so it has one line too. In the hidden coordinates the line is
# h W2 + b2 = 0.

# %%
hidden = network.first(x).sigmoid().numpy()
(w1,), (w2,) = network.second.weight.tolist()
(b2,) = network.second.bias.tolist()
print("\ninputs        hidden          h W2 + b2     target")
for inputs, h, target in zip(x.tolist(), hidden, XOR.tolist(), strict=True):
    score = h[0] * w1 + h[1] * w2 + b2
    print(f"{inputs} -> [{h[0]:.2f}, {h[1]:.2f}] -> {score:8.2f}        {target:.0f}")
    assert (score > 0) == (target == 1)

figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
for ax, places, title in zip(
    axes,
    (x.numpy(), hidden),
    ("The inputs: no line divides them", "In the hidden layer one line does"),
    strict=True,
):
    for target, mark in ((0, "o"), (1, "^")):
        ax.plot(
            *places[XOR.numpy() == target].T,
            mark,
            markersize=10,
            alpha=0.6,
            label=f"XOR is {target}",
        )
    for inputs, place in zip(x.numpy().astype(int).tolist(), places, strict=True):
        ax.annotate(
            str(inputs),
            place,
            xytext=(8, 8 if inputs != [1, 0] or ax is axes[0] else -16),
            textcoords="offset points",
        )
    ax.set(title=title, xlim=(-0.2, 1.4), ylim=(-0.2, 1.3))
    ax.legend(loc="center right")
along = np.linspace(-0.2, 1.4, 2)
axes[1].plot(along, -(along * w1 + b2) / w2, color="gray", linestyle="--")
if plt.get_backend().lower() != "agg":  # agg: no screen, nothing to show
    plt.show()
