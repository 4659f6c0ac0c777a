# %% [markdown]
# # Why do gradients add up, and why zero them?
#
# Both questions have one answer. A gradient is a sum over all the ways in which a number changes
# the loss: over every use of the number, and over every call of backward since the gradient was
# last set to zero. Each section has a wrong engine, which runs without any error.

# %%
import tensor
from tensor import Tensor, optim


class Number:
    """A value, and its parents: (parent, slope) for each use, slope = d value / d parent."""

    def __init__(self, value, parents=()):
        self.value, self.parents, self.grad = value, parents, 0.0

    def __mul__(self, other):
        return Number(self.value * other.value, ((self, other.value), (other, self.value)))


# %% [markdown]
# ## 1. Why do gradients add up?
#
# In x * x the number x is used twice. A change of x changes y through both uses. In the wrong
# engine the gradient of the later use overwrites the other.


# %%
def overwriting(y):
    for parent, slope in y.parents:
        parent.grad = slope


def adding(y):
    for parent, slope in y.parents:
        parent.grad += slope


leaf = Tensor(3.0, requires_grad=True)
(engine,) = tensor.grad(leaf * leaf, leaf)
h = 1e-5
difference = ((3 + h) ** 2 - (3 - h) ** 2) / (2 * h)
found = {}
for backward in (overwriting, adding):
    x = Number(3.0)
    backward(x * x)
    found[backward.__name__] = x.grad
print("d(x * x)/dx at 3:", found, f"  engine {engine.item()}   by differences {difference:.4f}")
assert found["overwriting"] == 3.0
assert found["adding"] == engine.item() == 6.0
assert abs(difference - 6) < 1e-6

# %% [markdown]
# Overwriting is right if each number is used once, so nobody may notice it for long. It is wrong as
# soon as a bias is added to many rows, or a GPT uses one table at the input and at the output
# (6_the_transformer/3_a_gpt.py), or a sum leads around a layer (6_the_transformer/2_a_block.py).

# %%
rows = Tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
bias = Tensor([0.0, 0.0], requires_grad=True)
((rows + bias) * (rows + bias)).sum().backward()
each = 2 * rows.numpy()  # the gradient of the bias from each row
print(
    "\nbias, from each row:",
    each.tolist(),
    "  their sum",
    each.sum(axis=0),
    "  engine",
    bias.grad.numpy(),
)
assert bias.grad.tolist() == each.sum(axis=0).tolist()

# %% [markdown]
# ## 2. Why zero them?
#
# Gradients also add up over several calls of backward. That is useful: two small batches make one
# large batch. But the gradient of the step before belongs to the old value of w. Without
# zero_grad() every old slope keeps pushing, and w never comes to rest.


# %%
def descend(zero):
    w = tensor.nn.Parameter([2.0])
    optimizer, path = optim.SGD([w], lr=0.1), []
    for _ in range(60):
        if zero:
            optimizer.zero_grad()
        (w * w).sum().backward()
        optimizer.step()
        path.append(w.item())
    return path


print("\nw on its way down w * w, every fifth step:")
for zero in (True, False):
    path = descend(zero)
    print("zeroed  " if zero else "left on ", *(f"{w:6.2f}" for w in path[::5]))
    assert (max(map(abs, path[-20:])) < 0.001) == zero
assert max(map(abs, descend(zero=False)[-20:])) > 1.5, (
    "after 60 steps it still swings nearly as far as it began"
)
