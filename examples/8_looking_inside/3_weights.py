# %% [markdown]
# # Weights: what a model is, once its text is gone
#
#     graph view       a tree of modules: what is computed, in which order
#     matrix view      a list of arrays: names, shapes, numbers
#     a checkpoint     the matrix view, written into a file
#
# The graph view is in the code, which is the same for every model of this kind. All that a model
# has learned is in the matrices. If you load them into the same code, it writes the same text.
# (Here "graph" means the tree of modules. The graph of 3_gradients/2_the_graph.py is made in each
# forward pass, and is in no file.) At the end there is a picture.

# %%
import json
import struct
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import optim
from tinygpt.inside import weights as inspection
from tinygpt.runs import checkpoint

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads
text = tinygpt.story()
tokenizer = tinygpt.CharacterTokenizer(text)
ids, targets = tinygpt.windows(tokenizer.encode(text), 32)
config = tinygpt.GPTConfig(vocabulary=tokenizer.size, context=32, width=32, heads=4, layers=2)
model = tinygpt.GPT(config, generator=tensor.Generator(0))
before = {name: weights.numpy().copy() for name, weights in model.state_dict().items()}
optimizer, batches = optim.AdamW(model, lr=1e-2), tensor.Generator(0)
for step in range(200):
    rows = batches.integers(0, len(ids), (16,))
    optimizer.lr = optim.warmup_cosine(step, peak=1e-2, warmup=20, total=200)
    optimizer.zero_grad()
    loss = model.loss(ids[rows], targets[rows])
    loss.backward()
    optimizer.step()
print(f"a GPT that has learned the story: loss {loss.item():.3f}")
assert loss.item() < 0.3

# %% [markdown]
# ## 1. The graph view: which module contains which, in the order of computation


# %%
def show(branch, depth=0):
    """A line for the branch, and lines for what is in it, further in."""
    shape = branch.matrix.shape if branch.matrix else ""
    numbers = f"{branch.numbers:,}" if branch.numbers else ""
    print(f"{'    ' * depth}{branch.name:{46 - 4 * depth}}{numbers:>7}   {shape or branch.note}")
    for below in branch.branches:
        if below.name != "blocks.1":  # like blocks.0
            show(below, depth + 1)


graph = inspection.tree(model)
print(f"\n{'module (blocks.1 is like blocks.0)':42} parameters\n")
show(graph)

# %% [markdown]
# ## 2. The matrix view: the same numbers as a list, and where most of them are
#
# Counted by hand, with the width C, the vocabulary V and the context T: attention has C x 3C
# numbers for queries, keys and values, and C x C to mix the heads. Together these are 4 C C. The
# feed-forward has C x 4C and 4C x C, which are 8 C C. So for every width two thirds of a block are
# in the feed-forward.

# %%
C, V, T, L = config.width, config.vocabulary, config.context, config.layers
by_hand = {
    "feed-forward": L * (8 * C * C + 5 * C),  # with their biases: 4C and C
    "attention": L * (4 * C * C + 4 * C),  # 3C and C
    "position table": T * C,
    "token table": V * C,
    "norms": (2 * L + 1) * 2 * C,
    "head": 0,  # tied: the token table, read the other way round
}
print()
for share in inspection.shares(model):
    print(f"{share.part:15}{share.numbers:8,}  {share.share:6.1%}  {'#' * round(60 * share.share)}")
    assert share.numbers == by_hand[share.part]
assert sum(by_hand.values()) == sum(p.size for p in model.parameters()) == graph.numbers
print(
    f"together       {graph.numbers:8,}   "
    "(`tinygpt inspect RUN` prints both views of a run of yours)"
)
assert model.head is None, "tied: there is no matrix of its own"
assert 8 * C * C / (8 * C * C + 4 * C * C) == 2 / 3, "biases left out"

# %% [markdown]
# ## 3. The file, read by hand
#
#     8 bytes        how long the header is, N, the smallest byte first
#     N bytes        the header, JSON: for each name the dtype, the shape, and where its bytes lie
#     the rest       the numbers, one array after the other, nothing between
#
# The file holds no code, and to load it runs none. So the file of a stranger can hold wrong
# numbers, but no program.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.safetensors"
    checkpoint.write_arrays(
        path, {name: weights.array for name, weights in model.state_dict().items()}
    )
    content = path.read_bytes()

(length,) = struct.unpack("<Q", content[:8])
header = json.loads(content[8 : 8 + length])
data = content[8 + length :]
print(f"\n{len(content):,} bytes = 8 + {length:,} of header + {len(data):,} of numbers\n")
print(
    "the first 8       ", content[:8].hex(" "), f"   {content[0]} + 256 * {content[1]} = {length}"
)
print("the header begins ", content[8:70].decode())
name = "blocks.0.attention.qkv.weight"
entry = header[name]
start, stop = entry["data_offsets"]
print(f"\n{name}: {entry}")
numbers = np.frombuffer(data[start:stop], "<f4")
print(f"its first number  {data[start : start + 4].hex(' ')} = {numbers[0]:.6f}")
assert length == content[0] + 256 * content[1]
assert np.array_equal(numbers.reshape(entry["shape"]), model.blocks[0].attention.qkv.weight.numpy())
assert len(data) == 4 * graph.numbers, "four bytes for each parameter, nothing else"
i, j = 5, 7
place = i * entry["shape"][1] + j  # row-major: strides (96, 1)
print(
    f"element [{i}, {j}] lies {i} * {entry['shape'][1]} + {j} = {place} numbers after it: "
    f"{numbers[place]:.6f}"
)
assert numbers[place] == model.blocks[0].attention.qkv.weight[i, j].item()

# %% [markdown]
# ## 4. Loaded into a new model, the weights make it the same model

# %%
del header["__metadata__"]
state = {
    name: np.frombuffer(data[slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
    for name, entry in header.items()
}
other = tinygpt.GPT(config, generator=tensor.Generator(123))  # other fresh weights
prompt = tokenizer.encode("The cat")
print("\nfresh  ", tokenizer.decode(other.generate(prompt, 40, temperature=0)))
other.load_state_dict(state)
print("loaded ", tokenizer.decode(other.generate(prompt, 40, temperature=0)))
print("trained", tokenizer.decode(model.generate(prompt, 40, temperature=0)))
assert np.array_equal(other(ids[:4]).numpy(), model(ids[:4]).numpy()), "bit for bit"

# %% [markdown]
# ## 5. What training did to the weights
#
# The bias b of the keys is a surprise: it hardly moves from 0. It changes every score of a token
# with the query q by the same number q . b, and softmax does not depend on a number that is added
# to all scores. So the gradient of b is 0, up to rounding. From the rounding AdamW makes small
# steps.

# %%
print(f"\n{'':38}std before    after    the change, in sizes of the result")
for name in (
    "token_embedding.weight",
    "position_embedding",
    "blocks.0.attention.qkv.weight",
    "blocks.0.feed_forward.expand.weight",
    "final_norm.gain",
):
    a, b = before[name], model.state_dict()[name].numpy()
    print(
        f"{name:38}{a.std():10.3f}{b.std():9.3f}{np.linalg.norm(b - a) / np.linalg.norm(b):12.0%}"
    )
    assert not np.array_equal(a, b)
print()
biases = model.blocks[1].attention.qkv.bias.numpy().reshape(3, C)
gradients = model.blocks[1].attention.qkv.bias.grad.numpy().reshape(3, C)
for what, bias, gradient in zip(("queries", "keys", "values"), biases, gradients, strict=True):
    print(
        f"bias of the {what:8} size {np.linalg.norm(bias):.4f}   "
        f"gradient of the last step {np.linalg.norm(gradient):.1e}"
    )
assert np.linalg.norm(gradients[1]) < 1e-4 * np.linalg.norm(gradients[0])

figure, axes = plt.subplots(2, 1, figsize=(9, 6.5), layout="constrained")
name = "blocks.0.attention.qkv.weight"
after = model.state_dict()[name].numpy()
limit = np.abs(after).max()
for ax, (when, picture) in zip(
    axes,
    {"before training: noise": before[name], "after: rows and columns that matter": after}.items(),
    strict=True,
):
    image = ax.imshow(picture, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
    ax.set(title=f"{name}, {when}", ylabel=f"which of a token's {C} numbers")
    for edge in (C, 2 * C):
        ax.axvline(edge - 0.5, color="black", linewidth=1)
    ax.set_xticks(
        [C / 2, 3 * C / 2, 5 * C / 2],
        ["queries, 4 heads of 8", "keys, 4 heads of 8", "values, 4 heads of 8"],
    )
figure.colorbar(image, ax=axes, label="weight")
if plt.get_backend().lower() != "agg":  # agg: no screen, nothing to show
    plt.show()
