# %% [markdown]
# # An encoder-decoder: it reads one text, and writes another
#
#     memory = encoder(source)                          once, (B, S, C)
#     logits = decoder(<sos> and the target so far, memory)
#     loss   = mean of -ln p(next token of the target | source, target so far)
#
# The encoder (9_encoder_and_decoder/1_the_encoder.py) reads the source. The decoder is a GPT with
# one more part in each block: cross-attention (5_attention/5_cross_attention.py), which looks at
# the memory. This is the transformer of 2017, made for translation. Here it learns to write a
# string backwards. The task has a right answer, so you can count the mistakes, and you know where
# the decoder should look.
#
#     B batch   S tokens of the source   T tokens of the target   C width   H heads   V vocabulary

# %%
import time

import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import Tensor, optim
from tinygpt.data.pairs import Pair, Pairs
from tinygpt.ids import EOS, IGNORED, PAIR_TOKENS, SOS
from tinygpt.tokenizers import SpecialTokenizer

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads

# %% [markdown]
# ## 1. Pairs, and three special tokens
#
# A source has 1 to 5 letters of 8. The model learns from 4,000 pairs. 200 longer sources are kept
# back, to measure on: the model never sees them in training.
#
# No text holds the special tokens. <pad> fills up the shorter texts of a batch. <sos> (start of
# sequence) is what the decoder reads before the first letter. <eos> (end of sequence) is what it
# writes after the last letter.

# %%
letters, longest = "abcdefgh", 5
tokenizer = SpecialTokenizer(tinygpt.CharacterTokenizer(letters), PAIR_TOKENS)
generator = np.random.default_rng(0)


def random_source(shortest):
    return "".join(generator.choice(list(letters), generator.integers(shortest, longest + 1)))


held_out = {}
while len(held_out) < 200:
    source = random_source(3)
    held_out[source] = Pair(source, source[::-1])
learned = []
while len(learned) < 4000:
    source = random_source(1)
    if source not in held_out:
        learned.append(Pair(source, source[::-1]))
pairs = Pairs(learned, tokenizer, context=longest + 1)
x, y = pairs[np.array([0, 1])]
names = [*PAIR_TOKENS, *letters]
for row in range(2):
    print(f"{learned[row].source} -> {learned[row].target}")
    for name, ids in (
        ("source", x.source[row]),
        ("the decoder reads", x.target[row]),
        ("and is to answer", y[row]),
    ):
        shown = [f"{'-' if i == IGNORED else names[i]:6}" for i in ids]
        print(f"    {name:18}", *shown)
right = tokenizer.encode(learned[0].target)
assert x.target[0].tolist() == [SOS, *right]
assert y[0].tolist() == [*right, EOS]

# %% [markdown]
# ## 2. The model
#
# A block of the decoder has three parts, and each adds to the stream: causal attention over the
# target, cross-attention over the memory, and the feed-forward. Each has a norm of its own. One
# table holds the embeddings of source and target, and is the head too. (The positions are learned.
# With the sinusoids of 2017 this task takes about twice as many steps.)

# %%
config = tinygpt.EncoderDecoderConfig(
    vocabulary=tokenizer.size, context=longest + 1, width=32, heads=4, layers=2, positions="learned"
)
model = tinygpt.EncoderDecoder(config, generator=tensor.Generator(0))
print(f"\n{sum(p.size for p in model.parameters()):,} parameters")
for name, module in (("encoder.0", model.encoder[0]), ("decoder.0", model.decoder[0])):
    counts = {}
    for path, parameter in module.named_parameters():
        counts[path.split(".")[0]] = counts.get(path.split(".")[0], 0) + parameter.size
    print(f"    {name}: " + ", ".join(f"{part} {count:,}" for part, count in counts.items()))
memory, logits = model.encode(x.source), model(x.source, x.target)
print(f"memory {memory.shape}, logits {logits.shape}")
(B, S), (_, T) = x.source.shape, x.target.shape
assert memory.shape == (B, S, 32)
assert logits.shape == (B, T, tokenizer.size)

# %% [markdown]
# ## 3. Teacher forcing: all positions at once
#
# In training the decoder does not read its own answers. It reads the right target, shifted by one:
# position t reads the token before the one that it is to write. The mask hides the rest. So one
# pass gives T predictions, the same as T passes over the beginnings of the target. And every
# position sees the whole source, up to its last token.

# %%
source, target = x.source[:1], x.target[:1]
at_once = model(source, target).numpy()[0]
one_by_one = np.array([model(source, target[:, : t + 1]).numpy()[0, -1] for t in range(T)])
print(f"\none pass and {T} passes: largest difference {np.abs(at_once - one_by_one).max():.0e}")
assert np.allclose(at_once, one_by_one, atol=1e-5)


def moved(source, target):
    """How far the logits of each position move from those of the first pair."""
    return np.abs(model(source, target).numpy()[0] - at_once).max(axis=-1)


other_target, other_source = target.copy(), source.copy()
other_target[0, 2] = 3 + (other_target[0, 2] - 2) % len(letters)  # another letter
other_source[0, -1] = 3 + (other_source[0, -1] - 2) % len(letters)
by_target, by_source = moved(source, other_target), moved(other_source, target)
print("logits move at each position, if")
print("    token 2 of the target changes     ", *(f"{value:8.1e}" for value in by_target))
print("    the last token of source changes  ", *(f"{value:8.1e}" for value in by_source))
assert (by_target[:2] == 0).all()
assert (by_target[2:] > 0).all()
assert (by_source > 0).all()

# %% [markdown]
# ## 4. Greedy decoding
#
# To write, the model has only <sos> and what it wrote itself. The likeliest token joins the target,
# and the decoder runs again, until <eos>.


# %%
def write(model, source):
    """The tokens that the model writes for one source, at most as many as fit."""
    ids, written = np.array([tokenizer.encode(source)]), [SOS]
    while written[-1] != EOS and len(written) <= longest + 1:
        logits = model(ids, np.array([written])).numpy()[0, -1]
        written.append(int(logits.argmax()))
    return written[1:]


def write_all(model, sources):
    """The same for many sources together. Memory, and keys and values so far, are kept."""
    given = model.given([tokenizer.encode(source) for source in sources])
    cache, columns = given.new_cache(len(sources)), [np.full(len(sources), SOS)]
    for _ in range(longest + 1):
        logits = given.decode(Tensor(columns[-1][:, None]), cache)  # (B, 1, V)
        columns.append(logits.numpy()[:, -1].argmax(axis=-1))
    rows = np.stack(columns[1:], axis=1).tolist()
    return [row[: row.index(EOS) + 1] if EOS in row else row for row in rows]


def exact(model):
    """How many of the held-out sources get exactly the right target."""
    found = write_all(model, list(held_out))
    right = [[*tokenizer.encode(pair.target), EOS] for pair in held_out.values()]
    return sum(a == b for a, b in zip(found, right, strict=True))


# %% [markdown]
# ## 5. Training
#
# For a while the loss stays near 1.5 nats: the model knows when the target ends, and guesses the
# letters. Then the cross-attention finds the right letter, and the loss falls. (Deep models with
# post-norm need a warm-up, see Xiong et al. 2020. Two blocks learn faster without it.)


# %%
def train(model, steps, shifted=True):
    """Train, print, and return the loss at the end."""
    optimizer = optim.AdamW(model, lr=5e-3, weight_decay=0.0, betas=(0.9, 0.95))
    batches = tensor.Generator(0)
    for step in range(steps + 1):
        optimizer.lr = optim.warmup_cosine(step, peak=5e-3, warmup=0, total=steps)
        x, y = pairs[batches.integers(0, len(pairs), (32,))]
        if not shifted:
            x.target[:] = np.maximum(y, 0)  # -1 becomes <pad>
        optimizer.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        optim.clip_gradients(model, 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step:3}   loss {loss.item():5.3f}   {'#' * round(20 * loss.item())}")
    return loss.item()


print()
start, before = time.perf_counter(), exact(model)
train(model, 400)
print(f"after {time.perf_counter() - start:.1f} s, exact of 200 unseen: {before} -> {exact(model)}")
assert before == 0
assert exact(model) >= 195
for source in list(held_out)[:4]:
    written = write(model, source)
    print(f"    {source:5} -> {' '.join(names[i] for i in written)}")
    assert written == write_all(model, [source])[0]

# %% [markdown]
# ## 6. A trap: without the shift
#
# Suppose that position t reads the token that it is to write. The loss is very low, and the model
# has learned nothing: it copies its input. When it writes, the answer is not there to be copied.

# %%
print("\nwithout the shift:")
cheat = tinygpt.EncoderDecoder(config, generator=tensor.Generator(0))
low = train(cheat, 100, shifted=False)
print(f"exact of 200 unseen: {exact(cheat)}")
assert low < 0.05
assert exact(cheat) == 0

# %% [markdown]
# ## 7. Where the decoder looks
#
# To write letter t of the target, the decoder needs letter S - 1 - t of the source. So the weights
# of the cross-attention should lie on the anti-diagonal. The code goes through the decoder by hand,
# with all three parts, and keeps the weights of each head. In the first block the heads share
# evenly. In the second block they have found the place.

# %%
five = [pair for pair in held_out.values() if len(pair.source) == longest]
S = longest
sources = np.array([tokenizer.encode(pair.source) for pair in five])  # (B, S)
targets = np.array([[SOS, *tokenizer.encode(pair.target)][:S] for pair in five])  # (B, T), T = S
memory, x = model.encode(sources), model.embed(targets)
weights = []  # of each block, (B, H, T, S)
for block in model.decoder:
    x = block.attention_norm(x + block.attention(x))
    cross = block.cross_attention
    q, k = cross.q(x).numpy(), cross.kv(memory).numpy()[..., : config.width]
    q, k = (a.reshape(len(five), S, config.heads, -1).swapaxes(1, 2) for a in (q, k))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(k.shape[-1])
    weights.append(np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True))
    x = block.cross_norm(x + cross(x, memory))
    x = block.feed_forward_norm(x + block.feed_forward(x))
logits = model.logits(model.decoder_norm(x))
assert np.allclose(logits.numpy(), model(sources, targets).numpy(), atol=1e-4)

print(f"\nshare of the weights on the anti-diagonal ({1 / S:.2f}: by chance), {len(five)} sources")
mirrored = np.arange(S)[::-1]
shares = np.array([w[:, :, np.arange(S), mirrored].mean(axis=(0, 2)) for w in weights])
for number, row in enumerate(shares):
    print(f"    block {number}:", *(f"head {head} {share:.2f}  " for head, share in enumerate(row)))
best = int(shares[-1].argmax())
pair, looks = five[0], weights[-1][0, best]
print(f"\nthe last block, head {best}: {pair.source} -> {pair.target}")
print("    looks at    ", *(f"{letter:5}" for letter in pair.source))
for t, letter in enumerate(pair.target):
    print(f"    writes {letter}    ", *(f"{weight:.2f} " for weight in looks[t]))
assert shares[-1, best] > 0.8, "the anti-diagonal"
assert shares[0].max() < 0.5, "only the second block finds the place"
assert (looks.argmax(axis=1) == mirrored).all()
