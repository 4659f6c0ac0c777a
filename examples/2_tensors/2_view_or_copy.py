# %% [markdown]
# # Three ways to another shape: which of them copies?
#
#     x.view(shape)                never copies; ViewError if strides cannot express the shape
#     x.contiguous().view(shape)   copies if x is not in row-major order without gaps
#     x.reshape(shape)             a view if one is possible, else a copy
#     x.flatten(2, 3)              a reshape that joins axes 2 and 3
#
# The memory of this page is "The cat sat.", twelve characters in a row. Shapes and strides only say
# how to read them.

# %%
import textwrap

import numpy as np

import tensor
from tensor.errors import ViewError
from tinygpt import CharacterTokenizer

text = "The cat sat."
tokenizer = CharacterTokenizer(text)
x = tensor.Tensor(tokenizer.encode(text)).view(3, 4)  # a word a row


def read(t):
    """The characters in the order of the indices: what any copy would have in memory."""
    return tokenizer.decode(t.numpy().ravel()).replace(" ", "_")


def shares_memory(a, b):
    """Whether two tensors share memory. NumPy decides, and knows nothing of this engine."""
    return np.shares_memory(a.numpy(), b.numpy())


def compare(name, t, *shape):
    """Each way to the shape, from t, in one line."""
    order = "contiguous" if t.is_contiguous() else "not contiguous"
    print(
        f"\n{name}: shape {t.shape}, strides {t.strides}, {order}, reads {read(t)!r}. To {shape}:"
    )
    copies = {}
    for way, function in {
        "view": t.view,
        "contiguous().view": lambda *s: t.contiguous().view(*s),
        "reshape": t.reshape,
    }.items():
        try:
            y = function(*shape)
        except ViewError as error:
            print(
                textwrap.fill(
                    f"ViewError: {error}",
                    98,
                    initial_indent=f"    {way:19}",
                    subsequent_indent=" " * 25,
                )
            )
            copies[way] = "fails"
        else:
            assert read(y) == read(t), "whatever the shape, the elements keep their order"
            copies[way] = "view" if shares_memory(y, t) else "copy"
            print(f"    {way:18} {copies[way]}   strides {y.strides}")
    return list(copies.values())


# %% [markdown]
# ## 1. In order: nobody copies

# %%
assert compare("x", x, 2, 6) == ["view", "view", "view"]

# %% [markdown]
# ## 2. Transposed: view fails, the others copy
#
# The elements of x.T, in order, are in cells 0, 4, 8, then 1, 5, 9. Within one row of the new shape
# the steps would be +4, +4 and then -7. A layout has one stride for each axis. So only new memory
# can hold this order as one axis.

# %%
print("\nthe cells that x.T reads in order:", *(i + 4 * j for i in range(4) for j in range(3)))
assert compare("x.T", x.T, 2, 6) == ["fails", "copy", "copy"]

# %% [markdown]
# The message names the axes that cannot be joined, what a copy would cost, and both ways out:

# %%
message = ""
try:
    x.T.view(2, 6)
except ViewError as error:
    message = str(error)
for part in (
    "axes 0 and 1 clash",
    "A copy costs 96 bytes",
    ".reshape(2, 6) or .contiguous().view(2, 6)",
):
    assert part in message
assert x.size * x.dtype.itemsize == 96

# %% [markdown]
# ## 3. Transposed, but view works: here no axes are joined
#
# `contiguous()` makes an order that this shape does not need, and copies. `reshape` does not copy.

# %%
assert compare("x.T", x.T, 2, 2, 3) == ["view", "copy", "view"]

# %% [markdown]
# ## 4. A slice: not contiguous, but one stride is enough

# %%
assert compare("x[:, 1:3]", x[:, 1:3], 6) == ["fails", "copy", "copy"]
assert compare("x[:, :1]", x[:, :1], 3) == ["view", "copy", "view"]

# %% [markdown]
# ## 5. flatten(2, 3): the heads of attention side by side again
#
#     B batch   T time   H heads   D head width
#
# Each word is a token of four numbers, cut into two heads of two numbers. (The lesson
# 5_attention/2_attention_by_hand.py says what heads are for, and needs this copy.)

# %%
print()
B, T, H, D = 1, 3, 2, 2
q = x.view(B, T, H, D)
heads = q.transpose(1, 2)  # (B, H, T, D): each head is a batch of its own
made = heads.contiguous()  # attention returns new memory in this order
for name, t in (
    ("q", q),
    ("heads.transpose(1, 2)", heads.transpose(1, 2)),
    ("made.transpose(1, 2)", made.transpose(1, 2)),
):
    y = t.flatten(2, 3)  # (B, T, C), C = H * D
    how = "view" if shares_memory(y, t) else "copy"
    print(
        f"{name:22} strides {t.strides!s:14} axis 2 steps by {t.strides[2]}, "
        f"joining needs {t.shape[3] * t.strides[3]}: {how}"
    )
    assert (how == "view") == (t.strides[2] == t.shape[3] * t.strides[3])
    assert read(y) == "The_cat_sat."

# %% [markdown]
# ## 6. Why it matters: a write through a view is seen, a write to a copy is not

# %%
x.view(12)[0] = x[2, 3]
x.T.reshape(12)[1] = x[2, 3]
print("\nx.view(12)[0] = '.' and x.T.reshape(12)[1] = '.' make of the text:", read(x))
assert read(x) == ".he_cat_sat."
