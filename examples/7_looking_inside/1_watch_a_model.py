# %% [markdown]
# # Watching a model work: every op, every gradient
#
# `tensor.record` keeps all that runs on a tape: forward and backward, in order, with the module
# that called, the shapes and strides, and what was handed to whom. (The graph of
# 3_gradients/2_the_graph.py keeps only what backward needs, and is freed by it.) Questions that a
# newcomer asks of a model are looked up there; `tinygpt step` walks through the same tape, a key a
# step. With implementation="reference" every op runs as it can be read.

# %%
import textwrap

import numpy as np

import tensor
from tinygpt import GPT, GPTConfig
from tinygpt.tokenizers import CharacterTokenizer

text = "The cat sat on the mat."
tokenizer = CharacterTokenizer(text)
model = GPT(
    GPTConfig(vocabulary=tokenizer.size, context=8, width=16, heads=2, layers=2),
    generator=tensor.Generator(0),
)
ids = np.array([tokenizer.encode("The cat ")])  # (1, 8)
targets = np.array([tokenizer.encode("he cat s")])  # (1, 8)

with tensor.record(implementation="reference") as tape:
    loss = model.loss(ids, targets)
    loss.backward()

print(
    f"{len(tape.forwards)} ops forward, {len(tape.backwards)} backward, "
    f"{tape.nodes} nodes of the graph. ",
    end="",
)
print("The first block's attention:\n")
for entry in tape.forwards:
    if entry.module == "blocks.0.attention":
        y = entry.outputs[-1]
        print(
            f"   {entry.op:10} {y.shape!s:14} strides {y.strides!s:17} {entry.implementation:10} "
            f"{entry.line.place}"
        )

# %% [markdown]
# Of these ops only two move data: `attention` itself, and `clone`, which puts the heads side by
# side. The others look at the same memory in another way: the strides say how.

# %%
assert {
    e.op for e in tape.forwards if e.module == "blocks.0.attention" and e.implementation != "view"
} == {"attention", "clone"}

# %% [markdown]
# ## 1. Arrays by name
#
# A module's name is its output; behind it, the name of any variable in the source of the op.
# `weights` is one in tensor/ops/attention.py.

# %%
weights = tape["blocks.0.attention.weights"]  # (batch, heads, queries, keys)
print("\nweights", weights.shape, "head 1, the last token looks at (fresh weights: all alike)")
for token, share in zip("The cat ", weights[0, 1, -1], strict=True):
    print(f"   {token!r} {share:.3f} {'#' * round(60 * share)}")
assert np.allclose(weights.sum(-1), 1)
assert np.allclose(weights[0, 0], np.tril(weights[0, 0]))
assert np.allclose(tape["logits"], model(ids).numpy(), atol=1e-5)  # the kernels agree

# %% [markdown]
# ## 2. An op, line by line
#
# An op is a function of its arrays, so the tape can run its own source again, and show what each
# line made.

# %%
attention = next(entry for entry in tape.forwards if entry.op == "attention")
print(f"\n{attention.formula}\n")
for moment in attention.lines():
    shapes = ", ".join(
        f"{name} {value.shape}"
        for name, value in moment.values.items()
        if isinstance(value, np.ndarray)
    )
    if shapes and moment.text:
        text = textwrap.shorten(moment.text.partition("  #")[0], 50, placeholder=" ...")
        print(f"{moment.number:4}  {text:50}  {textwrap.shorten(shapes, 42, placeholder=' ...')}")

# %% [markdown]
# ## 3. Where does this gradient come from?
#
# The embedding of the tokens is used twice: at the entrance, and, turned around, as the head. So it
# gets two contributions, the head's first, since backward runs from the end. Their sum is `.grad`.

# %%
print("\ncontributions to token_embedding.weight:")
total, came_from = 0, []
for entry in tape.backwards:
    for part in entry.contributions:
        if part.to == "token_embedding.weight":
            total = total + part.value.array
            came_from.append(entry.name)
            own, so_far = np.linalg.norm(part.value.array), np.linalg.norm(total)
            print(
                f"   {part.number} of {part.count}  from {entry.name:28} norm {own:.4f}   "
                f"sum so far {so_far:.4f}"
            )
assert came_from == ["logits.linear.backward", "embed.embedding.backward"], "the head's first"
assert np.allclose(total, model.token_embedding.weight.grad.numpy(), rtol=1e-5, atol=1e-7)
assert np.allclose(tape["token_embedding.weight.grad"], total)

# %% [markdown]
# The residual stream is used twice as well, by the next LayerNorm and by the sum that goes around
# it. That is the path on which gradients reach the first block unhindered: `blocks.0.add#2` is what
# leaves block 0.

# %%
print("\ncontributions to blocks.0.add#2:")
for entry in tape.backwards:
    for part in entry.contributions:
        if part.to == "blocks.0.add#2":
            assert part.count == 2
            print(
                f"   {part.number} of {part.count}  "
                f"from {entry.name:45} norm {np.linalg.norm(part.value.array):.4f}"
            )

# %% [markdown]
# ## 4. Who made this NaN?
#
# One weight is broken. The loss says only that something is; the tape says where it began: the
# first op with a result that is not finite although all it was given is, or the parameter that was
# not.

# %%
broken = GPT(
    GPTConfig(vocabulary=tokenizer.size, context=8, width=16, heads=2, layers=2),
    generator=tensor.Generator(0),
)
with tensor.no_grad():
    broken.blocks[1].feed_forward.expand.bias[3] = np.inf
with tensor.record(implementation="reference") as sick, np.errstate(invalid="ignore"):
    print("\nloss", float(broken.loss(ids, targets)))
for entry in sick.forwards:
    bad = [value.source for value in entry.inputs if not np.isfinite(value.array).all()]
    if bad or not np.isfinite(entry.outputs[0].array).all():
        print(
            f"first seen in {entry.name} at {entry.line.place},\nwhich was given "
            f"{', '.join(bad) or 'finite numbers only'}"
        )
        break
assert bad == ["blocks.1.feed_forward.expand.bias"]

# %% [markdown]
# ## 5. The same model as it runs by default
#
# The references above are what can be read. What runs by default are fused ops: fewer nodes, fewer
# passes over memory, the same numbers.

# %%
with tensor.record() as fast:
    model.loss(ids, targets).backward()
print(f"\nnodes: {tape.nodes} as references, {fast.nodes} as run")
for entry in fast.forwards[:6]:
    print(f"   {entry.name:46} {entry.implementation}")
assert abs(tape["loss"] - fast["loss"]) < 1e-5
assert fast.nodes <= tape.nodes  # equal where there is no compiler, or kernels are off
