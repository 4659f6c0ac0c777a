# %% [markdown]
# # LoRA by hand: one matrix learns by two vectors beside it
#
#     y = x W + (x a) b        W: (I, O), frozen   a: (I,)   b: (O,)        Hu et al. 2021
#
# Fine-tuning all weights of a large model costs memory: a gradient and two moments for each of
# them, and a whole new file for each task. LoRA (low-rank adaptation) freezes W and learns a small
# change of W. Here the change has rank 1: it is the outer product of two vectors. With r vectors on
# each side it has rank r. `tinygpt finetune RUN --lora 8` does this for every matrix of the blocks.
#
#     I inputs   O outputs   r rank

# %%
from hashlib import sha256

import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import Tensor, nn, optim
from tinygpt.model.adapters import LoRA

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads

# %% [markdown]
# ## 1. The forward pass on paper
#
# x a is one number: how much of direction a is in x. This number times b is added to the output.

# %%
x = np.array([1.0, 2.0, 3.0])
W = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
a, b = np.array([1.0, 0.0, 1.0]), np.array([0.5, -1.0])
print("x W       ", x @ W)
print("x a       ", x @ a)
print("(x a) b   ", (x @ a) * b)
print("y         ", x @ W + (x @ a) * b)

# %% [markdown]
# The same change as a matrix has I x O numbers, but it follows from I + O numbers. Added to W, it
# gives one matrix that does the same. So a model with adapters can be merged, and is then as fast
# as before.

# %%
print("\na b as a matrix\n", np.outer(a, b))
merged = W + np.outer(a, b)
print("x (W + a b)", x @ merged)
assert np.allclose(x @ merged, x @ W + (x @ a) * b)
for i, o in ((3, 2), (768, 3072)):
    print(f"I = {i}, O = {o}: {i * o:,} numbers in W, {i + o:,} in a and b")

# %% [markdown]
# ## 2. The gradients, and why b starts at 0
#
#     L = sum of (y - t)^2 / 2        dy = y - t
#     da = x (dy . b)                 db = (x a) dy
#
# At the start the model must compute what it computed before, so a b must be 0. With b = 0 and a
# drawn at random, da is 0, but db is not: the first step moves b, the second moves both. If both
# were 0, both gradients would be 0 for ever.

# %%
t = np.array([5.0, 4.0])


def gradients(a, b):
    """(da, db) by the engine, checked against the formulas."""
    A, B = Tensor(a, requires_grad=True), Tensor(b, requires_grad=True)
    y = Tensor(x @ W) + (Tensor(x) * A).sum() * B
    (((y - Tensor(t)) ** 2).sum() / 2).backward()
    dy = y.numpy() - t
    assert np.allclose(A.grad.numpy(), x * (dy @ b))
    assert np.allclose(B.grad.numpy(), (x @ a) * dy)
    return A.grad.numpy(), B.grad.numpy()


zero = np.zeros
print()
for name, start in (("b = 0", (a, zero(2))), ("both 0", (zero(3), zero(2))), ("none 0", (a, b))):
    da, db = gradients(*start)
    print(f"{name:7} da {da}   db {db}")

# %% [markdown]
# ## 3. What rank 1 can learn, and what it cannot
#
# The task is another matrix: W plus a change. If the change has rank 1, two vectors learn it. A
# change of rank 2 is a sum of two outer products. The best that rank 1 can do is the larger of the
# two. Then the error is the square of the second singular value of the change, here 0.7 (Eckart and
# Young 1936). Gradient descent reaches this bound.

# %%
generator = np.random.default_rng(0)
inputs, outputs = 6, 5
W = generator.standard_normal((inputs, outputs))
left, _ = np.linalg.qr(generator.standard_normal((inputs, 2)))
right, _ = np.linalg.qr(generator.standard_normal((outputs, 2)))
changes = {1: 2.0 * np.outer(left[:, 0], right[:, 0])}
changes[2] = changes[1] + 0.7 * np.outer(left[:, 1], right[:, 1])


def learned(change, rank):
    """The squared error that is left after 500 steps on all unit vectors x."""
    layer = nn.Linear(inputs, outputs, bias=False).to("float64")
    with tensor.no_grad():
        layer.weight[...] = W
    layer.requires_grad_(False)
    adapter = LoRA(layer, rank=rank, scale=1.0)
    with tensor.no_grad():
        adapter.A[...] = 0.1 * np.random.default_rng(1).standard_normal((inputs, rank))
    optimizer = optim.AdamW(adapter, lr=0.05, weight_decay=0.0)
    for step in range(500):
        optimizer.lr = optim.warmup_cosine(step, peak=0.05, warmup=10, total=500)
        optimizer.zero_grad()
        error = ((adapter(Tensor(np.eye(inputs))) - Tensor(W + change)) ** 2).sum()
        error.backward()
        optimizer.step()
    assert np.array_equal(adapter.base.numpy(), W)  # not a bit has moved
    return error.item()


print("\nrank of the change   rank of the adapter   error left")
for of_change, rank in ((1, 1), (2, 1), (2, 2)):
    error = learned(changes[of_change], rank)
    print(f"{of_change:18} {rank:21} {error:12.4f}")
    bound = 0.7**2 if of_change > rank else 0.0
    assert abs(error - bound) < 1e-3
print(f"the bound is 0.7^2 = {0.7**2:.4f}")

# %% [markdown]
# ## 4. Beside one matrix of a GPT
#
# A GPT learns the story of the cat and the dog. Then all its weights are frozen. The new text is
# the same story with cat and dog exchanged. One matrix of the first block gets an adapter, and the
# adapter alone learns. The higher the rank, the better the new text is learned.

# %%
text = tinygpt.story()
swapped = text.replace("cat", "~").replace("dog", "cat").replace("~", "dog")
tokenizer = tinygpt.CharacterTokenizer(text)
T, STEPS = 32, 200


def train(model, text, lr):
    """Learn the windows of a text; the model's parameters that require gradients move."""
    x, y = tinygpt.windows(tokenizer.encode(text), T)
    optimizer = optim.AdamW(model, lr=lr, weight_decay=0.0)
    for step in range(STEPS):
        optimizer.lr = optim.warmup_cosine(step, peak=lr, warmup=20, total=STEPS)
        optimizer.zero_grad()
        rows = np.random.default_rng(step).integers(0, len(x), 16)
        model.loss(x[rows], y[rows]).backward()
        optimizer.step()


def loss_on(text):
    x, y = tinygpt.windows(tokenizer.encode(text), T)
    with tensor.no_grad():
        return model.loss(x, y).item()


def hash_of(weights):
    return sha256(b"".join(weight.numpy().tobytes() for weight in weights)).hexdigest()[:16]


config = tinygpt.GPTConfig(vocabulary=tokenizer.size, context=T, width=32, heads=4, layers=2)
model = tinygpt.GPT(config, generator=tensor.Generator(0))
train(model, text, lr=5e-3)
model.requires_grad_(False)
base, block = list(model.parameters()), model.blocks[0].feed_forward
layer, before = block.projection, hash_of(base)
numbers = sum(weight.size for weight in base)


def adapted(rank):
    """The adapter of this rank beside the matrix, after it has learned the new text."""
    adapter = LoRA(layer, rank=rank, scale=1.0)
    with tensor.no_grad():
        adapter.A[...] = np.random.default_rng(2).uniform(-0.1, 0.1, adapter.A.shape)
    block.projection = adapter
    train(model, swapped, lr=3e-2)
    return adapter


print(f"\nnew text: {swapped[:54]} ...")
print("\nrank   numbers that learn   loss on the new text")
losses = {0: loss_on(swapped)}
print(f"none {0:20} {losses[0]:22.3f}")
for rank in (1, 2, 8):
    adapter = adapted(rank)
    losses[rank] = loss_on(swapped)
    learn = adapter.A.size + adapter.B.size
    print(f"{rank:4} {learn:12,} = {learn / numbers:5.1%} {losses[rank]:22.3f}")
assert losses[8] < losses[2] < losses[1] < losses[0]

# %% [markdown]
# ## 5. Merged, or taken away
#
# The merged matrix gives the same logits. The frozen weights have not moved by a bit: without the
# adapter, the old model is back. So one file of the base and a small file for each task are enough.

# %%
x, _ = tinygpt.windows(tokenizer.encode(swapped), T)
with tensor.no_grad():
    beside = model(x).numpy()
    plain = nn.Linear(*layer.weight.shape)
    plain.weight[...], plain.bias[...] = adapter.weight, adapter.bias
    block.projection = plain
    inside = model(x).numpy()
print(f"\nlogits, merged or not: they differ by at most {np.abs(beside - inside).max():.1e}")
block.projection = layer
print(f"the frozen weights: {before} before, {hash_of(base)} after")
print(f"loss on the new text without the adapter: {loss_on(swapped):.3f}, as before")
assert np.allclose(beside, inside, rtol=0, atol=1e-4)
assert hash_of(base) == before
assert loss_on(swapped) == losses[0]
