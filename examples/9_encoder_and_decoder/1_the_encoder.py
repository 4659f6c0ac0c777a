# %% [markdown]
# # The encoder: every token sees all tokens
#
#     x = norm(x + attention(x))        each token takes a mixture of all tokens: no mask
#     x = norm(x + feed_forward(x))     each token alone
#
# A GPT writes, so a token must not see the tokens after it. An encoder reads. The whole text is
# there from the start, and each token may look at all others. So an encoder block is the block of a
# GPT without the mask. The result is a vector for each token, which depends on the whole text. This
# lesson writes out an encoder, changes its input in four ways, and trains an encoder and a GPT on a
# task that needs the tokens to the right.
#
#     B batch   T time   C width   H heads   D head width, C / H   V vocabulary

# %%
import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import Tensor, optim
from tinygpt.model.block import through_blocks

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads
T, C, H, V = 6, 32, 4, 12
D = C // H


def encoder_decoder(norm="post", layers=2):
    """A model with random weights. A product with them keeps the size of its numbers."""
    config = tinygpt.EncoderDecoderConfig(V, context=T, width=C, heads=H, layers=layers, norm=norm)
    model = tinygpt.EncoderDecoder(config, dtype="float64")
    generator = tensor.Generator(0)
    with tensor.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight[...] = generator.normal(weight.shape) / np.sqrt(weight.shape[0])
    return model


def size(x):
    """How large its numbers are: the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(x))))


# %% [markdown]
# ## 1. The encoder by hand, equal to the model's own
#
# The model is the encoder-decoder of `tinygpt`. Here only its encoder runs: two blocks, each with
# the norm after each sum (post-norm), ReLU, and sinusoids for the positions. This is the form of
# Vaswani et al. 2017.

# %%
model = encoder_decoder()
ids = np.array([3, 7, 4, 7, 9, 5])


def linear(x, layer):
    return x @ layer.weight.numpy() + layer.bias.numpy()


def norm(x, layer):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.eps)
    return layer.gain.numpy() * x + layer.bias.numpy()


def attention(x, layer):
    q, k, v = linear(x, layer.qkv).reshape(T, 3, H, D).transpose(1, 2, 0, 3)  # (H, T, D) each
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(D)  # (H, T, T), and no mask
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    return linear((weights @ v).transpose(1, 0, 2).reshape(T, C), layer.projection)


def feed_forward(x, layer):
    return linear(np.maximum(linear(x, layer.expand), 0), layer.projection)


x = np.sqrt(C) * model.token_embedding.weight.numpy()[ids] + model.position_embedding.numpy()[:T]
for block in model.encoder:
    x = norm(x + attention(x, block.attention), block.attention_norm)
    x = norm(x + feed_forward(x, block.feed_forward), block.feed_forward_norm)
x = norm(x, model.encoder_norm)
off = np.abs(model.encode(ids).numpy()[0] - x).max()
print(f"by hand and model.encode: {x.shape}, largest difference {off:.0e}")
assert off < 1e-12

# %% [markdown]
# ## 2. Who sees whom: change the last token
#
# One switch turns the same weights into the blocks of a GPT: `causal`. In the encoder all positions
# move if the last token changes. With the mask only the last position moves, and all others move by
# exactly 0.


# %%
def causal(on):
    for block in model.encoder:
        block.attention.causal = on


other = ids.copy()
other[-1] = 8
print("\nThe last token changes. How far does the vector of each position move?")
moved = {}
for name, on in (("encoder", False), ("with the mask", True)):
    causal(on)
    difference = (model.encode(other) - model.encode(ids)).numpy()[0]
    moved[name] = np.array([size(row) for row in difference])
    print(f"    {name:14}", *(f"{value:7.3f}" for value in moved[name]))
assert (moved["encoder"] > 0.01).all()
assert (moved["with the mask"][:-1] == 0).all()
assert moved["with the mask"][-1] > 0.01

# %% [markdown]
# The gradient says the same for all pairs of positions. A random gradient enters at y[t]. Row t,
# column s of the table is the size of the gradient that arrives at the input x[s].

# %%
reach = {}
for name, on in (("encoder", False), ("with the mask", True)):
    causal(on)
    x = Tensor(model.embed(ids).numpy(), requires_grad=True)
    y = through_blocks(model.encoder, model.encoder_norm, x)
    dy = tensor.Generator(1).normal((C,))
    table = np.zeros((T, T))
    for t in range(T):
        (dx,) = tensor.grad(y[0, t], x, dy, retain_graph=True)
        table[t] = np.sqrt(np.mean(np.square(dx.numpy()[0]), axis=1))
    reach[name] = table
    print(f"\nfrom y[t] (row) to x[s] (column), {name}")
    for row in table:
        print("   ", *(f"{value:6.3f}" for value in row))
assert (reach["encoder"] > 0).all()
assert (reach["with the mask"][np.triu_indices(T, 1)] == 0).all()
causal(False)

# %% [markdown]
# ## 3. The order: only the positions hold it
#
# Attention without a mask is a sum over all tokens, and a sum has no order. Exchange the rows of
# the input, and the rows of the output are exchanged in the same way. So a token must be moved
# together with its position: then nothing else changes. If the tokens move and the positions stay,
# the text is another text.

# %%
order = np.array([4, 2, 0, 5, 1, 3])
tokens = np.sqrt(C) * model.token_embedding.weight.numpy()[ids]  # (T, C)
places = model.position_embedding.numpy()[:T]


def encoded(x):
    return through_blocks(model.encoder, model.encoder_norm, Tensor(x[None])).numpy()[0]


print("\nThe rows of the input in another order. Largest difference to the output in that order:")
reordered = {}
for name, x, changed in (
    ("no positions", tokens, tokens[order]),
    ("tokens and positions moved", tokens + places, (tokens + places)[order]),
    ("tokens moved, positions not", tokens + places, tokens[order] + places),
):
    reordered[name] = np.abs(encoded(changed) - encoded(x)[order]).max()
    print(f"    {name:28} {reordered[name]:.0e}")
causal(True)
x = tokens + places
reordered["with the mask"] = np.abs(encoded(x[order]) - encoded(x)[order]).max()
print(f"    {'both moved, with the mask':28} {reordered['with the mask']:.0e}")
causal(False)
assert reordered["no positions"] < 1e-12
assert reordered["tokens and positions moved"] < 1e-12
assert reordered["tokens moved, positions not"] > 0.1
assert reordered["with the mask"] > 0.1, "the mask knows the order too"

# %% [markdown]
# Without positions an encoder is given a bag of words: the two tokens 7 of the text, at positions 1
# and 3, get the same vector.

# %%
same = np.abs(encoded(tokens)[1] - encoded(tokens)[3]).max()
apart = np.abs(encoded(tokens + places)[1] - encoded(tokens + places)[3]).max()
print(f"\nthe two tokens 7: difference without positions {same:.0e}, with positions {apart:.2f}")
assert same < 1e-12
assert apart > 0.1

# %% [markdown]
# ## 4. Padding needs a mask
#
# The texts of a batch have different lengths. The shorter text is filled up with the token <pad>,
# which has the id 0. In a GPT padding at the end does no harm: no token sees what comes after it.
# In an encoder each token would take a part of the padding. So the model makes a mask from the ids:
# True means look.

# %%
batch = np.array([[3, 7, 4, 7, 9, 5], [6, 3, 8, 4, 0, 0]])
mask = model.mask(batch)
print("\nmask of the second text:", mask.numpy()[1, 0, 0].astype(int))
alone = model.encode(batch[1:, :4]).numpy()[0]  # the second text without padding
masked = model.encode(batch).numpy()[1, :4]
unmasked = through_blocks(model.encoder, model.encoder_norm, model.embed(batch)).numpy()[1, :4]
print(f"alone and in the batch: largest difference {np.abs(masked - alone).max():.0e}")
print(f"without the mask:       largest difference {np.abs(unmasked - alone).max():.2f}")
assert mask.shape == (2, 1, 1, T)
assert np.abs(masked - alone).max() < 1e-12
assert np.abs(unmasked - alone).max() > 0.1

# %% [markdown]
# ## 5. Post-norm and pre-norm
#
#     post-norm   x = norm(x + f(x))    2017: each norm sets the size of the stream back to 1
#     pre-norm    x = x + f(norm(x))    GPT-2: the stream grows, and one norm at the end corrects it
#
# Both are one option of the same block. 6_the_transformer/2_a_block.py shows what happens to the
# gradient in each.

# %%
print("\nsize of the stream after each of six blocks")
for form in ("post", "pre"):
    deep = encoder_decoder(form, layers=6)
    x, sizes = deep.embed(ids), []
    for block in deep.encoder:
        x = block(x)
        sizes.append(size(x.numpy()))
    end = size(deep.encoder_norm(x).numpy())
    print(f"    {form + '-norm':10}", *(f"{value:5.2f}" for value in sizes), f"   memory {end:.2f}")
    assert np.isclose(end, 1, atol=1e-3)
    assert np.allclose(sizes, 1, atol=1e-3) if form == "post" else sizes[-1] > sizes[0] > 1.2

# %% [markdown]
# ## 6. What it is good for: an answer that lies to the right
#
# The task: at each position, name the token of the mirrored position, y[t] = x[T - 1 - t]. In the
# second half of the text the answer lies to the left. In the first half the answer lies to the
# right, and a GPT can only guess: 1 of 12 is right. The two models differ in the mask alone.

# %%
config = tinygpt.GPTConfig(V, T, C, H, layers=1, norm="post", positions="sinusoidal")
print("\nright answers at each position, of 1,000 new texts")
right = {}
for name, on in (("encoder", False), ("GPT", True)):
    reader = tinygpt.GPT(config, generator=tensor.Generator(0))
    for block in reader.blocks:
        block.attention.causal = on
    optimizer, batches = optim.AdamW(reader, lr=1e-2, weight_decay=0.0), tensor.Generator(0)
    for step in range(300):
        optimizer.lr = optim.warmup_cosine(step, peak=1e-2, warmup=20, total=300)
        texts = batches.integers(0, V, (64, T))
        optimizer.zero_grad()
        reader.loss(texts, texts[:, ::-1]).backward()
        optimizer.step()
    texts = tensor.Generator(7).integers(0, V, (1000, T))
    with tensor.no_grad():
        answers = reader(texts).numpy().argmax(-1)
    right[name] = (answers == texts[:, ::-1]).sum(axis=0)
    print(f"    {name:8}", *(f"{count:5}" for count in right[name]))
assert (right["encoder"] > 990).all()
assert (right["GPT"][: T // 2] < 150).all(), "guesses"
assert (right["GPT"][T // 2 :] > 990).all()
