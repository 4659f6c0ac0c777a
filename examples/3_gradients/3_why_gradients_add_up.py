# %% [markdown]
# # Why do gradients add up, and why zero them?
#
# Two questions with one answer. A gradient is a sum over all the ways in which a number changes the
# loss: over every use of it, and over every call of backward since it was last zeroed. Each
# question is asked of a wrong engine, which runs without any complaint.

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
# In x * x the number x is used twice. Each use moves y a little, and y moves by both together.
# Wrong: the later use overwrites.


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
for walk in (overwriting, adding):
    x = Number(3.0)
    walk(x * x)
    found[walk.__name__] = x.grad
print("d(x * x)/dx at 3:", found, f"  engine {engine.item()}   by differences {difference:.4f}")
assert found["overwriting"] == 3.0
assert found["adding"] == engine.item() == 6.0
assert abs(difference - 6) < 1e-6

# %% [markdown]
# Overwriting is right wherever each number is used once, and so it may go unnoticed for long: until
# a bias serves many rows, or, in a GPT, one table serves at the entrance and at the exit
# (5_the_transformer/5_a_gpt.py), or a sum goes around a layer (5_the_transformer/4_a_block.py).

# %%
rows = Tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
bias = Tensor([0.0, 0.0], requires_grad=True)
((rows + bias) * (rows + bias)).sum().backward()
each = 2 * rows.numpy()  # what each row says about the bias
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
# Gradients add up across calls of backward too, which is wanted: two small batches make one large
# one. But the gradient of the step before belongs to a place where w no longer is. Without
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
