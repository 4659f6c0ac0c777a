# %% [markdown]
# # The cat sat: windows, stride and (x, y) pairs
#
#     ids        T h e _ c a t _ s a t
#     x          T h e _
#     y            h e _ c                  y[t] = x[t + 1]: the answer to a token is the next one
#
# Nobody has to write down the right answers: the text itself holds them, one position further on. A
# window of T tokens asks T questions at once. T is called the context. (A window is often called a
# block. In this course a block is a part of the model: 6_the_transformer/2_a_block.py.)

# %%
import textwrap

import numpy as np

import tinygpt
from tinygpt import CharacterTokenizer
from tinygpt.data.windows import CorpusError

text = "The cat sat"
tokenizer = CharacterTokenizer(text)
ids = tokenizer.encode(text)
print(text, "->", *ids)


def shown(ids):
    return tokenizer.decode(ids).replace(" ", "_")


# %% [markdown]
# ## 1. One pair by hand, and the four questions in it
#
# At position t the model sees x[0] to x[t], and nothing after x[t]. So it never sees the answer.

# %%
context = 4
x, y = ids[0:context], ids[1 : context + 1]
print()
for t in range(context):
    print(
        f"after {shown(x[: t + 1])!r:7} comes {shown([y[t]])!r}      "
        f"in ids: {x[: t + 1]!s:12} -> {y[t]}"
    )
    assert y[t] == ids[t + 1]

# %% [markdown]
# ## 2. All pairs: a window slides over the text, by its stride each time


# %%
def by_hand(ids, context, stride):
    """x, y of all windows. A last window ends where the text ends, so that no token is lost."""
    # where the last window starts: it needs `context` tokens and the one after them
    last = len(ids) - context - 1
    starts = list(range(0, last + 1, stride))
    if starts[-1] != last:
        starts.append(last)
    x = np.array([ids[s : s + context] for s in starts])
    y = np.array([ids[s + 1 : s + context + 1] for s in starts])
    return x, y


for stride in (1, 2, 4):
    x, y = by_hand(ids, context, stride)
    print(f"\nstride {stride}: {len(x)} windows of {context}, x and y have shape {x.shape}")
    for a, b in zip(x, y, strict=True):
        print(f"    x {a} {shown(a)}    y {b} {shown(b)}")
    engine = tinygpt.windows(ids, context, stride)
    assert np.array_equal(engine[0], x)
    assert np.array_equal(engine[1], y)
    assert np.array_equal(x[:, 1:], y[:, :-1])

# %% [markdown]
# With stride 4, the length of the window, each token is an answer about once: the text is read
# quickly. The last window overlaps the one before it, because the number of answers (all tokens but
# the first) is no multiple of 4. With stride 1 a token in the middle is an answer 4 times, each
# time after another past:

# %%
print()
for stride in (1, 4):
    # positions in place of tokens, to count them
    x, y = tinygpt.windows(np.arange(len(ids)), context, stride)
    times = np.bincount(y.ravel(), minlength=len(ids))
    print(
        f"stride {stride}: how often each token is an answer  ",
        *(f"{c}:{n}" for c, n in zip(shown(ids), times, strict=True)),
    )
    assert times[0] == 0, "the first token has nothing before it"
    assert (times[1:] > 0).all(), "every other one is asked for"
    assert times.max() == (context if stride == 1 else 2)

# %% [markdown]
# ## 3. What a longer context is for
#
# After one character many characters can follow, after four only a few. The loss of a model is its
# mean surprise at the right answer, in nats (4_networks/3_softmax_and_loss.py computes one by
# hand). The floor below is a lower bound: no model that sees so many characters has a lower loss.

# %%
print()
story = CharacterTokenizer(tinygpt.story()).encode(tinygpt.story())
floors = {context: tinygpt.floor(story, context) for context in (1, 2, 4, 8, 16, 32)}
for context, floor in floors.items():
    number = len(tinygpt.windows(story, context)[0])
    print(
        f"context {context:2}   {number} windows   floor {floor:.3f} nats a character   "
        f"{'#' * round(30 * floor)}"
    )
assert list(floors.values()) == sorted(floors.values(), reverse=True)

# %% [markdown]
# A window needs one token more than its length: the answer to its last token.

# %%
try:
    tinygpt.windows(ids, context=11)
except CorpusError as error:
    print(
        textwrap.fill(
            f"\nCorpusError: {error}", 98, subsequent_indent="    ", replace_whitespace=False
        )
    )
else:
    raise AssertionError("eleven tokens are ten pairs")
