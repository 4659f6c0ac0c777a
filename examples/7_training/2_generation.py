# %% [markdown]
# # Generation: from a distribution to a text
#
#     temperature t   p = softmax(logits / t); 0 takes the likeliest, 1 is the model's own p
#     top-k           only the k likeliest tokens, the others get 0
#     top-p           only the fewest tokens with probability p together, the others get 0
#
# A model gives each token the probability that it comes next. One token is drawn and added to the
# text. Then the model gives the probabilities for the new text, and so on. This lesson shows ways
# to draw, and how not to do the same work twice. At the end there is a picture.

# %%
import textwrap

import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import optim
from tinygpt.config import SampleConfig
from tinygpt.generation.sampling import distribution

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads

# %% [markdown]
# ## 1. Five tokens, by hand
#
# The logits are ln 8, ln 4, ln 2, ln 1, ln 1. So softmax gives 8, 4, 2, 1, 1 sixteenths. Division
# by 1/2 doubles the logits, which squares the ratios: 64, 16, 4, 1, 1. Division by 2 takes the
# square roots of the ratios.

# %%
words = ("mat", "park", "dog", "cat", "sat")
logits = np.log([8.0, 4.0, 2.0, 1.0, 1.0])


def line(name, p):
    print(f"{name:34}", *(f"{word} {value:.4f}  " for word, value in zip(words, p, strict=True)))


def share(*parts):
    return np.array(parts) / sum(parts)


by_hand = {
    "temperature 1": (share(8, 4, 2, 1, 1), {}),
    "temperature 1/2: ratios squared": (share(64, 16, 4, 1, 1), {"temperature": 0.5}),
    "temperature 2: their square roots": (share(8**0.5, 2, 2**0.5, 1, 1), {"temperature": 2.0}),
    "temperature 0: the likeliest": (share(1, 0, 0, 0, 0), {"temperature": 0.0}),
    "top-k 2: 8 and 4 are left": (share(8, 4, 0, 0, 0), {"top_k": 2}),
    "top-p 0.8: 8/16 + 4/16 < 0.8": (share(8, 4, 2, 0, 0), {"top_p": 0.8}),
    "top-p 0.75: 12/16 is enough": (share(8, 4, 0, 0, 0), {"top_p": 0.75}),
    "temperature 1/2, then top-p 0.9": (share(64, 16, 0, 0, 0), {"temperature": 0.5, "top_p": 0.9}),
}
for name, (p, options) in by_hand.items():
    line(name, p)
    assert np.allclose(distribution(logits, SampleConfig(**options)), p)
assert 64 / 86 + 16 / 86 > 0.9, (
    "the last: temperature comes first, so two are enough where before 0.9 took four"
)

# %% [markdown]
# To draw a token, take a uniform u in [0, 1), and the first token at which the running sum of p
# exceeds u.

# %%
p, generator = by_hand["temperature 1"][0], tensor.Generator(0)
edges = p.cumsum()
print("\nrunning sums", edges)
print("drawn:", end=" ")
for _ in range(4):
    u = float(generator.uniform())
    print(f"u = {u:.3f} -> {words[int(np.searchsorted(edges, u, side='right'))]}", end="   ")
many = np.searchsorted(
    edges, np.array(tensor.rand(10_000, generator=tensor.Generator(1)).tolist()), side="right"
)
counts = np.bincount(many, minlength=5)
print(
    "\nof 10,000 draws ", *(f"{word} {count}  " for word, count in zip(words, counts, strict=True))
)
print(
    "expected        ",
    *(f"{word} {10_000 * share:.0f}  " for word, share in zip(words, p, strict=True)),
)
assert (((counts - 10_000 * p) ** 2) / (10_000 * p)).sum() < 18.5, (
    "chi squared, 4 degrees of freedom, one in a thousand"
)

# %% [markdown]
# ## 2. On a trained model: the likeliest token against a random one
#
# The model is trained for few steps. So it is sometimes unsure, and the two ways differ.

# %%
text = tinygpt.story()
tokenizer = tinygpt.CharacterTokenizer(text)
T = 32
ids, targets = tinygpt.windows(tokenizer.encode(text), T)
model = tinygpt.GPT(
    tinygpt.GPTConfig(tokenizer.size, context=T, width=32, heads=4, layers=2),
    generator=tensor.Generator(0),
)
optimizer, batches = optim.AdamW(model, lr=1e-2), tensor.Generator(0)
for step in range(200):
    rows = batches.integers(0, len(ids), (16,))
    optimizer.lr = optim.warmup_cosine(step, peak=1e-2, warmup=20, total=200)
    optimizer.zero_grad()
    model.loss(ids[rows], targets[rows]).backward()
    optimizer.step()
model.eval()


print("\n               of 8 texts   words that are")
print("temperature     different      the story's")


def known(written):
    """The share of its words that the story has."""
    found = written.replace(".", "").split()[1:-1]  # the last may be cut off
    return np.mean([word in text.replace(".", "").split() for word in found])


prompt = tokenizer.encode("The cat")
written = {}
for temperature in (0, 0.5, 1.0, 2.0):
    samples = [
        tokenizer.decode(
            model.generate(prompt, 60, temperature=temperature, generator=tensor.Generator(seed))
        )
        for seed in range(8)
    ]
    written[temperature] = samples
    share_known = np.mean([known(sample) for sample in samples])
    print(f"{temperature:11} {len(set(samples)):13} {share_known:16.0%}   {samples[0][:50]}")
assert len(set(written[0])) == 1, "greedy has no luck to follow: the same text each time"
assert len(set(written[1.0])) == 8
assert np.mean([known(s) for s in written[0.5]]) > np.mean([known(s) for s in written[2.0]]) + 0.3

# %% [markdown]
# Greedy, which is temperature 0, takes the likeliest token each time. The result is not always the
# likeliest text: after the likeliest token all continuations may be unlikely. And if a window comes
# a second time, the text repeats itself for ever.

# %%
long = model.generate(prompt, 700, temperature=0)
tail = tokenizer.decode(long)[400:]
period = next(n for n in range(1, len(tail) // 2) if tail[n:] == tail[:-n])
print(f"\ngreedy goes round and round, here every {period} characters:")
print(textwrap.fill(tail[:period], 94, initial_indent="    ", subsequent_indent="    "))

# %% [markdown]
# ## 3. Why a cache: the keys and values are the same each time
#
# Token t uses the keys and values of the tokens before it. These do not depend on later tokens, so
# they can be kept. Without a cache each new token sends the whole text through the layers again: 1
# + 2 + ... + T tokens of work. With a cache each new token sends only itself.

# %%
sequence = long[:T]
cache = model.new_cache()
sent = {"without": 0, "with": 0}  # tokens that went through the layers


def last_logits(way, tokens, *cache):
    """The model's logits after these tokens, which are counted."""
    sent[way] += len(tokens)
    with tensor.no_grad():
        return model(tokens, *cache).numpy()[0, -1]


print("\n         tokens sent through the layers     largest difference")
print("token   without a cache        with one           of the logits")
for t in range(1, T + 1):
    before = dict(sent)
    anew, kept = last_logits("without", sequence[:t]), last_logits("with", [sequence[t - 1]], cache)
    off = np.abs(anew - kept).max()
    if t in (1, 2, 3, 8, 16, 32):
        print(
            f"{t:5}{sent['without'] - before['without']:18}"
            f"{sent['with'] - before['with']:16}{off:24.0e}"
        )
    assert off < 1e-4
    assert anew.argmax() == kept.argmax()
print(f"all  {sent['without']:18}{sent['with']:16}        T (T + 1) / 2 = {T * (T + 1) // 2}")
assert sent == {"without": T * (T + 1) // 2, "with": T}

# %% [markdown]
# The keys in the cache equal those that the model computes without a cache, up to rounding:

# %%
with tensor.no_grad():
    block = model.blocks[0]
    # (T, C), the middle third
    k = block.attention.qkv(block.attention_norm(model.embed(sequence))).numpy()[0, :, 32:64]
held = cache.keys[0, 0].transpose(1, 0, 2).reshape(T, 32)  # (H, T, D) -> (T, C)
print(
    f"\nkeys of the first block: largest difference {np.abs(k - held).max():.0e}, "
    f"of numbers up to {np.abs(k).max():.1f}"
)
assert np.allclose(k, held, atol=1e-4)

# %% [markdown]
# ## 4. Past the context the window moves
#
# A model has T positions. For token T + 1 the oldest token is dropped, and all others move back by
# one position. But a key depends on a token and on its position. So all keys change, and the cache
# is of no more use. From here on each token costs a whole window.

# %%
with tensor.no_grad():
    moved = block.attention.qkv(block.attention_norm(model.embed(long[1 : T + 1]))).numpy()[
        0, :, 32:64
    ]
# token i + 1 of the text, at position i now and i + 1 before
same_tokens = np.abs(moved[:-1] - k[1:]).max(axis=1)
print(
    f"keys of the same tokens, one place further on: they differ by {same_tokens.min():.2f} "
    f"to {same_tokens.max():.2f}"
)
assert same_tokens.min() > 0.01

before = sent["without"]
for t in range(T, T + 10):  # greedy by hand: the last T tokens, all of them anew
    assert long[t] == last_logits("without", long[t - T : t]).argmax(), (
        "as the model goes on by itself"
    )
print(f"10 tokens past the context: {sent['without'] - before} tokens sent through the layers")
assert sent["without"] - before == 10 * T

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
temperatures = np.linspace(0.05, 3, 60)
configs = [SampleConfig(temperature=t) for t in temperatures]
ways = np.array([distribution(logits, config) for config in configs])  # (60, 5)
for word, curve in zip(words, ways.T, strict=True):
    # wide: sat, as likely, lies on it
    left.plot(temperatures, curve, label=word, linewidth=5 if word == "cat" else 1.5)
left.axvline(1, color="gray", linestyle="--")
left.set(xlabel="temperature", ylabel="probability", title="Five tokens")
left.legend()
shown = [
    "temperature 1",
    "temperature 1/2: ratios squared",
    "top-k 2: 8 and 4 are left",
    "top-p 0.8: 8/16 + 4/16 < 0.8",
]
for i, name in enumerate(shown):
    middle.bar(
        np.arange(5) + 0.2 * (i - 1.5), by_hand[name][0], width=0.2, label=name.partition(":")[0]
    )
middle.set_xticks(range(5), words)
middle.set(ylabel="probability", title="Cut off, or sharpened")
middle.legend()
places = np.arange(1, 3 * T)
right.plot(places, np.minimum(places, T), label="without a cache")
right.plot(places, np.where(places <= T, 1, T), label="with a cache")
right.axvline(T, color="gray", linestyle="--", label="the context is full")
right.set(
    xlabel="token of the text",
    ylabel="tokens sent through the layers",
    title="The work of one more token",
)
right.legend()
if plt.get_backend().lower() != "agg":  # agg: no screen, nothing to show
    plt.show()
