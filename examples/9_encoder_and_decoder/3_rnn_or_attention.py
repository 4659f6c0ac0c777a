# %% [markdown]
# # An RNN against attention: why the transformer replaced it
#
#     RNN         h[t] = f(h[t - 1], x[t])      one token after the other, one state of C numbers
#     attention   y[t] = sum of w[t, s] v[s]    all tokens at once, each from each
#
# Before 2017 an encoder and a decoder were recurrent neural networks (RNNs). The encoder reads one
# token after the other, and updates its state h. The last state is all that the decoder gets. Three
# things are said against this. This lesson measures all three, on a task that needs no
# understanding: read a string, and write the same string.
#
# - One state must hold the whole text, however long the text is.
# - The gradient from the last token to the first goes through every step, and vanishes on the way.
# - The steps wait for each other, so they cannot run in parallel.
#
#     B batch   T tokens of the source   C width   V vocabulary

# %%
import time

import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import Tensor, nn, optim
from tensor.graph import reachable
from tinygpt.data.pairs import SourceTarget
from tinygpt.ids import EOS, SOS
from tinygpt.model.block import through_blocks

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads
V, C, longest = 11, 64, 8  # <pad>, <sos>, <eos> and 8 letters

# %% [markdown]
# ## 1. Two recurrent cells
#
# The plain cell is one layer with tanh. The GRU (gated recurrent unit) has gates: numbers between 0
# and 1, which the cell computes itself. Where the gate z is near 0, the state stays as it is. So a
# GRU can keep a number over many steps.


# %%
class TanhCell(nn.Module):
    """h' = tanh(x W + b + h U)   x, h: (B, C)"""

    def __init__(self, width):
        self.x = nn.Linear(width, width)
        self.h = nn.Linear(width, width, bias=False)

    def __call__(self, x, h):
        return (self.x(x) + self.h(h)).tanh()


class GRUCell(nn.Module):
    """h' = h + z (n - h), with the new content n = tanh(x W + b + (r h) U)   x, h: (B, C)
    Cho et al. 2014
    """

    def __init__(self, width):
        self.x = nn.Linear(width, 3 * width)  # for z, r and n
        self.gates = nn.Linear(width, 2 * width, bias=False)
        self.h = nn.Linear(width, width, bias=False)

    def __call__(self, x, h):
        z, r, n = self.x(x).split(C, axis=-1)
        z_h, r_h = self.gates(h).split(C, axis=-1)
        z, r = (z + z_h).sigmoid(), (r + r_h).sigmoid()
        return h + z * ((n + self.h(r * h)).tanh() - h)


class RNN(nn.Module):
    """model(source, target) -> logits, as an EncoderDecoder: (B, S), (B, T) -> (B, T, V)"""

    def __init__(self, cell):
        self.embedding, self.head = nn.Embedding(V, C), nn.Linear(C, V)
        self.reads, self.writes = cell(C), cell(C)

    def states(self, cell, x, h):
        """The state after each token.   x: (B, T, C)"""
        states = []
        for t in range(x.shape[1]):
            h = cell(x[:, t], h)
            states.append(h)
        return states

    def encode(self, x):
        """The state after the last token of the source.   x: (B, T, C) -> (B, C)"""
        return self.states(self.reads, x, tensor.zeros(len(x), C))[-1]

    def __call__(self, source, target):
        memory = self.encode(self.embedding(source))  # the only bridge to the decoder
        states = self.states(self.writes, self.embedding(target), memory)
        return self.head(tensor.stack(states, axis=1))

    def loss(self, x, y):
        return tensor.cross_entropy(self(x.source, x.target), y)


# %% [markdown]
# ## 2. Exact copies, by length
#
# Each batch has strings of one random length from 1 to 8. Both models have about as many weights,
# and see the same batches.


# %%
def batch(count, length, generator):
    source = generator.integers(3, V, (count, length))
    sos, eos = np.full((count, 1), SOS), np.full((count, 1), EOS)
    x = SourceTarget(source, np.concatenate([sos, source], axis=1))
    return x, np.concatenate([source, eos], axis=1)


def train(model, steps=400):
    optimizer = optim.AdamW(model, lr=5e-3, weight_decay=0.0, betas=(0.9, 0.95))
    generator = tensor.Generator(0)
    for step in range(steps):
        optimizer.lr = optim.warmup_cosine(step, peak=5e-3, warmup=1, total=steps)
        x, y = batch(32, int(generator.integers(1, longest + 1, ())), generator)
        optimizer.zero_grad()
        model.loss(x, y).backward()
        optim.clip_gradients(model, 1.0)
        optimizer.step()


def exact(model, length):
    """How many of 200 new strings are copied without a mistake.

    Greedy decoding writes the whole answer if and only if each token of the right answer is the
    likeliest after the right tokens before it.
    """
    x, y = batch(200, length, tensor.Generator(7))
    with tensor.no_grad():
        likeliest = model(x.source, x.target).numpy().argmax(axis=-1)
    return int((likeliest == y).all(axis=1).sum())


tensor.manual_seed(0)
rnn = RNN(GRUCell)
config = tinygpt.EncoderDecoderConfig(
    V, context=longest + 1, width=32, heads=4, layers=2, positions="learned"
)
transformer = tinygpt.EncoderDecoder(config, generator=tensor.Generator(0))
lengths = range(1, longest + 1)
copies = {}
print("exact copies of 200 new strings, by length\n")
print("                            ", *(f"{length:4}" for length in lengths))
for name, model in (("GRU", rnn), ("encoder-decoder", transformer)):
    train(model)
    copies[name] = [exact(model, length) for length in lengths]
    weights = sum(p.size for p in model.parameters())
    print(f"{name:16}{weights:,} weights", *(f"{count:4}" for count in copies[name]))
assert min(copies["encoder-decoder"]) > 190
assert min(copies["GRU"][:2]) > 190
assert copies["GRU"][-1] < 50
assert np.corrcoef(lengths, copies["GRU"])[0, 1] < -0.9

# %% [markdown]
# The GRU learns the short strings. The longer a string, the fewer copies are exact. (After five
# times as many steps 126 of 200 are exact at length 8.) The state has the same size for each
# length. The memory of the encoder-decoder grows with the text:

# %%
print("\nnumbers that the decoder gets from the encoder")
for length in (1, 4, 8):
    x, _ = batch(1, length, tensor.Generator(7))
    state = rnn.encode(rnn.embedding(x.source)).size
    memory = transformer.encode(x.source).size
    print(f"    length {length}: state {state}, memory {memory}")
    assert (state, memory) == (C, 32 * length)

# %% [markdown]
# ## 3. The gradient from the last token to the first
#
# A random gradient enters at the last result of the encoder. How large is the gradient at the first
# token, in sizes of the gradient at the last token? In an RNN the gradient goes through T - 1
# steps. Each step multiplies the gradient by the slopes of the cell, so the size falls like a
# power, r^(T - 1). In attention the way from any token to any other is one step.


# %%
def ratio(encode, x):
    """Size of the gradient at the first of the T tokens x, in sizes of that at the last."""
    x = Tensor(x, requires_grad=True)
    y = encode(x)
    (dx,) = tensor.grad(y, x, tensor.Generator(1).normal(y.shape).astype("float32"))
    sizes = np.sqrt(np.square(dx.numpy()).mean(axis=(0, 2)))  # (T,)
    return float(sizes[0] / sizes[-1])


config = tinygpt.EncoderDecoderConfig(V, context=64, width=C, heads=4, layers=1)
encoder = tinygpt.EncoderDecoder(config)
with tensor.no_grad():
    for weight in encoder.parameters():
        if weight.ndim == 2:  # not the small weights of a new model: as large as those of the cells
            weight *= 1 / np.sqrt(weight.shape[0]) / weight.numpy().std()


def last_of_encoder(x):
    places = encoder.position_embedding[: x.shape[1]]
    return through_blocks(encoder.encoder, encoder.encoder_norm, x + places)[:, -1]


T = np.array([2, 4, 8, 16, 32, 64])
ways = {
    "tanh, new": RNN(TanhCell).encode,
    "GRU, new": RNN(GRUCell).encode,
    "GRU, trained": rnn.encode,
    "attention, new": last_of_encoder,
}
ratios = {}
print("\ngradient at the first token, in sizes of that at the last\n")
print("T                ", *(f"{t:8}" for t in T))
for name, encode in ways.items():
    table = rnn.embedding.weight.numpy()
    ids = tensor.Generator(3).integers(3, V, (16, 64))
    ratios[name] = np.array([ratio(encode, table[ids[:, :t]]) for t in T])
    print(f"{name:17}", *(f"{value:8.0e}" for value in ratios[name]))
print("\nr in r^(T - 1), from T = 8 to 16, 16 to 32, 32 to 64")
for name, values in ratios.items():
    r = np.exp(np.diff(np.log(values[2:])) / np.diff(T[2:]))
    print(f"    {name:17}", *(f"{value:6.2f}" for value in r))
    if name.endswith("new") and name != "attention, new":
        assert r.max() - r.min() < 0.1, "a power: the same factor for each step"
        assert r.max() < 0.8
assert ratios["tanh, new"][-1] < 1e-8, "vanished"
assert ratios["attention, new"][-1] > 0.01
assert ratios["GRU, trained"][-1] > 0.1

# %% [markdown]
# The gradient of the plain cell vanishes, and so does the gradient of a new GRU. But training sets
# the gates so that the state is kept, and then the gradient arrives. Gates were invented for this.
# But gates cannot change the size of the state. In attention the gradient falls too, but slowly:
# each token is one of T.
#
# ## 4. Steps that wait for each other
#
# The graph shows how many ops must run one after the other: it is the longest chain from the inputs
# to the loss (3_gradients/2_the_graph.py). More processors do not make this chain shorter.


# %%
def longest_chain(y):
    """Ops in a row, from a leaf to y."""
    length = {}
    for node in reachable([y.node]):  # oldest first
        length[node] = 1 + max((length[p] for p in node.parents if p is not None), default=0)
    return length[y.node]


def fastest(model, batches, repeats=8):
    """Seconds of a forward and a backward pass, for each batch: the shortest of several."""
    seconds = np.full((repeats, len(batches)), np.inf)
    for repeat in range(repeats):
        for i, (x, y) in enumerate(batches):
            start = time.perf_counter()
            model.loss(x, y).backward()
            seconds[repeat, i] = time.perf_counter() - start
    return seconds.min(axis=0)


config = tinygpt.EncoderDecoderConfig(V, context=65, width=32, heads=4, layers=2)
wide = tinygpt.EncoderDecoder(config, generator=tensor.Generator(0))
batches = [batch(4, int(t), tensor.Generator(0)) for t in T[2:]]
chains, seconds = {}, {}
print("\n                          ops in a row                   ms, forward and backward")
print("T               ", *(f"{t:6}" for t in T[2:]), "     ", *(f"{t:6}" for t in T[2:]))
for name, model in (("GRU", rnn), ("encoder-decoder", wide)):
    chains[name] = [longest_chain(model.loss(x, y)) for x, y in batches]
    seconds[name] = fastest(model, batches)
    left = " ".join(f"{count:6}" for count in chains[name])
    print(f"{name:16}", left, "     ", *(f"{1000 * s:6.1f}" for s in seconds[name]))
assert chains["GRU"][-1] > 7 * chains["GRU"][0]
assert len(set(chains["encoder-decoder"])) == 1
assert seconds["GRU"][-1] > 2 * seconds["GRU"][0]
assert seconds["GRU"][-1] > 2 * seconds["encoder-decoder"][-1]

# %% [markdown]
# So eight times as many tokens take the RNN about eight times as long. The encoder-decoder has more
# to compute too, but in the same number of steps, and each step is a large product. A GPU computes
# thousands of numbers at once. So transformers can be trained on far more text.
