# %% [markdown]
# # The block: what LayerNorm does, why a block adds to its input, and where the norm is
#
#     pre-norm      x = x + attention(norm(x))        post-norm     x = norm(x + attention(x))
#                   x = x + feed_forward(norm(x))                   x = norm(x + feed_forward(x))
#
# A GPT has many blocks of this form. A block is attention (5_attention/2_attention_by_hand.py),
# then a feed-forward: two layers with a GELU between them (6_the_transformer/1_feed_forward.py).
# Each of the two is added to its input. The sum x, which goes from block to block, is the residual
# stream. This lesson writes out a block, equal to the model's own. Then it stacks blocks in five
# ways, and measures one number: how much of the gradient that enters at the top arrives at the
# bottom. At the end there is a picture.
#
#     B batch   T time   C width   H heads

# %%
import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import Tensor, optim
from tinygpt.model.block import Block

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads
rng = np.random.default_rng(0)


def rms(x):
    """How large its numbers are: the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(x))))


# %% [markdown]
# ## 1. LayerNorm by hand
#
#     norm(x) = gain * (x - mean) / sqrt(variance + eps) + bias
#
# Mean and variance are those of the C numbers of one token.

# %%
x = np.array([2.0, 4.0, 4.0, 6.0])
mean, variance = x.mean(), x.var()
print(
    f"x {x}: mean {mean}, variance {variance}, (x - mean) / sqrt(variance)",
    ((x - mean) / np.sqrt(variance)).round(3),
)
by_hand = (x - mean) / np.sqrt(variance + 1e-5)
one, zero = np.ones(4), np.zeros(4)
assert np.allclose(tensor.layer_norm(x, one, zero).numpy(), by_hand)

# %% [markdown]
# Whatever the size of x, the result has mean 0 and size 1. The gradient changes the other way
# round: if x is a thousand times larger, its gradient is a thousand times smaller. (For x + 100 the
# result is the same as for x: only differences count.)

# %%
dy = rng.standard_normal(4)
print("\n   x times   size of x   size of norm(x)   size of the gradient at x")
gradients = {}
for scale in (0.1, 1.0, 1000.0):
    leaf = Tensor(scale * x, requires_grad=True)
    y = tensor.layer_norm(leaf, one, zero, eps=1e-12)
    gradients[scale] = tensor.grad(y, leaf, dy)[0].numpy()
    print(f"{scale:10}{rms(leaf.numpy()):12.1f}{rms(y.numpy()):18.3f}{rms(gradients[scale]):28.6f}")
    assert np.isclose(rms(y.numpy()), 1)
assert np.allclose(gradients[1000.0] * 1000, gradients[1.0])
assert np.allclose(tensor.layer_norm(x + 100, one, zero).numpy(), by_hand)
assert abs(gradients[1.0].sum()) < 1e-9, (
    "no part of it would add the same to all: that would change nothing"
)
assert abs(gradients[1.0] @ by_hand) < 1e-4, (
    "and no part would stretch them: that would change nothing either"
)

# %% [markdown]
# ## 2. A block by hand, equal to the model's own

# %%
print()
for kind in ("pre", "post"):
    block = Block(
        tinygpt.GPTConfig(vocabulary=22, context=16, width=12, heads=3, layers=1, norm=kind)
    )
    a, f = block.attention, block.feed_forward
    stream = tensor.randn(2, 5, 12)  # (B, T, C)
    if kind == "pre":
        h = stream + a(
            tensor.layer_norm(stream, block.attention_norm.gain, block.attention_norm.bias)
        )
        y = h + f(tensor.layer_norm(h, block.feed_forward_norm.gain, block.feed_forward_norm.bias))
    else:
        h = tensor.layer_norm(
            stream + a(stream), block.attention_norm.gain, block.attention_norm.bias
        )
        y = tensor.layer_norm(h + f(h), block.feed_forward_norm.gain, block.feed_forward_norm.bias)
    off = np.abs(y.numpy() - block(stream).numpy()).max()
    print(f"{kind}-norm: largest difference to the model's block {off:.0e}")
    assert off < 1e-5

# %% [markdown]
# ## 3. Five ways to stack them
#
# The weights are drawn from N(0, 1 / inputs), so that a product keeps the size of its numbers. A
# random gradient enters at the top of 2, of 4, and at last of all 24 blocks. How large, relative to
# it, is the gradient at the bottom?

# %%
B, T, C, H = 2, 16, 48, 4


def norm(x):
    return tensor.layer_norm(x, np.ones(C), np.zeros(C))


# one half of a block: the stream, attention or feed-forward, and the norm that belongs to it
WAYS = {
    "neither": lambda x, f, norm: f(x),
    "norm alone": lambda x, f, norm: f(norm(x)),
    "residual alone": lambda x, f, norm: x + f(x),
    "post-norm": lambda x, f, norm: norm(x + f(x)),
    "pre-norm": lambda x, f, norm: x + f(norm(x)),
}


def fresh_block(rng):
    """attention and feed_forward with weights of their own, as two functions of x.   (B, T, C)"""
    qkv, projection, expand, back = (
        Tensor(rng.standard_normal((a, b)) / np.sqrt(a))
        for a, b in ((C, 3 * C), (C, C), (C, 4 * C), (4 * C, C))
    )

    def attention(x):
        q, k, v = (
            part.view(B, T, H, C // H).transpose(1, 2) for part in (x @ qkv).split(C, axis=-1)
        )
        return tensor.attention(q, k, v, causal=True).transpose(1, 2).reshape(B, T, C) @ projection

    return attention, lambda x: (x @ expand).gelu() @ back


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


DEPTHS = (2, 4, 8, 12, 16, 24)
reach, agree, forward, stream_size = ({way: [] for way in WAYS} for _ in range(4))
for way, step in WAYS.items():
    seen = {depth: [] for depth in DEPTHS}
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        first = x = Tensor(rng.standard_normal((B, T, C)), requires_grad=True)
        for depth in range(1, max(DEPTHS) + 1):
            for f in fresh_block(rng):
                x = step(x, f, norm)
            if depth in DEPTHS:
                y = norm(x) if way == "pre-norm" else x  # a GPT's final norm
                dy = rng.standard_normal(y.shape)
                bottom, top = (
                    g.numpy().ravel() for g in tensor.grad(y, [first, x], dy, retain_graph=True)
                )
                start, end = first.numpy().ravel(), x.numpy().ravel()
                seen[depth].append(
                    (
                        np.linalg.norm(bottom) / np.linalg.norm(dy),
                        cosine(bottom, top),
                        cosine(start, end),
                        rms(end),
                    )
                )
    for depth in DEPTHS:
        for place, value in zip(
            (reach, agree, forward, stream_size), np.mean(seen[depth], axis=0), strict=True
        ):
            place[way].append(float(value))

print("\ngradient at the bottom, in sizes of that at the top\n")
print("blocks        ", *(f"{depth:9}" for depth in DEPTHS))
for way in WAYS:
    print(f"{way:15}", *(f"{value:9.1e}" for value in reach[way]))
assert reach["neither"][-1] < 1e-6, "vanished: each block makes it smaller"
assert reach["residual alone"][-1] > 1e5, (
    "exploded: each block adds to a stream that is larger each time"
)
for way in ("norm alone", "post-norm", "pre-norm"):
    assert min(reach[way]) > 0.1, way
    assert max(reach[way]) < 10, way

# %% [markdown]
# So without the norm the gradient has the wrong size. But the right size is not enough: the
# gradient at the bottom should also have the direction of the gradient at the top. If the blocks
# have mixed it up, the cosine of the two is near 0.
#
# - pre-norm: dx = dy + (the gradient through the block). The sum holds dy itself.
# - post-norm: each norm divides by the size of x + f(x), which is larger than the size of x. So
#   with each block less of dy is left.

# %%
print("\ncosine of the gradients at the bottom and at the top\n")
print("blocks        ", *(f"{depth:9}" for depth in DEPTHS))
for way in WAYS:
    print(f"{way:15}", *(f"{value:9.3f}" for value in agree[way]))
print("\nForwards it is the same: cosine of what enters the first and leaves the last of 24 blocks")
print("    " + ", ".join(f"{way} {values[-1]:.3f}" for way, values in forward.items()))
assert (
    max(abs(forward[way][-1]) for way in WAYS if way != "pre-norm") < 0.1 < forward["pre-norm"][-1]
)
assert min(agree["pre-norm"]) > 0.05
assert max(abs(agree[way][-1]) for way in WAYS if way != "pre-norm") < 0.06

# %% [markdown]
# The cost of pre-norm: nothing makes the stream smaller, so it grows from block to block. The final
# norm corrects this once.

# %%
print()
for way in ("pre-norm", "post-norm"):
    print(
        f"{way:10} size of the stream after 2, ..., 24 blocks:",
        *(f"{size:5.2f}" for size in stream_size[way]),
    )
assert stream_size["pre-norm"][-1] > 3
assert np.allclose(stream_size["post-norm"], 1, atol=1e-3)

# %% [markdown]
# ## 4. Does it matter? Eight blocks learn the story in the five ways
#
# The runs differ only in `step`. In four of them nothing of the input is left at the end. They
# learn only how frequent each character is, which the last layer can do alone. A sixth run has
# post-norm with the weights of a new tinygpt.GPT, which are far smaller. Then every f(x) is at
# first small beside the stream, and eight blocks with post-norm learn too.

# %%
text = tinygpt.story()
tokenizer = tinygpt.CharacterTokenizer(text)
ids, targets = tinygpt.windows(tokenizer.encode(text), 16)
counts = np.bincount(tokenizer.encode(text))
frequencies = float(-(counts / counts.sum() * np.log(counts / counts.sum())).sum())
curves = {}
for way, step in {**WAYS, "post, small": WAYS["post-norm"]}.items():
    model = tinygpt.GPT(
        tinygpt.GPTConfig(tokenizer.size, context=16, width=32, heads=2, layers=8),
        generator=tensor.Generator(0),
    )
    rng, batches, optimizer = (
        np.random.default_rng(0),
        tensor.Generator(0),
        optim.AdamW(model, lr=3e-3),
    )
    with tensor.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith("blocks") and weight.ndim == 2 and way in WAYS:
                weight[...] = Tensor(
                    rng.standard_normal(weight.shape) / np.sqrt(weight.shape[0]), dtype="float32"
                )
    curves[way] = []
    for _ in range(40):
        rows = batches.integers(0, len(ids), (8,))
        x = model.embed(ids[rows])
        for block in model.blocks:
            for its_norm, f in (
                (block.attention_norm, block.attention),
                (block.feed_forward_norm, block.feed_forward),
            ):
                x = step(x, f, its_norm)
        logits = tensor.linear(model.final_norm(x), model.token_embedding.weight, transposed=True)
        optimizer.zero_grad()
        loss = tensor.cross_entropy(logits, targets[rows])
        loss.backward()
        optim.clip_gradients(model, 1.0)
        optimizer.step()
        curves[way].append(loss.item())
print(
    f"\nloss that knows nothing {np.log(tokenizer.size):.2f}, "
    f"that knows how frequent each character is {frequencies:.2f}\n"
)
for way, curve in curves.items():
    print(
        f"{way:15} loss after 1, 10, 20 and 40 steps: {curve[0]:.2f}  {curve[9]:.2f}  "
        f"{curve[19]:.2f}  {np.mean(curve[-5:]):.2f}"
    )
    assert (np.mean(curve[-5:]) < frequencies - 0.4) == (way in ("pre-norm", "post, small"))

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.5), layout="constrained")
for i, (way, mark) in enumerate(zip(curves, "osv^Dx", strict=True)):
    if way in WAYS:
        left.plot(DEPTHS, reach[way], marker=mark, label=way)
        middle.plot(DEPTHS, agree[way], marker=mark, label=way)
    # four of them lie on each other: their marks do not
    right.plot(curves[way], marker=mark, markevery=(2 * i, 10), label=way)
left.set(
    yscale="log",
    xlabel="blocks",
    ylabel="times that at the top",
    title="Size of the gradient at the bottom",
)
middle.set(xlabel="blocks", ylabel="cosine", title="Its direction: 1 is the message of the top")
right.axhline(frequencies, color="gray", linestyle="--", label="frequencies alone")
right.set(xlabel="step", ylabel="loss (nats a character)", title="Eight blocks learn the story")
for axes in (left, middle, right):
    axes.legend()
if plt.get_backend().lower() != "agg":  # agg: no screen, nothing to show
    plt.show()
