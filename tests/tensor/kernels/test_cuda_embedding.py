"""Embeddings on a GPU beside float64, for ids of every kind: none twice, all equal, few, many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels
from tensor.memory.devices import Array, cupy
from tensor.ops.op import reference_of
from tests.tensor.kernels.test_cuda_losses import drawn

ROUNDING = {"float64": 1e-14, "float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}
RANDOM = np.random.default_rng(0)
ZIPF = np.minimum(RANDOM.zipf(1.2, 5000) - 1, 999)
IDS = {
    "one": np.zeros((1, 1), int),
    "all equal": np.full((50, 100), 7),
    "each once": RANDOM.permutation(1000).reshape(10, 100),
    "as in texts": ZIPF.reshape(50, 100),
    "runs over edges": np.repeat(np.arange(36), [31, 1, 32, 33, 64, 5, 96, 1, 57] * 4).reshape(
        16, 80
    ),
    "few runs": np.repeat(np.arange(9), [31, 1, 32, 33, 64, 5, 96, 1, 57]).reshape(4, 80),
}


pytestmark = pytest.mark.usefixtures("gpu")


def close(found: Tensor | None, exact: Tensor | None, dtype: str) -> None:
    assert found is not None
    assert exact is not None
    assert str(found.dtype) == dtype
    ours, true = (x.detach().numpy().astype(np.float64) for x in (found, exact))
    np.testing.assert_allclose(ours, true, rtol=ROUNDING[dtype], atol=ROUNDING[dtype] * 8)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("columns", [8, 33, 768])
@pytest.mark.parametrize("name", IDS)
def test_rows_and_their_gradients(name: str, columns: int, dtype: str, device: str) -> None:
    ids = IDS[name]
    table, positions = drawn(1000, columns, dtype=dtype), drawn(120, columns, dtype=dtype, seed=1)
    dy = drawn(*ids.shape, columns, dtype=dtype, seed=2) / 4
    ways = []
    for place, kind in ((device, dtype), ("cpu", "float64")):
        leaves = [
            Tensor(x, dtype=kind, device=place, requires_grad=True)
            for x in (table, table, positions)
        ]
        seed = Tensor(dy, dtype=kind, device=place)
        given = Tensor(ids, dtype="int32" if columns == 8 else "int64", device=place)
        ys = [
            tensor.embedding(given, leaves[0]),
            tensor.positional_embedding(given, *leaves[1:], scale=1.5),
        ]
        for y in ys:
            y.backward(seed)
        ways.append([*ys, *(x.grad for x in leaves)])
        if place == device:
            for op in ("embedding", "positional_embedding"):
                assert kernels.latest(op)[1] == "cuda kernel"
    for ours, true in zip(*ways, strict=True):
        close(ours, true, dtype)


def run(kernel: Any, *arrays: Array) -> Any:
    """A kernel's result, and its gradient functions."""
    return kernel(*(cupy().asarray(array) for array in arrays))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gradient_goes_into_a_buffer_or_is_added_to_it(dtype: str, device: str) -> None:
    from tensor.kernels.cuda import embedding

    ids = Tensor(IDS["as in texts"][:4], device=device).array
    table, positions, dy, start = (
        Tensor(drawn(*shape, dtype=dtype, seed=i), dtype=dtype, device=device).array
        for i, shape in enumerate([(1000, 16), (120, 16), (4, 100, 16), (1000, 16)])
    )
    _, functions = embedding.positional_embedding_by_packs(ids, table, positions, scale=2.0)
    for function, size in ((functions[1], 1000), (functions[2], 120)):
        alone = function(dy)
        for add in (False, True):
            # a buffer that begins on no multiple of 16 bytes
            flat = cupy().full(size * 16 + 1, float("nan"), alone.dtype)
            out = flat[1:].reshape(size, 16)
            if add:
                out[...] = start[:size]
            assert function(dy, out=out, add=add) is out
            wanted = alone.get().astype(np.float64) + add * start[:size].get().astype(np.float64)
            np.testing.assert_allclose(
                out.get().astype(np.float64), wanted, rtol=2e-2, atol=3e-2 if add else 0
            )


def test_ids_outside_the_table_write_nothing(device: str) -> None:
    from tensor.kernels.cuda import embedding

    table = Tensor(drawn(4, 8, dtype="float32"), dtype="float32", device=device).array
    ids = Tensor(np.array([0, -1, 4, 2**40, 3, -(2**40), 3]), device=device).array
    y, (_, dtable) = embedding.embedding_by_packs(ids, table)
    assert np.isnan(y.get()).any(1).tolist() == [False, True, True, True, False, True, False]
    dy = cupy().ones((7, 8), "float32")
    assert dtable(dy).get()[:, 0].tolist() == [1, 0, 0, 2]
    none = Tensor(np.array([-1, 9]), device=device).array
    assert not embedding.embedding_by_packs(none, table)[1][1](dy[:2]).any()


def test_many_ids_of_a_large_table(device: str) -> None:
    """More chunks of positions than one tile each, more ids than one tile."""
    from tensor.kernels.cuda import embedding

    ids = RANDOM.integers(0, 5000, 40000)
    ids[RANDOM.random(40000) < 0.3] = 17
    table, dy = np.zeros((5000, 4), np.float32), RANDOM.standard_normal((40000, 4))
    _, (_, dtable) = run(embedding.embedding_by_packs, ids, table)
    exact = reference_of("embedding")(ids, table.astype(np.float64))[1][1](dy)
    found = [dtable(cupy().asarray(dy, dtype="float32")).get() for _ in range(2)]
    np.testing.assert_allclose(found[0], exact, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(*found)
