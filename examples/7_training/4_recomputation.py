# %% [markdown]
# # Recomputation: less memory for more time
#
#     forward     layer 1   layer 2   layer 3   layer 4     each layer keeps arrays for backward
#     backward    layer 4   layer 3   layer 2   layer 1     and uses them in the opposite order
#
# What layer 1 keeps is used last. So at the end of forward the arrays of all layers are in memory,
# and in a large model they are most of it. Recomputation drops them, and keeps only the input of
# each stretch of layers. Backward then runs a stretch forward again, just before it needs the
# arrays. This lesson counts what is saved and what it costs.      Chen et al. 2016

# %%
import math
import time
import tracemalloc

import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import Tensor, nn
from tensor.recording import in_bytes

threadpool_limits(1, user_api="blas")

# %% [markdown]
# ## 1. A chain of 36 layers, cut into stretches
#
# A layer here is y = gelu(x W). It counts how often it runs forward.

# %%
LAYERS, ROWS, C = 36, 1024, 128
runs = 0


class Layer(nn.Module):
    def __init__(self):
        self.linear = nn.Linear(C, C)

    def __call__(self, x):
        global runs
        runs += 1
        return tensor.gelu(self.linear(x))


tensor.manual_seed(0)
layers = [Layer() for _ in range(LAYERS)]
x = tensor.randn(ROWS, C, generator=tensor.Generator(1))
array = x.numpy().nbytes
print(f"an array of {ROWS} x {C} numbers: {in_bytes(array)}")


def through(x, part):
    for layer in part:
        x = layer(x)
    return x


def step(stretches):
    """The gradients of all weights; the peak of memory; the runs of a layer; the seconds. With 0
    stretches nothing is recomputed.
    """
    global runs
    runs, size = 0, LAYERS // max(stretches, 1)
    for layer in layers:
        layer.linear.weight.grad = layer.linear.bias.grad = None
    tracemalloc.start()  # NumPy reports its arrays to it
    start = time.perf_counter()
    y = x
    for first in range(0, LAYERS, size):
        part = layers[first : first + size]
        y = tensor.checkpoint(through, y, part) if stretches else through(y, part)
    (y * y).mean().backward()
    seconds = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return [layer.linear.weight.grad.numpy().copy() for layer in layers], peak, runs, seconds


step(0)  # makes buffers and kernels
plain = step(0)
print(f"\n{'stretches':>9}{'layers each':>13}{'memory':>12}{'of plain':>10}{'layers run':>12}")
print(f"{'none':>9}{'':13}{in_bytes(plain[1]):>12}{1:10.0%}{plain[2]:12}")
peaks = {}
for stretches in (1, 2, 3, 6, 12, 36):
    found = step(stretches)
    peaks[stretches] = found[1] / plain[1]
    print(
        f"{stretches:9}{LAYERS // stretches:13}{in_bytes(found[1]):>12}"
        f"{peaks[stretches]:10.0%}{found[2]:12}"
    )
    assert found[2] == 2 * LAYERS, "each layer runs forward twice"
    assert all(map(np.array_equal, found[0], plain[0])), "bit for bit the same gradients"
assert plain[2] == LAYERS
assert min(peaks, key=peaks.get) in (3, 6, 12), "neither one stretch nor one for each layer"
assert peaks[6] < 0.5 < 0.9 < peaks[1]

# %% [markdown]
# The work is the same for any cut: one forward pass more. The memory is not. With k stretches of N
# layers, the inputs of k stretches are kept all the time, and the arrays of one stretch, N / k
# layers, while backward is in it:
#
#     memory  ~  a k + b N / k        a: the arrays that a stretch keeps, b: those of a layer
#
# One stretch saves nothing: at the end all its layers are kept at once. The least is at
# k = sqrt(N b / a), and this least grows with sqrt(N), where the plain memory grows with N.

# %%
a, b = 1, 2  # the input of a stretch; in a layer the input of the product and that of GELU
print(f"\nsqrt(N b / a) = {math.sqrt(LAYERS * b / a):.1f} stretches")
for stretches, share in peaks.items():
    formula = (a * stretches + b * LAYERS / stretches) / (b * LAYERS)
    print(f"{stretches:3} stretches: formula {formula:4.0%} of plain, measured {share:4.0%}")
assert 3 < math.sqrt(LAYERS * b / a) < 12

# %% [markdown]
# ## 2. Dropout must do the same again
#
# A random layer that drew anew in the second run would have other zeros, and so a wrong gradient.
# Here a random number follows from a key or from the state of the generator, and `checkpoint` gives
# the second run those of the first.

# %%
gradients = []
for again in (False, True):
    tensor.manual_seed(5)
    weight = Tensor(np.ones((C, C), np.float32) / C, requires_grad=True)
    drop = nn.Dropout(0.5)

    def noisy(x, weight=weight, drop=drop):
        return drop(x @ weight)

    y = tensor.checkpoint(noisy, x) if again else noisy(x)
    (y * y).sum().backward()
    gradients.append(weight.grad.numpy().copy())
assert np.array_equal(*gradients)
print("\ndropout, recomputed: the same gradient, bit for bit")

# %% [markdown]
# ## 3. A GPT: a stretch is a block
#
# `tinygpt train --recompute` does this. A block keeps many arrays for each input of a block, so a
# block is a good stretch: much is saved, and the formula's k is near the number of blocks.

# %%
config = tinygpt.GPTConfig(vocabulary=64, context=64, width=64, heads=4, layers=12)
ids = tensor.Generator(0).integers(0, 64, (8, 65))
results = {}
for recompute in (False, True):
    model = tinygpt.GPT(config, generator=tensor.Generator(0))
    model.recompute = recompute
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    seconds = []
    for _ in range(3):
        model.zero_grad()
        start = time.perf_counter()
        model.loss(ids[:, :-1], ids[:, 1:]).backward()
        seconds.append(time.perf_counter() - start)
    model.zero_grad()
    tracemalloc.start()
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    gradient = model.blocks[0].attention.qkv.weight.grad.numpy().copy()
    results[recompute] = peak, min(seconds), gradient
    name = "recomputed" if recompute else "plain"
    print(f"{name:11} peak {in_bytes(peak):>9}   {min(seconds) * 1e3:6.1f} ms a step")
memory = results[True][0] / results[False][0]
longer = results[True][1] / results[False][1]
print(f"memory x {memory:.2f}, time x {longer:.2f}; by the products alone, time x 4 / 3")
assert memory < 0.5
assert np.array_equal(results[False][2], results[True][2]), "the same training, bit for bit"
