# %% [markdown]
# # What errors say, and what to do
#
# This lesson has the errors of the first week: the wrong code, its message, the reason, and the
# right code. Each message has three parts: what was asked for, with the numbers; which two numbers
# do not fit; and what to write.

# %%
import linecache
import sys
import textwrap
from contextlib import contextmanager

import numpy as np

import tensor
from tensor import Tensor, nn, no_grad
from tensor.errors import (
    DeviceError,
    GradientError,
    GraphError,
    MutationError,
    ShapeError,
    ViewError,
)


def block_after(file, number):
    """The lines of code inside the `with` of that line."""
    first = linecache.getline(file, number + 1)
    lines, indent = [], len(first) - len(first.lstrip())
    while (text := linecache.getline(file, number + 1)) and (
        not text.strip() or text.startswith(" " * indent)
    ):
        lines.append(text[indent:].rstrip())
        number += 1
    return [line for line in lines if line]


def show_block(mark):
    frame = sys._getframe(3)  # past contextlib's own
    print(
        "\n".join(
            f"{mark}  {line}" for line in block_after(frame.f_code.co_filename, frame.f_lineno)
        )
    )


@contextmanager
def wrong(kind, *says):
    """Show the code of the block and its error, whose message must hold all of `says`."""
    show_block("wrong ")
    try:
        yield
    except kind as error:
        text = f"{type(error).__name__}: {error}"
        print(
            "\n".join(
                textwrap.fill(line, 98, initial_indent="        ", subsequent_indent="          ")
                for line in text.splitlines()
            )
        )
        missing = [part for part in says if part not in text]
        assert not missing, missing
    else:
        raise AssertionError("it went well")


@contextmanager
def mended():
    """Show the code of the block, which must run."""
    show_block("mended")
    yield
    print()


# %% [markdown]
# ## 1. First of all: ask the tensor
#
# `explain()` says where the numbers of a tensor are in memory, which index finds which number, and
# which other tensors share the memory. The repr says which op made the tensor.

# %%
x = Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
print(x.T.explain(), "\n")
doubled = Tensor([1.0, 2.0], requires_grad=True) * 2
print(doubled, "\n")
assert "made by multiply" in repr(doubled)
assert "axis 1 steps by 3, row-major order needs 1" in x.T.explain()
assert "shared with tensor (2, 3)" in x.T.explain()

# %% [markdown]
# ## 2. Views: no strides express this order of numbers
#
# The elements of x.T, in order, are 1 4 2 5 3 6, in cells 0, 3, 1, 4, 2, 5. As one axis the steps
# would be +3, then -2. A view moves no numbers, so it cannot have this order. `reshape` copies if
# it must. `contiguous()` says that you want the copy. (2_tensors/2_view_or_copy.py has more.)

# %%
with wrong(
    ViewError, "axes 0 and 1 clash", "A copy costs 24 bytes", ".reshape(6) or .contiguous().view(6)"
):
    x.T.view(6)
with mended():
    a = x.T.reshape(6)
    b = x.T.contiguous().view(6)
assert a.tolist() == b.tolist() == [1, 4, 2, 5, 3, 6]

with wrong(ShapeError, "6 elements do not fit shape (4,)"):
    x.view(4)  # not strides: there are too many numbers
with mended():
    a = x.view(-1)  # -1: as many as there are
assert a.shape == (6,)

# %% [markdown]
# ## 3. Shapes in products and sums: two numbers that must be the same
#
#     (..., M, K) @ (..., K, N) -> (..., M, N)        the K in the middle are multiplied in pairs
#
# The message names both K. Most often one of the two must be transposed, or an axis is missing.

# %%
weight = tensor.ones(4, 3)
with wrong(
    ShapeError, "the last axis of the first, 3", "of the second, 4", "transposed would fit: .mT"
):
    x @ weight
with mended():
    a = x @ weight.mT
assert a.shape == (2, 4)

batch, other = tensor.ones(2, 5, 3), tensor.ones(4, 3, 5)
with wrong(ShapeError, "the axes before the last two, (2,) and (4,), do not broadcast"):
    batch @ other
with mended():
    a = batch[:, None] @ other  # each of 2 with each of 4: a new axis says so
assert a.shape == (2, 4, 5, 5)

layer = nn.Linear(4, 2)  # 4 numbers in, 2 out
with wrong(ShapeError, "its last axis has 3 numbers, weight (4, 2) takes 4"):
    layer(x)
with mended():
    a = nn.Linear(3, 2)(x)
assert a.shape == (2, 2)

with wrong(ShapeError, "(2, 3) and (2,) do not broadcast: 3 and 2 on axis -1"):
    x + tensor.ones(2)
with mended():
    a = x + tensor.ones(2, 1)  # lined up at their ends: (2, 1) is a number for each row
assert a.shape == (2, 3)

# %% [markdown]
# ## 4. Writes: what a gradient still needs must not change
#
# y = x * x keeps x, because dx = 2 x dy. A write to x before backward would make the gradient
# wrong, and nobody would see it. So a write that the graph cannot record raises an error at once. A
# write to memory that a node kept raises an error in backward, which names both lines.
# (3_gradients/5_mutation.py has more.)

# %%
w = Tensor([1.0, 2.0, 3.0], requires_grad=True)
with wrong(MutationError, "outside no_grad()"):
    w -= 0.1  # an update of a weight: no part of any formula
with mended():  # noqa: SIM117
    with no_grad():
        w -= 0.1

h = w * 2
with wrong(MutationError, "part of a live graph", "where, stack or concatenate"):
    h[0] = 0.0  # the graph says h = 2 w
with mended():
    h = tensor.where(Tensor([True, False, False]), 0.0, w * 2)  # and the gradient knows
h.sum().backward()
assert w.grad.tolist() == [0, 2, 2]

with wrong(MutationError, "saved by `multiply`", "was written at"):
    loss = (w * w).sum()
    with no_grad():
        w[0] = 5.0
    loss.backward()
with mended():
    loss = (w * w).sum()
    loss.backward()
    with no_grad():
        w[0] = 1.0  # now nobody needs the old one

# %% [markdown]
# ## 5. The graph: backward goes through it once
#
# backward() frees the nodes that it has used, to give back memory early. A second backward needs a
# new graph. Most often the forward pass is missing inside a loop. Sometimes two losses share a part
# of the graph: then add the losses, and call backward once.

# %%
with wrong(GraphError, "a second time", "retain_graph=True"):
    loss = (w * w).sum()
    for _ in range(2):
        loss.backward()
with mended():
    for _ in range(2):
        loss = (w * w).sum()  # computed anew in each round
        loss.backward()

with wrong(GraphError, "a second time"):
    shared = w * w
    shared.sum().backward()
    (3 * shared).sum().backward()  # the other loss goes through `shared` too
w.grad = None
with mended():
    shared = w * w
    (shared.sum() + (3 * shared).sum()).backward()
assert np.allclose(w.grad.numpy(), 8 * w.detach().numpy())

with wrong(GraphError, "needs the upstream gradient", "reduce to a scalar"):
    (w * w).backward()  # three numbers: the gradient of which?
with mended():
    (w * w).sum().backward()

with wrong(GraphError, "is in no graph", "requires_grad=True"):
    Tensor([1.0, 2.0]).sum().backward()  # nothing here learns
with mended():
    Tensor([1.0, 2.0], requires_grad=True).sum().backward()
with wrong(GraphError, "outside no_grad()"):
    with no_grad():
        loss = (w * w).sum()  # nothing is recorded
    loss.backward()
with mended():
    loss = (w * w).sum()
    loss.backward()

# %% [markdown]
# ## 6. NaN: who made it?
#
# A NaN spreads: if the loss is NaN, all weights are NaN after the next step. `detect_anomaly`
# checks every result, forward and backward, and stops at the first that is not finite. Its message
# names the op, your line, the shapes, and the ops before. It is slow: use it only to search.

# %%
np.seterr(all="ignore")  # NumPy warns too, of a line inside the engine
p = Tensor([0.5, 0.0, 0.5], requires_grad=True)  # probabilities, one of them 0
entropy = -(p * p.log()).sum()
print("without detect_anomaly the entropy is", entropy.item())
with wrong(GradientError, "1 of 3 values not finite from `log`", "p.log()"):  # noqa: SIM117
    with tensor.detect_anomaly():
        entropy = -(p * p.log()).sum()
with mended():
    entropy = -(p * p.clip(1e-12, 1.0).log()).sum()
assert np.isclose(entropy.item(), np.log(2))

# %% [markdown]
# Some results are finite, but their gradient is not: sqrt has the slope 1 / (2 sqrt(x)), which is
# infinite at 0. Then the error comes from backward.

# %%
distance = Tensor([0.0, 4.0], requires_grad=True)
assert np.isfinite(distance.sqrt().numpy()).all()
with wrong(GradientError, "non-finite gradient from backward of `sqrt`"):  # noqa: SIM117
    with tensor.detect_anomaly():
        distance.sqrt().sum().backward()
assert distance.grad is None, "stopped before anything was accumulated"
with mended():
    (distance + 1e-6).sqrt().sum().backward()
assert np.isfinite(distance.grad.numpy()).all()

# %% [markdown]
# An -inf that you write yourself is no anomaly: in a mask, softmax turns it into zeros.

# %%
with tensor.detect_anomaly():
    print(
        "masked: ",
        tensor.ones(3).masked_fill(Tensor([False, False, True]), float("-inf")).softmax().tolist(),
        "\n",
    )

# %% [markdown]
# ## 7. Devices: two memories
#
# A GPU has its own memory, and no op can read both memories. So an op with a tensor in each raises
# an error, which names both. This example needs a GPU, so it is not run here:
#
#     >>> x @ weight                          # x on the CPU, the weight of a model on the GPU
#     DeviceError: `matmul` got tensors on cpu and cuda:0: move one with .to('cpu')
#     >>> x.to("cuda") @ weight               # right: move a batch once, when it is made
#
# Without a GPU, or without CuPy, a request for a GPU raises this error:

# %%
try:
    tensor.ones(2, device="cuda")
    print("there is a GPU here")
except DeviceError as error:
    print(textwrap.fill(f"DeviceError: {error}", 98, subsequent_indent="    "))
