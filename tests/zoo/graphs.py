"""Bugs of steps as CUDA graphs, and of the kernels that make a small step short."""

from __future__ import annotations

from tests.zoo.bug import Bug

CAPTURED = "tensor/optim/captured.py"
STEPS = "tests/tinygpt/training/test_captured.py::"
BITS = f"{STEPS}test_captured_steps_have_the_bits_of_steps_as_written"
SMALL = "tensor/kernels/cuda/small_products.cu"
PRODUCTS = "tests/tensor/kernels/test_cuda_small_products.py::"
LAYOUTS = f"{PRODUCTS}test_products_of_every_layout"
GELU = f"{PRODUCTS}test_the_gradient_of_gelu_is_made_while_dy_is_read"
EMBEDDING = "tests/tensor/kernels/test_cuda_embedding.py::test_rows_and_their_gradients"


def on_gpu(file: str, old: str, new: str, test: str = BITS) -> Bug:
    return Bug(row=97, file=file, old=old, new=new, test=test, device="cuda")


def small(old: str, new: str, test: str = LAYOUTS) -> Bug:
    return Bug(row=97, file=SMALL, old=old, new=new, test=test)


ZOO = [
    # dropout has the masks of the capture
    on_gpu("tensor/kernels/cuda/philox.cuh", "later ? __ldg(later) : step", "step"),
    # the learning rate, and the step count, are those of the capture
    on_gpu("tensor/kernels/cuda/adamw.cu", "rate = later[RATE];", ""),
    on_gpu("tensor/kernels/cuda/adamw.cu", "t = later[STEP];", ""),
    # replays are not counted, so a resumed run counts from the capture
    on_gpu(CAPTURED, "        self.optimizer.count_again()\n", ""),
    # a capture that fails counts its step
    on_gpu(
        CAPTURED,
        "            optimizer.taken, optimizer.counts = before\n",
        "",
        f"{STEPS}test_what_cannot_be_captured_is_counted_once",
    ),
    # a frozen parameter goes on learning
    on_gpu(
        CAPTURED,
        "            tuple([parameter.node is not None for parameter in parameters]),\n",
        "",
        f"{STEPS}test_a_frozen_parameter_needs_another_graph",
    ),
    # nobody looks at the ids of a replay
    on_gpu(
        CAPTURED,
        "        self.check(x)\n",
        "",
        f"{STEPS}test_a_frozen_parameter_needs_another_graph",
    ),
    # the last k's of a sum are left out
    small("k < count; k += GROUPS", "k < count - GROUPS; k += GROUPS"),
    # the operands of a second round are multiplied before all have come
    small("        __syncthreads();\n        int count", "        int count"),
    # neighbours in memory are taken for neighbours in the tile
    small("along ? PITCH : 1;", "1;"),
    # a transposed operand, read as if it were not
    small("p.b.across, p.b.down, left", "p.b.down, p.b.across, left"),
    # the bias gradient of each row of tiles is added
    small("if (!p.sums || top > 0) return;", "if (!p.sums) return;"),
    # dy is taken for the gradient before GELU
    small("if (!x.at) return;", "return;", GELU),
    # rows of equal ids stand in any order, and one is lost
    on_gpu(
        "tensor/kernels/cuda/embedding.cu",
        "if (before == all - 1) count = all;",
        "if (before == 0) count = all - 1;",
        EMBEDDING,
    ),
]
