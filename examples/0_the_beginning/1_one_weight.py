# %% [markdown]
# # One weight learns: a wrong answer becomes right
#
#     y = w x          the model: one weight w
#     loss             (y - target) squared
#     gradient         dloss/dw = 2 (y - target) x
#     a step           w <- w - rate * gradient
#
# A model is a formula with numbers that can change. These numbers are the weights. Training changes
# the weights so that the answers get better. A GPT has thousands or billions of weights. This model
# has one, so you can compute each step on paper.

# %%
import numpy as np

import tensor
from tensor import Tensor, optim

# %% [markdown]
# ## 1. The loss: how wrong is the answer?
#
# The input is 1, the answer should be 1.5, and the weight is 0.5. The difference is squared, so an
# answer that is too high and an answer that is too low both cost something.

# %%
x, target, w, rate = 1.0, 1.5, 0.5, 0.1
y = w * x
loss = (y - target) ** 2
print(f"w {w}: the answer is {y}, it should be {target}, the loss is {loss}")
assert loss == 1.0

# %% [markdown]
# ## 2. The gradient: how does the loss change when the weight changes?
#
# Make the weight a little larger, and look at the loss. The change of the loss, divided by the
# change of the weight, is the slope. The gradient is the slope for a change that is as small as you
# like. Here it is negative: the loss falls when w rises.

# %%
print("\nchange of w   new loss   change of the loss / change of w")
for change in (0.1, 0.01, 0.001):
    new = ((w + change) * x - target) ** 2
    print(f"{change:11}   {new:8.6f}   {(new - loss) / change:8.3f}")
gradient = 2 * (y - target) * x
print(f"by the formula: 2 * ({y} - {target}) * {x} = {gradient}")
assert gradient == -2.0
assert abs((new - loss) / change - gradient) < 0.01

# %% [markdown]
# ## 3. The step: go against the gradient
#
# The gradient says where the loss rises, and how fast. So subtract the gradient, times a small
# number: the learning rate.

# %%
stepped = w - rate * gradient
after = (stepped * x - target) ** 2
print(f"\nw {w} - {rate} * {gradient} = {stepped}: the loss falls from {loss} to {after:.2f}")
assert np.isclose(stepped, 0.7)
assert np.isclose(after, 0.64)
wrong = w + rate * gradient
print(f"the other way, w would be {wrong}, and the loss {(wrong * x - target) ** 2:.2f}")
assert (wrong * x - target) ** 2 > loss

# %% [markdown]
# The engine computes the gradient without being told a formula for it. `backward` follows the
# operations from the loss back to the weight. The optimiser makes the step.

# %%
weight = Tensor(w, requires_grad=True)
optimizer = optim.SGD([weight], lr=rate)
squared_error = (weight * x - target) ** 2
squared_error.backward()
print(f"the engine: gradient {weight.grad.item()}, ", end="")
assert weight.grad.item() == -2.0
optimizer.step()
print(f"weight after the step {weight.item():.4f}")
assert np.isclose(weight.item(), 0.7)

# %% [markdown]
# ## 4. Why this matters: 0.5 says dog, 0.7 says cat
#
# An animal says meow: the input is 1. The weight goes from meow to cat, so w x is the score of cat.
# The score of dog is always 0.6. The model answers with the higher score. Softmax makes
# probabilities of the scores (4_networks/3_softmax_and_loss.py).

# %%
print("\n   w   score of cat   score of dog   p(cat)   answer")
answers = []
for value in (0.5, stepped):
    scores = {"cat": value * x, "dog": 0.6}
    answers.append(max(scores, key=scores.get))
    p = tensor.softmax(Tensor(list(scores.values()))).numpy()
    print(f"{value:.1f}   {scores['cat']:12.1f}   {scores['dog']:12.1f}   {p[0]:6.3f}", end="   ")
    print(answers[-1])
    assert np.isclose(p[0], 1 / (1 + np.exp(0.6 - value * x)))
assert answers == ["dog", "cat"]

# %% [markdown]
# The loss fell a little. The answer changed from wrong to right, because the score of cat passed
# the score of dog. All that a model learns, it learns in this way: many small steps, until the
# right score is the highest.
#
# ## 5. Step after step
#
# Each step makes the difference to the target 0.8 times as large. So the weight comes ever nearer
# to 1.5, in ever smaller steps: near the target the gradient is small.

# %%
print("\nstep   w        gradient   loss")
for step in range(31):
    optimizer.zero_grad()
    squared_error = (weight * x - target) ** 2
    squared_error.backward()
    # one step was made in section 3
    assert np.isclose(weight.item(), target - 0.8 ** (step + 1), atol=1e-5)
    if step in (0, 1, 2, 3, 10, 30):
        print(f"{step + 1:4}   {weight.item():.4f}   {weight.grad.item():8.4f}", end="   ")
        print(f"{squared_error.item():.6f}")
    optimizer.step()

# %% [markdown]
# ## 6. More weights: each gets a gradient of its own
#
# A weight of 0.9 is a strong connection, 0.1 a weak one. A negative weight speaks against the
# answer. The answer is the sum of all inputs, each times its weight.

# %%
weights, inputs = Tensor([0.9, 0.1, -0.5], requires_grad=True), np.array([1.0, 1.0, 0.0])
y = (weights * inputs).sum()
((y - target) ** 2).backward()
print(f"\nweights {weights.numpy().round(3)}, inputs {inputs}: answer {y.item():.1f}")
print("gradient of each weight, 2 (y - target) x:", weights.grad.numpy().round(3) + 0.0)
assert np.isclose(y.item(), 1.0)
assert np.allclose(weights.grad.numpy(), 2 * (1.0 - target) * inputs)

# %% [markdown]
# The third input is 0, so the third weight had no part in the answer, and its gradient is 0. It
# does not change. The first two had the same part in the error, and change equally:

# %%
optim.SGD([weights], lr=rate).step()
after = (weights * inputs).sum().item()
print(f"after one step the weights are {weights.numpy().round(3)}, and the answer is {after:.1f}")
assert np.allclose(weights.numpy(), [1.0, 0.2, -0.5])
assert abs(after - target) < abs(y.item() - target)
