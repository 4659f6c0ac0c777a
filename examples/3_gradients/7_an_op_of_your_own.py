# %% [markdown]
# # An op of your own in twenty lines: with its gradient, its check, and its place in a model
#
#     r = sqrt(mean(x^2) + eps)          one number for each row
#     y = gain * x / r                   over the last axis, x: (..., C), gain: (C,)
#
# This is RMSNorm: LayerNorm without the mean (Zhang & Sennrich 2019, section 4). An op is a
# function on arrays (3_gradients/1_an_op.py). It returns its result, and for each input a function
# that computes the gradient of this input from dy = dL/dy. On paper, with u = x / r and g = dy *
# gain:
#
#     dgain = sum over all rows of dy * u          each gain was used in every row
#     dx    = (g - u * mean(g * u)) / r            the second term: x changes r too

# %%
import textwrap
from typing import Any

import numpy as np

import tensor
import tinygpt
from tensor import Tensor, nn, optim
from tensor.errors import GradientError
from tensor.gradcheck import gradcheck
from tensor.graph import reachable
from tensor.memory.devices import Array
from tensor.ops.op import compute_op

# %% [markdown]
# ## 1. The op


# %%
@compute_op
def rms_norm(x: Array, gain: Array, eps: float = 1e-5) -> Any:
    """y = gain * x / sqrt(mean(x^2) + eps), over the last axis.   x, y: (..., C)   gain: (C,)"""
    r = np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    u = x / r

    def dx(dy: Array) -> Array:
        g = dy * gain
        return (g - u * (g * u).mean(axis=-1, keepdims=True)) / r

    def dgain(dy: Array) -> Array:
        return (dy * u).reshape(-1, u.shape[-1]).sum(axis=0)

    return gain * u, (dx, dgain)


# %% [markdown]
# ## 2. The check: central differences find what is wrong with the rule
#
# Here are the two most likely mistakes. The first takes r for a constant. The second gives gain the
# mean over the rows, where it should be the sum.

# %%
rng = np.random.default_rng(0)
x, gain = rng.standard_normal((2, 3, 8)), rng.standard_normal(8)
worst = gradcheck(rms_norm, [x, gain])
print(f"rms_norm             worst relative error {worst:.1e}")
assert worst < 1e-8


@compute_op
def r_taken_for_constant(x: Array, gain: Array) -> Any:
    y, (_, dgain) = rms_norm.reference(x, gain)
    r = np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)
    return y, (lambda dy: dy * gain / r, dgain)


@compute_op
def mean_for_sum(x: Array, gain: Array) -> Any:
    y, (dx, dgain) = rms_norm.reference(x, gain)
    return y, (dx, lambda dy: dgain(dy) / (x.size / x.shape[-1]))


for wrong, at_fault in (
    (r_taken_for_constant, "gradient of input 0"),
    (mean_for_sum, "gradient of input 1"),
):
    said = ""
    try:
        gradcheck(wrong, [x, gain])
    except GradientError as error:
        said = str(error)
    print(textwrap.fill(f"{wrong.__name__:20} {said}", 98, subsequent_indent=" " * 21))
    assert said.startswith(at_fault)

# %% [markdown]
# ## 3. Was it worth it?
#
# Existing ops give the same numbers, but with eight nodes in the graph, not one.


# %%
def composed(x, gain, eps=1e-5):
    return gain * (x / ((x * x).mean(-1, keepdims=True) + eps).sqrt())


leaves = [Tensor(a, requires_grad=True) for a in (x, gain)]
dy = rng.standard_normal(x.shape)
by_op, by_parts = rms_norm(*leaves), composed(*leaves)
assert np.allclose(by_op.numpy(), by_parts.numpy())
print()
for name, y, count in (("rms_norm", by_op, 1), ("composed", by_parts, 8)):
    nodes = [node.op for node in reachable([y.node]) if node.op != "leaf"]
    print(f"graph of {name}:", *nodes)
    assert len(nodes) == count
for a, b in zip(tensor.grad(by_op, leaves, dy), tensor.grad(by_parts, leaves, dy), strict=True):
    assert np.allclose(a.numpy(), b.numpy())

# %% [markdown]
# ## 4. In use: a model that reads three characters of the story and predicts the fourth


# %%
class Small(nn.Module):
    """logits = relu(rms_norm(x) W1) W2, for the embeddings x of three characters, side by side.

    ids: (N, 3)   logits: (N, V)
    """

    def __init__(self, vocabulary: int):
        self.embedding, self.gain = (
            nn.Embedding(vocabulary, 8),
            nn.Parameter(np.ones(24, np.float32)),
        )
        self.hidden, self.head = nn.Linear(24, 64), nn.Linear(64, vocabulary)

    def __call__(self, ids: Any) -> Tensor:
        return self.head(self.hidden(rms_norm(self.embedding(ids).flatten(1, 2), self.gain)).relu())


tensor.manual_seed(0)
tokenizer = tinygpt.CharacterTokenizer(tinygpt.story())
ids = tokenizer.encode(tinygpt.story())
seen, following = tinygpt.windows(ids, 3)
model = Small(tokenizer.size)
optimizer = optim.AdamW(model, lr=1e-2)
for _ in range(200):
    optimizer.zero_grad()
    loss = tensor.cross_entropy(model(seen), following[:, -1])
    loss.backward()
    optimizer.step()

# %% [markdown]
# This is as good as counting. No such model can have a lower loss than the entropy of a character
# given the three before it.

# %%
_, threes = np.unique(seen, axis=0, return_counts=True)
_, fours = np.unique(np.column_stack([seen, following[:, -1]]), axis=0, return_counts=True)
counted = ((threes * np.log(threes)).sum() - (fours * np.log(fours)).sum()) / len(seen)
print(f"\nloss {loss.item():.3f}, by counting {counted:.3f} nats a character")
print("the gain moved from 1 to", *model.gain.numpy()[:4].round(2), "...")
assert counted - 1e-4 < loss.item() < counted + 0.03
assert np.abs(model.gain.numpy() - 1).max() > 0.05
