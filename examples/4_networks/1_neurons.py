# %% [markdown]
# # Neurons: the result and the slope of each
#
#     neuron                y = f(x . w + b)
#     perceptron (step)     f = 1 if z > 0 else 0          no slope to learn from
#     sigmoid               f = 1 / (1 + e^-z)             f' = f (1 - f)               at most 1/4
#     tanh                  f = tanh z                     f' = 1 - f^2                 at most 1
#     ReLU                  f = max(z, 0)                  f' = 1 if z > 0 else 0
#     GELU                  f = z P(Z <= z)                f' = P(Z <= z) + z p(z)
#
# Z is a normal random number, and p its density. In the backward pass a neuron passes back dz = dy
# * f'(z). If its slope is 0, the weights before it learn nothing. At the end there is a picture.

# %%
import math
import textwrap

import matplotlib.pyplot as plt
import numpy as np

import tensor
from tensor import Tensor
from tensor.errors import GraphError
from tensor.gradcheck import gradcheck

# %% [markdown]
# ## 1. One neuron by hand: inputs, weights, bias, and a function f

# %%
inputs, weights, bias = np.array([1.0, 0.5]), np.array([2.0, -3.0]), 0.25
z = float(inputs @ weights + bias)
print("z = 1 * 2 + 0.5 * -3 + 0.25 =", z)
assert z == 0.75


def below(z):
    """P(Z <= z), the normal distribution's share below z."""
    return (1 + np.vectorize(math.erf)(z / math.sqrt(2))) / 2


def density(z):
    return np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def logistic(z):
    return 1 / (1 + np.exp(-z))


# Each: f and f' by hand, and the engine's op.
NEURONS = {
    "sigmoid": (logistic, lambda z: logistic(z) * (1 - logistic(z)), tensor.sigmoid),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2, tensor.tanh),
    "ReLU": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0, tensor.relu),
    "GELU": (
        lambda z: z * below(z),
        lambda z: below(z) + z * density(z),
        lambda z: tensor.gelu(z, form="erf"),
    ),
}

# %% [markdown]
# ## 2. The slope by hand, by the engine, and by central differences
#
#     f'(z) ~ (f(z + h) - f(z - h)) / 2h          uses no rule for slopes
#
# ReLU has a corner at 0. There the differences give 1/2, and the engine gives 0. Both are choices,
# so the check does not include 0.

# %%
points = np.linspace(-4, 4, 40)  # 0 is not among them
print("\n            by hand           by the engine     gradcheck:")
print("neuron      f(z)    f'(z)     f(z)   f'(z)      worst relative error")
for name, (f, slope, op) in NEURONS.items():
    t = Tensor(z, dtype="float64", requires_grad=True)
    y = op(t)
    y.backward()
    worst = gradcheck(op, [points])
    print(
        f"{name:9} {f(z):6.4f}   {slope(z):6.4f}    {y.item():.4f} {t.grad.item():.4f}     "
        f"{worst:.1e}"
    )
    many = Tensor(points, requires_grad=True)
    values = op(many)
    (gradients,) = tensor.grad(values, many, np.ones(40))
    assert np.allclose(values.numpy(), f(points), atol=1e-9)
    assert np.allclose(gradients.numpy(), slope(points), atol=1e-9)
    assert worst < 1e-6
h, corner = 1e-5, Tensor(0.0, requires_grad=True)
assert np.isclose((tensor.relu(h).item() - tensor.relu(-h).item()) / (2 * h), 1 / 2)
assert tensor.grad(tensor.relu(corner), corner)[0].item() == 0
highest = {name: slope(np.linspace(-4, 4, 2001)).max() for name, (_, slope, _) in NEURONS.items()}
print("highest slope:", "  ".join(f"{name} {most:.2f}" for name, most in highest.items()))
assert np.isclose(highest["sigmoid"], 1 / 4)
assert np.isclose(highest["tanh"], 1)

# %% [markdown]
# ## 3. The perceptron has no slope: the engine raises an error instead of passing back zeros

# %%
t = Tensor([0.75], requires_grad=True)
assert t.step().tolist() == [1.0]
try:
    t.step().sum().backward()
except GraphError as error:
    print(
        textwrap.fill(
            f"\nGraphError: {error}", 98, subsequent_indent="    ", replace_whitespace=False
        )
    )
else:
    raise AssertionError("a step has no gradient")

# %% [markdown]
# ## 4. The gradient through ten neurons, one after the other
#
# A sigmoid passes back at most a quarter of its gradient. After ten of them little is left: the
# gradient vanishes. A ReLU passes back all of its gradient for z > 0, and nothing for z < 0.

# %%
print()
for name, (_, _, op) in NEURONS.items():
    for start in (2.0, -2.0):
        t = y = Tensor(start, dtype="float64", requires_grad=True)
        for _ in range(10):
            y = op(y)
        y.backward()
        print(
            f"{name:9} ten times from {start:4}:   "
            f"y = {y.item():8.4f}   dy/dx = {t.grad.item():.1e}"
        )
        if name == "sigmoid":
            assert 0 < t.grad.item() < 0.25**10
        if name == "ReLU":
            assert t.grad.item() == (start > 0)

# %% [markdown]
# ## 5. GPT-2 was trained with another GELU, made of tanh: close, but not the same

# %%
line = np.linspace(-4, 4, 2001)
gap = np.abs(tensor.gelu(line, form="tanh").numpy() - tensor.gelu(line, form="erf").numpy())
print(
    f"\nlargest difference of the two GELUs {gap.max():.1e}, at |z| = {abs(line[gap.argmax()]):.1f}"
)
assert 1e-4 < gap.max() < 1e-3

figure, (above, under) = plt.subplots(2, 1, sharex=True, layout="constrained")
for name, (f, slope, _) in NEURONS.items():
    above.plot(line, f(line), label=name)
    under.plot(line, slope(line), label=name)
above.set(ylabel="f(z)", ylim=(-1.2, 2.5), title="Four neurons, and the slope that each sends back")
under.set(ylabel="f'(z)", xlabel="z")
# the most that a sigmoid passes back
under.axhline(0.25, color="gray", linestyle=":", linewidth=1)
above.legend()
if plt.get_backend().lower() != "agg":  # agg: no screen, nothing to show
    plt.show()
