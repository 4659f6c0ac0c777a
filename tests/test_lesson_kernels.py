"""The lessons on a GPU, on the CPU: their CUDA kernels, and the times that they quote."""

from __future__ import annotations

import ast
import contextlib
import ctypes
import io
import re
import runpy
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.helpers.cuda_on_cpu import COMPILER, compiled

ROOT = Path(__file__).parents[1]
LESSON = ROOT / "examples" / "2_tensors" / "4_a_product_on_a_gpu.py"
LADDER = ROOT / "examples" / "5_attention" / "7_attention_on_a_gpu.py"
# in the place of the instruction of tensor cores
LOOPS = """
#define __uint_as_float float_of
using T = __nv_bfloat16;
#include "mma_on_cpu.h"
inline void multiply_add(float (&s)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    multiply_add(s, {{a[0], a[1], a[2], a[3]}}, b[0], b[1]);
}
"""


@pytest.fixture(scope="module")
def lesson() -> dict[str, Any]:
    if COMPILER is None:
        pytest.skip("g++ is not installed")
    with contextlib.redirect_stdout(io.StringIO()):
        return runpy.run_path(str(LESSON))


def test_kernels_of_the_lesson(lesson: dict[str, Any]) -> None:
    library = compiled(LOOPS + lesson["CODE"].replace(lesson["MMA"], ""))
    M, N, K = 256, 128, 96
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-4, 5, shape).astype(ml_dtypes.bfloat16) for shape in ((M, K), (K, N)))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    for name, ((rows, columns), block) in lesson["LAUNCHES"].items():
        c = np.full((M, N), np.nan, np.float32)
        pointers = [ctypes.c_void_p(x.ctypes.data) for x in (a, b, c)]
        given = [*pointers, ctypes.c_int(N), ctypes.c_int(K)]
        places = (ctypes.c_void_p * 5)(*(ctypes.addressof(x) for x in given))
        sizes = (ctypes.c_uint * 6)(N // columns, M // rows, 1, *(*block, 1, 1)[:3])
        library[f"run_{name}"](places, sizes)
        assert np.array_equal(c, exact), name


def test_times_of_attention() -> None:
    """The lesson quotes the page of the GPU."""
    table = re.search(r"^H200 = (\{.*?^\})", LADDER.read_text(), re.MULTILINE | re.DOTALL)
    assert table
    page = (ROOT / "docs" / "gpu.md").read_text()
    rows = [row.split(" | ") for row in page.splitlines() if row.startswith("| ")]
    times = {tuple(row[1:4:2]) for row in rows if len(row) == 6}
    for forward, backward in ast.literal_eval(table[1]).values():
        assert (f"{forward:.3f} ms", f"{backward:.3f} ms") in times
