# %% [markdown]
# # Watching a model work: every op, every gradient
#
# `tensor.record` keeps everything that runs, forward and backward, in order: each op with its
# module, its shapes and strides, and each gradient with its sender and its receiver. This is a
# recording, here named `tape`. (The graph of 3_gradients/2_the_graph.py keeps only what backward
# needs, and is freed by it.) With implementation="reference" each op runs in its readable form.
# `tinygpt step` shows such a recording step by step.

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
# Only two of these ops make new memory: `attention` itself, and `clone`, which puts the heads side
# by side. The others are views of the same memory with other strides.

# %%
assert {
    e.op for e in tape.forwards if e.module == "blocks.0.attention" and e.implementation != "view"
} == {"attention", "clone"}

# %% [markdown]
# ## 1. Arrays by name
#
# The name of a module stands for its output. After it can stand the name of a variable in the
# source of the op: `weights` is a variable in tensor/ops/attention.py.

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
# An op depends only on its arrays. So the recording can run the source of the op again, and show
# the result of each line.

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
# The token table is used twice: at the input, and transposed, as the head. So it gets two
# contributions. The one from the head comes first, since backward starts at the end. Their sum is
# `.grad`.

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
# The residual stream is used twice too: by the next LayerNorm, and by the sum that leads around it.
# Through the sum a gradient reaches the first block unchanged. `blocks.0.add#2` is the result of
# block 0.

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
# ## 4. Where does this NaN come from?
#
# One weight is NaN. The loss shows only that something is wrong. The recording shows where it
# began: at the first op whose inputs are finite and whose result is not, or at a parameter that is
# not finite.

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
# Above, each op ran in its readable form. By default a model runs fused ops: fewer nodes, fewer
# passes over memory, the same numbers.

# %%
with tensor.record() as fast:
    model.loss(ids, targets).backward()
print(f"\nnodes: {tape.nodes} as references, {fast.nodes} as run")
for entry in fast.forwards[:6]:
    print(f"   {entry.name:46} {entry.implementation}")
assert abs(tape["loss"] - fast["loss"]) < 1e-5
assert fast.nodes <= tape.nodes  # equal where there is no compiler, or kernels are off
