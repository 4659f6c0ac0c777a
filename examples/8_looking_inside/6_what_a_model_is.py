# %% [markdown]
# # What a model is: an architecture and its weights
#
#     architecture    which arrays there are, and how they are computed with    code and a few sizes
#     weights         the numbers in these arrays                               a file
#
# The architecture is designed by people, and is the same before and after the training. The
# training changes the weights alone. This lesson counts the weights of GPT-2 and GPT-3, part by
# part, and finds what a common picture of GPT-2 forgets.
#
#     V vocabulary   T context   C width   L blocks

# %%
import json
from dataclasses import asdict

import numpy as np

import tensor
import tinygpt
from tensor.errors import TensorError
from tinygpt.config.presets import PRESETS, VOCABULARY
from tinygpt.model.sizes import parameter_count, parts

# %% [markdown]
# ## 1. One architecture, two models
#
# A few sizes say all about the architecture. Two models with the same sizes and other weights give
# other answers. The weights of one model, put into the other, make it the same model.

# %%
config = tinygpt.GPTConfig(vocabulary=22, context=32, width=32, heads=4, layers=2)
one, two = (tinygpt.GPT(config, generator=tensor.Generator(seed)) for seed in (1, 2))
sizes = json.dumps(asdict(config))
numbers = sum(parameter.size for parameter in one.parameters())
print(f"architecture  {len(sizes)} bytes: {sizes[:65]}...")
print(f"weights       {4 * numbers:,} bytes: {numbers:,} numbers of 4 bytes each")
prompt = [0, 1, 2]
assert not np.array_equal(one(prompt).numpy(), two(prompt).numpy())
two.load_state_dict(one.state_dict())
assert np.array_equal(one(prompt).numpy(), two(prompt).numpy()), "the same model now"

# %% [markdown]
# ## 2. Three published sizes, counted by hand
#
# A block has 12 C C weights in its matrices: 4 C C in attention (for queries, keys, values, and the
# projection that mixes the heads), and 8 C C in the feed-forward (C to 4C, and back). Then there
# are 9 C of biases, and two norms of 2 C each.

# %%
published = {}
print(f"\n{'':18}" + "".join(f"{name:>18}" for name in ("gpt2", "gpt2-medium", "gpt3")))
for name in ("gpt2", "gpt2-medium", "gpt3"):
    shape = {key: PRESETS[name][key] for key in ("context", "width", "heads", "layers")}
    published[name] = tinygpt.GPTConfig(VOCABULARY, **shape)
for what in ("layers", "width", "heads", "context", "vocabulary"):
    print(f"{what:18}" + "".join(f"{getattr(c, what):18,}" for c in published.values()))

by_hand = {}
for name, c in published.items():
    V, T, C, L = c.vocabulary, c.context, c.width, c.layers
    by_hand[name] = {
        "token table": V * C,
        "position table": T * C,
        "attention": L * (4 * C * C + 4 * C),
        "feed-forward": L * (8 * C * C + 5 * C),
        "norms": (2 * L + 1) * 2 * C,
    }
    assert by_hand[name] == {part: count for part, count in parts(c).items() if count}
print()
for part in by_hand["gpt2"]:
    print(f"{part:18}" + "".join(f"{counts[part]:18,}" for counts in by_hand.values()))
totals = {name: sum(counts.values()) for name, counts in by_hand.items()}
print(f"{'together':18}" + "".join(f"{total:18,}" for total in totals.values()))
assert totals == {"gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt3": 174_604_259_328}
assert all(totals[name] == parameter_count(c) for name, c in published.items())

# %% [markdown]
# The head has no row: it is the token table, read the other way round. The tables grow with C, the
# blocks with C C. So the token table is a third of GPT-2 and nearly nothing of GPT-3.
# (`tinygpt plan --preset gpt2` prints such a table for any size.)

# %%
for name in published:
    shares = {part: count / totals[name] for part, count in by_hand[name].items()}
    line = "  ".join(f"{part} {share:.1%}" for part, share in shares.items() if share > 0.0005)
    print(f"{name:12} {line}")
assert by_hand["gpt2"]["token table"] / totals["gpt2"] > 0.3
assert by_hand["gpt3"]["token table"] / totals["gpt3"] < 0.004

# %% [markdown]
# ## 3. The size of the file
#
# A number takes 4 bytes in float32, and 2 bytes in float16 or bfloat16. A published size only means
# something together with the bytes for a number. (MB and GB are millions and billions of bytes.)

# %%
print()
for name, size in (("gpt2", 4), ("gpt2-medium", 4), ("gpt3", 2), ("gpt3", 4)):
    print(f"{name:12} {size} bytes a number: {size * totals[name] / 1e9:8.3f} GB")
assert round(4 * totals["gpt2"] / 1e6) == 498
assert round(4 * totals["gpt2-medium"] / 1e6) == 1419
assert round(2 * totals["gpt3"] / 1e9) == 349

# %% [markdown]
# ## 4. A picture that forgets a part
#
# GPT-2 is often drawn as this tree, with 50,000 tokens:
#
#     token table       50,000 x 768
#     position table    1,024 x 768
#     12 blocks         query, key and value   768 x 768 each
#                       feed-forward           768 x 3,072 and 3,072 x 768
#                       norm                   768 gains and 768 biases
#
# The sum of the tree is 117 million. So 7 million weights are missing. Which ones?

# %%
C, L = 768, 12
tree = 50_000 * C + 1024 * C + L * (3 * C * C + 2 * C * 4 * C + 2 * C)
forgotten = {
    "the projection that mixes the heads": L * C * C,
    "257 tokens: the vocabulary is 50,257": 257 * C,
    "biases of attention, 4 C a block": L * 4 * C,
    "biases of the feed-forward, 5 C a block": L * 5 * C,
    "the second norm of each block": L * 2 * C,
    "the norm after the blocks": 2 * C,
}
print(f"\n{'the tree':42}{tree:12,}")
for what, count in forgotten.items():
    print(f"{what:42}{count:12,}")
print(f"{'together':42}{tree + sum(forgotten.values()):12,}")
assert tree == 117_061_632
assert tree + sum(forgotten.values()) == totals["gpt2"]
assert max(forgotten, key=forgotten.get) == "the projection that mixes the heads"

# %% [markdown]
# ## 5. Weights without their architecture are no model
#
# A file of weights is a list of names, shapes and numbers. Code must expect exactly these arrays.
# If one is missing, the model cannot be put together, and the engine says which one:

# %%
state = one.state_dict()
del state["blocks.0.attention.projection.weight"]
said = ""
try:
    two.load_state_dict(state)
except TensorError as error:
    said = str(error)
print(f"\n{said}")
assert "missing: blocks.0.attention.projection.weight" in said

# %% [markdown]
# And without this array, heads would not be mixed: what head 0 finds could reach only the first
# quarter of the stream. To see this, the values of the other heads are set to 0, and the first
# token is changed. The change comes to the last token through head 0 alone.

# %%
attention, width = one.blocks[0].attention, config.width
x = tensor.randn(1, 3, width, generator=tensor.Generator(0)).numpy()
changed = x.copy()
changed[0, 0] += 1.0
identity = np.eye(width, dtype=np.float32)  # mixes nothing, as if there were no projection
print()
with tensor.no_grad():
    attention.qkv.weight[:, 2 * width + width // 4 :] = 0.0  # the values of heads 1 to 3
    for name, projection in (
        ("drawn", attention.projection.weight.numpy().copy()),
        ("identity", identity),
    ):
        attention.projection.weight[...] = projection
        before, after = (attention(tensor.Tensor(each)).numpy() for each in (x, changed))
        reached = np.count_nonzero(np.abs(after - before)[0, 2] > 1e-7)
        print(f"projection {name:9} head 0 reaches {reached} of {width} numbers of the last token")
        assert reached == (width if name == "drawn" else width // 4)
