# %% [markdown]
# # Mixed precision: what 16 bits can hold
#
#     float32    1 sign   8 bits of exponent   23 of fraction      7 digits, up to 3.4e38
#     float16    1 sign   5 bits of exponent   10 of fraction      3 digits, up to 65,504
#     bfloat16   1 sign   8 bits of exponent    7 of fraction      2 to 3 digits, up to 3.4e38
#
# A number of 16 bits takes half the memory, and a GPU multiplies such matrices several times as
# fast. But float16 overflows early, and bfloat16 has few digits. So a training in 16 bits keeps
# some things in float32. This lesson shows what breaks without each of these things.
#                                                      Micikevicius et al. 2018

# %%
import ml_dtypes
import numpy as np

import tensor
import tinygpt
from tensor import Tensor
from tinygpt.config import TrainConfig
from tinygpt.data.windows import Windows
from tinygpt.training.step import arithmetic, gradients, optimizer_of, train

bfloat16, float16 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)
np.seterr(over="ignore", invalid="ignore")  # overflow is the subject here

# %% [markdown]
# ## 1. The largest, the smallest, and the next number after 1

# %%
print(f"{'':10}{'largest':>10}{'smallest':>10}{'after 1':>10}")
for dtype in (np.dtype(np.float32), float16, bfloat16):
    info = ml_dtypes.finfo(dtype)
    largest, smallest, step = (
        float(number) for number in (info.max, info.smallest_subnormal, info.eps)
    )
    print(f"{dtype.name:10}{largest:10.3g}{smallest:10.1e}{1 + step:10.7g}")
assert float(ml_dtypes.finfo(float16).max) == 65504
assert float(ml_dtypes.finfo(bfloat16).eps) == 2**-7

# %% [markdown]
# ## 2. Overflow: above 65,504, float16 is infinite
#
# Two harmless numbers are enough: 256 x 256 = 65,536. Softmax raises e to the scores, and e^12 is
# too large. A norm squares its input, so 300 is too large. bfloat16 has no such limit here, but its
# numbers are coarse: near 65,504 they are 256 apart.

# %%
print()
for number in (65504, 65519, 65520, 70000):
    print(f"{number:6} in float16 {float16.type(number):8}, in bfloat16 {bfloat16.type(number)}")
assert np.isfinite(float16.type(65519))
assert np.isinf(float16.type(65520)), "from the middle to 65,536 on"

scores = np.array([12.0, 11.0, 3.0], float16)
by_hand = np.exp(scores) / np.exp(scores).sum()
shifted = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
print(f"softmax of {scores}: {by_hand}; after subtracting the largest score: {shifted}")
assert np.isnan(by_hand[0])
assert np.allclose(shifted, [0.731, 0.269, 0.0], atol=1e-3)

row = np.array([300.0, -300.0, 100.0, -100.0], float16)
print(f"mean of the squares of {row}: {np.mean(row * row)}")
assert np.isinf(np.mean(row * row))
gain, bias = Tensor(np.ones(4, float16)), Tensor(np.zeros(4, float16))
normed = tensor.layer_norm(Tensor(row), gain, bias)
print(f"the engine's norm of it: {normed.numpy()}, {normed.dtype}")
assert np.allclose(normed.numpy(), row / np.sqrt(50_000), atol=1e-3), "computed in float32"

# %% [markdown]
# ## 3. Three digits: a sum that stands still
#
# The numbers of bfloat16 after 256 are 258 and 260. So 256 + 1 is 256 again, and a sum of 70,000
# ones stops there. In float16 it stops at 2,048. The engine adds in float32 and rounds once, at the
# end. A GPU does the same inside a matrix product.

# %%
print()
for dtype, stop in ((bfloat16, 256), (float16, 2048)):
    total = dtype.type(0)
    for _ in range(3000):
        total = total + dtype.type(1)
    print(f"3,000 ones, one by one in {dtype.name}: {float(total):g}")
    assert float(total) == stop
ones = np.ones(70_000, bfloat16)
print(f"70,000 ones: NumPy {ones.sum()}, the engine {Tensor(ones).sum().item():g}")
assert ones.sum() == 256
assert Tensor(ones).sum().item() == bfloat16.type(70_000), "70,000, rounded once"

# %% [markdown]
# ## 4. Small updates: why a float32 copy of the weights is kept
#
# A step changes a weight by about a thousandth of it. In bfloat16, 1 + 0.001 is 1. So the weight
# stands still, however many steps are taken. The optimiser therefore keeps each weight in float32
# (the master weight), adds the update there, and rounds a copy for the next forward pass.

# %%
weight, master = bfloat16.type(1), np.float32(1)
for _ in range(1000):
    weight = bfloat16.type(weight + bfloat16.type(0.001))
    master = master + np.float32(0.001)
print(f"\n1,000 steps of 0.001 from 1: bfloat16 {weight}, the master {master:.4f}")
assert weight == 1
assert abs(master - 2) < 1e-3

# %% [markdown]
# ## 5. Small gradients: what the loss scale saves
#
# Below 6e-8 a float16 is 0. Gradients are often as small, because the loss is a mean over all
# tokens of a batch: a logit has the gradient (p - 1) / N or p / N, for N tokens. The remedy:
# multiply the loss by S, and all gradients are S times as large. After backward, in float32, divide
# by S. Here are the gradients of 1,024 x 2,000 logits, with S = 1 and S = 2^15.

# %%
N, V = 1024, 2000
drawn = tensor.randn(N, V, generator=tensor.Generator(0)).numpy() * 3
targets = np.arange(N) % V


def logit_gradients(dtype, scale=1.0):
    logits = Tensor(drawn.astype(dtype), requires_grad=True)
    loss = tensor.cross_entropy(logits, targets)
    loss.backward(Tensor(np.array(scale, loss.dtype)))
    return logits.grad.numpy().astype(np.float64) / scale


right = logit_gradients(np.float32)
print(f"\nhalf of the gradients are below {np.median(np.abs(right)):.0e}")
for scale in (1.0, 2.0**15):
    found = logit_gradients(float16, scale)
    lost = np.mean(found == 0)
    print(f"S = 2^{np.log2(scale):<3.0f} {lost:6.1%} of them are 0")
    assert (lost > 0.3) == (scale == 1.0)

# %% [markdown]
# A whole model is milder here, as it has 22 letters only. Its gradient is compared with that of
# float32, and too large a scale is tried as well.

# %%
text = tinygpt.story() * 40
tokenizer = tinygpt.CharacterTokenizer(text)
windows = Windows(tokenizer.encode(text), 32)
config = tinygpt.GPTConfig(tokenizer.size, 32, width=32, heads=4, layers=2)
x, y = (np.tile(rows, (4, 1)) for rows in windows[np.arange(64)])


def gradients_in(dtype, scale=1.0):
    """All gradients as one array, divided by the scale in float64."""
    training = TrainConfig(dtype=dtype)
    model = tinygpt.GPT(config, generator=tensor.Generator(0), dtype=dtype)
    optimizer = optimizer_of(model, training)
    if optimizer.loss_scale is not None:
        optimizer.loss_scale.value = scale
    with arithmetic(config, training):
        gradients(model, optimizer, x, y)
    found = [parameter.grad.numpy().astype(np.float64).ravel() for parameter in model.parameters()]
    return np.concatenate(found) / scale


right, errors = gradients_in("float32"), {}
for scale in (1.0, 2.0**16, 2.0**40):
    found = gradients_in("float16", scale)
    errors[scale] = np.linalg.norm(found - right) / np.linalg.norm(right)
    print(f"S = 2^{np.log2(scale):<3.0f} error of the gradient {errors[scale]:.1e}")
assert errors[1.0] > 3 * errors[2.0**16], "the scale saves digits"
assert not np.isfinite(errors[2.0**40]), "too large a scale overflows"

# %% [markdown]
# ## 6. The scale finds itself
#
# Nobody knows the best scale. So the trainer begins high. If a gradient overflows, it skips the
# step and halves the scale. After 2,000 good steps it doubles the scale. Here it begins at 2^40, to
# show the search, and the loss falls all the same.

# %%
training = TrainConfig(dtype="float16", steps=100, batch=8)
model = tinygpt.GPT(config, generator=tensor.Generator(0), dtype="float16")
optimizer = optimizer_of(model, training)
optimizer.loss_scale.value = 2.0**40
with arithmetic(config, training):
    records = list(train(model, windows, training, optimizer))
skipped = [record.step for record in records if record.skipped]
print(f"\nskipped the steps {skipped[0]} to {skipped[-1]}, then none")
print(f"scale 2^{np.log2(records[0].loss_scale):.0f} -> 2^{np.log2(records[-1].loss_scale):.0f}")
print(f"loss  {records[0].loss:.2f} -> {records[-1].loss:.2f}")
assert skipped == list(range(1, len(skipped) + 1)), "halved until all gradients fit"
assert records[-1].loss_scale == 2.0 ** (40 - len(skipped))
assert records[-1].loss < 0.7 * records[0].loss
