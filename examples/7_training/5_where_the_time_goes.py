# %% [markdown]
# # Where the time of a step goes
#
#     forward     the loss of a batch
#     backward    the gradients: about twice the products of forward
#     update      clip the gradients, and change the weights
#
# To make a training faster, first measure where its time goes. A guess is mostly wrong. This lesson
# counts the multiplications of a step by hand, measures the time of each op, and compares the two.
#
#     B batch   T context   C width   L blocks   V vocabulary

# %%
import time

import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor.recording import in_bytes, totals
from tinygpt.config import TrainConfig
from tinygpt.data.windows import Windows
from tinygpt.training.planning import flops
from tinygpt.training.profile import Profile
from tinygpt.training.step import train

threadpool_limits(1, user_api="blas")

# %% [markdown]
# ## 1. Count first
#
# A product of (n, k) and (k, m) takes n k m multiplications. Forward, each token meets each weight
# of a block once: 12 C C. It also meets the keys and values up to itself, (T + 1) / 2 on average,
# of C numbers each. Then comes the head, with C V. Backward makes two products for each product of
# forward: one for the gradient of the input, and one for that of the weights.

# %%
B, T, C, L, V = 8, 64, 128, 4, 64
config = tinygpt.GPTConfig(vocabulary=V, context=T, width=C, heads=4, layers=L)
counted = {
    "attention": L * (4 * C * C + 2 * C * (T + 1) // 2),
    "feed_forward": L * 8 * C * C,
    "head": C * V,
}
work = sum(counted.values())
print("multiplications of a token, forward")
for part, count in counted.items():
    print(f"{part:14}{count:10,}{count / work:7.0%}")
assert 2 * 3 * B * T * work == flops(config, B), "2 for the addition, 3 for backward"

# %% [markdown]
# ## 2. Measure each op
#
# `tensor.record()` notes each op with its time and its memory. `Profile` records some steps of a
# training, and adds the same layers of all blocks. `tinygpt train --profile 20` does this with a
# training of yours. `forward` and `backward` are milliseconds; `written` are the results and the
# gradients, `kept` is what stays in memory for backward.

# %%
training = TrainConfig(batch=B, steps=14)
ids = tensor.Generator(0).integers(0, V, (4096,))
model = tinygpt.GPT(config, generator=tensor.Generator(0))
profile = Profile(8)
for _ in profile.watch(train(model, Windows(ids, T), training)):
    pass
print()
for line in profile.lines()[:14]:
    print(line)

entries, steps = profile.recording.entries, len(profile.recorded)
by_op = {row.name: row for row in totals(entries, "op")}
update = sum(
    row.forward for name, row in by_op.items() if name in ("clip_gradients", "Optimizer.step")
)
times = {
    "forward": sum(row.forward for row in by_op.values()) - update,
    "backward": sum(row.backward for row in by_op.values()),
    "update": update,
}
ops = sum(times.values())
whole = sum(record.seconds for record in profile.recorded)
times["between the ops"] = whole - ops
print(f"\na step takes {1e3 * whole / steps:.1f} ms")
for part, seconds in times.items():
    print(f"{part:16}{1e3 * seconds / steps:7.1f} ms{seconds / whole:7.0%}")
print(
    f"{flops(config, B) * steps / whole / 1e9:.0f} billion multiplications and additions a second"
)
assert times["backward"] > times["forward"] > times["update"]
assert ops < whole

# %% [markdown]
# ## 3. Compare: an op without products takes time too
#
# A product uses each number that it reads many times, and runs near the speed of the processor. A
# norm, the loss and the update have hardly any multiplications, but each reads and writes whole
# arrays. So they take time that the count above does not know.

# %%
PRODUCTS = (
    "linear",
    "linear_gelu",
    "attention",
    "multi_head_attention",
    "linear_cross_entropy",
    "matmul",
)
print()
for name, row in list(by_op.items())[:8]:
    seconds = row.forward + row.backward
    mark = "products" if name in PRODUCTS else ""
    size = in_bytes(row.bytes / steps)
    print(f"{name:24}{seconds / ops:6.1%}  {size:>10} written   {mark}".rstrip())
inside = sum(row.forward + row.backward for name, row in by_op.items() if name in PRODUCTS)
print(f"ops with products: {inside / ops:.0%} of the time of all ops, and all of the count")
assert ops / 3 < inside < ops

# %% [markdown]
# ## 4. What grows, and how fast
#
# Twice the width is four times the weights of a block. Twice the context is twice the tokens, and
# in attention four times the pairs. What does not grow is the work of Python: a call of an op takes
# some microseconds, whatever its size. So a small model is slow for its size.

# %%


def model_of(T, C):
    """A function that computes the gradients of a batch; the count of its multiplications."""
    shape = tinygpt.GPTConfig(vocabulary=V, context=T, width=C, heads=4, layers=L)
    model = tinygpt.GPT(shape, generator=tensor.Generator(0))
    x, y = Windows(ids, T)[np.arange(B)]

    def learn():
        model.zero_grad()
        model.loss(x, y).backward()

    learn()
    return learn, flops(shape, B) / 2


def median_seconds(work, count=7):
    """The median of some runs: one run may be slow for reasons outside the program."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


print("\n  T    C   multiplications       ms   millions in a ms")
rates = {}
for T, C in ((16, 16), (64, 64), (64, 128), (128, 128)):
    learn, count = model_of(T, C)
    milliseconds = 1e3 * median_seconds(learn)
    rates[T, C] = count / milliseconds
    print(f"{T:3}{C:5}{count:18,.0f}{milliseconds:9.1f}{rates[T, C] / 1e6:19.1f}")
assert rates[16, 16] < rates[64, 128], "the small model pays for the calls"

# %% [markdown]
# What is between the ops is Python: the calls of modules and ops, and the graph. Its share is large
# in a small model.

# %%
shares = {}
for T, C in ((16, 16), (64, 128)):
    learn, _ = model_of(T, C)
    outside = []
    for _ in range(7):
        start = time.perf_counter()
        with tensor.record(values=False) as recording:
            learn()
        seconds = time.perf_counter() - start
        outside.append(1 - sum(entry.seconds for entry in recording.entries) / seconds)
    shares[T, C] = float(np.median(outside))
    print(f"T {T:3}, C {C:3}: {shares[T, C]:.0%} of the time is between the ops")
assert shares[16, 16] > shares[64, 128]
