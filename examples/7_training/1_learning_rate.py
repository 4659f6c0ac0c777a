# %% [markdown]
# # Gradient descent: too low, right, too high
#
#     w  <-  w - rate * dL/dw
#
# The gradient says which direction is up, for a very small step. It does not say how far to go in
# the other direction. This is the learning rate. At the end there is a picture.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import Tensor, optim

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads


# %% [markdown]
# ## 1. One parabola, L = w^2, where a formula gives every step
#
# dL/dw = 2 w, so after a step w is w - rate * 2 w = (1 - 2 rate) w. Each step multiplies w by the
# same number, and the rate alone decides whether w shrinks.


# %%
def descend(rate, steps=20, start=2.0):
    w = Tensor(start, dtype="float64", requires_grad=True)
    path = [w.item()]
    for _ in range(steps):
        w.grad = None
        (w * w).backward()
        with tensor.no_grad():
            w -= rate * w.grad
        path.append(w.item())
    return path


RATES = {
    0.01: "too low",
    0.3: "right",
    0.5: "one step, only here",
    0.95: "across the valley and back",
    1.0: "for ever to and fro",
    1.05: "too high",
}
paths = {rate: descend(rate) for rate in RATES}
print("rate   each step times   w after 0, 1, 2, 3 and 20 steps")
for rate, path in paths.items():
    print(
        f"{rate:4}   {1 - 2 * rate:15.2f}   ",
        *(f"{path[i]:8.4f}" for i in (0, 1, 2, 3, 20)),
        "  ",
        RATES[rate],
    )
    assert np.allclose(path, 2.0 * (1 - 2 * rate) ** np.arange(21)), "what the formula says"

assert abs(paths[0.3][-1]) < 1e-6 < 1 < abs(paths[0.01][-1]), "right: there; too low: hardly begun"
assert abs(paths[1.0][-1]) == 2.0 < abs(paths[1.05][-1]), (
    "from rate 1 on w no longer shrinks, and above it grows"
)

# %% [markdown]
# ## 2. Two directions, one rate: L = w1^2 + 25 w2^2
#
# The steep direction needs a rate below 1/25. With such a rate the flat direction is slow. So
# optimisers such as Adam and AdamW give each weight a rate of its own.

# %%
print()
for rate in (0.035, 0.045):
    w = Tensor([2.0, 2.0], dtype="float64", requires_grad=True)
    for _ in range(20):
        w.grad = None
        (w * w * Tensor([1.0, 25.0], dtype="float64")).sum().backward()
        with tensor.no_grad():
            w -= rate * w.grad
    print(
        f"rate {rate}: after 20 steps the flat w1 = {w[0].item():.3f}, "
        f"the steep w2 = {w[1].item():.3g}"
    )
    assert (abs(w[1].item()) > 2) == (rate > 1 / 25)
    assert abs(w[0].item()) > 0.2

# %% [markdown]
# ## 3. Thousands of weights, the same three pictures
#
# The model is a GPT with one block, on windows of the story (6_the_transformer/3_a_gpt.py). Here
# only its loss matters.

# %%
text = tinygpt.story()
tokenizer = tinygpt.CharacterTokenizer(text)
x, y = tinygpt.windows(tokenizer.encode(text), 16)
config = tinygpt.GPTConfig(vocabulary=tokenizer.size, context=16, width=32, heads=2, layers=1)


def train(rate, steps=120):
    """The losses of plain gradient descent; it stops where the model is lost. The same weights and
    batches for every rate.
    """
    model, batches = tinygpt.GPT(config, generator=tensor.Generator(0)), tensor.Generator(0)
    optimizer, losses = optim.SGD(model, lr=rate), []
    while len(losses) < steps and sum(losses[-1:]) < 100:
        rows = batches.integers(0, len(x), (16,))
        optimizer.zero_grad()
        loss = model.loss(x[rows], y[rows])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


print(f"\nThe story model, {sum(p.size for p in tinygpt.GPT(config).parameters()):,} weights:")
know_nothing = math.log(tokenizer.size)
curves = {rate: train(rate) for rate in (0.001, 0.2, 5.0)}
for rate, losses in curves.items():
    print(
        f"rate {rate:5}   loss {losses[0]:.2f} -> {losses[-1]:.3g} in {len(losses)} steps   "
        f"(knowing nothing: {know_nothing:.2f})"
    )
low, right, high = (losses[-1] for losses in curves.values())
assert right < 2.0 < 2.8 < low < know_nothing + 0.05 < high

figure, (left_axes, right_axes) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
line = np.linspace(-2.6, 2.6, 101)
left_axes.plot(line, line**2, color="lightgray")
for rate in (0.01, 0.3, 0.95):
    left_axes.plot(
        paths[rate],
        np.square(paths[rate]),
        "o-",
        markersize=3,
        linewidth=1,
        label=f"rate {rate}: {RATES[rate]}",
    )
for rate, losses in curves.items():
    right_axes.plot(losses, label=f"rate {rate}")
left_axes.set(title="L = w^2", xlabel="w", ylabel="L")
right_axes.set(
    title="The story model: too low, right, too high", xlabel="step", ylabel="loss", ylim=(0, 6)
)
left_axes.legend()
right_axes.legend()
if plt.get_backend().lower() != "agg":  # agg: no screen, nothing to show
    plt.show()
