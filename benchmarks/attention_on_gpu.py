"""Attention on a GPU: are the versions by hand right, and how fast is each beside cuDNN?

    python benchmarks/attention_on_gpu.py --shapes 500     # random shapes, then times
    python benchmarks/attention_on_gpu.py --shapes 0 --tune
    python benchmarks/attention_on_gpu.py --shapes 0 --no-times --memory   # of a step of GPT-2

Operations are counted for the pairs of a query and a key that it sees: 4 D forward, 10 D backward.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
import gpu_decoding
import gpu_memory
from gpu_decoding import chosen

import tensor
from tensor import Tensor, kernels
from tensor.dtypes import as_dtype
from tensor.kernels.cuda.attention import by_cudnn, by_hand
from tensor.kernels.cuda.attention.versions import (
    FEW_QUERIES,
    MANY_KEYS,
    Tiling,
    Version,
    decoding,
    plain,
    tensor_cores,
    tiles,
)
from tensor.kernels.cuda.launch import Source
from tensor.memory.devices import cupy, move, to_host
from tests.helpers.attention_cases import UNITS, WIDTHS, errors, random_example

VERSIONS = plain, tiles, tensor_cores
# the fastest first: it matters most
CHECKED = {version.__name__: version for version in (tensor_cores, decoding, tiles, plain)}
FEW_WIDTHS = [64, 64, 32, 128, 20]  # of heads, for decoding
NARROW = ["bfloat16", "float16"]
# B, H, T, S, D, causal
SHAPES = [
    (32, 12, 1024, 1024, 64, True),
    (32, 12, 1024, 1024, 64, False),
    (16, 12, 1024, 1024, 128, True),
    (128, 12, 256, 256, 64, True),
    (4, 12, 8192, 8192, 64, True),
    (32, 12, 512, 1024, 64, True),
    (32, 12, 1024, 1024, 32, True),
]


# -- are they right?


def dtypes_of(version: Callable[..., Version]) -> list[str]:
    return NARROW if version is tensor_cores else ["float32", "float64", *NARROW]


def compile_all(names: list[str]) -> None:
    """Every case of these versions that `check` may draw, on all cores."""
    start = time.perf_counter()

    def compiled(case: tuple[Any, ...]) -> None:
        version, dtype, *options = case
        made = version(as_dtype(dtype), *options)
        source, width = (made.source, made.width) if made.split is None else made.split[::2]
        source._module(as_dtype(dtype), width).get_function("attention_totals")

    masks = list(product((False, True), (False, True)))
    cases: list[tuple[Any, ...]] = [
        (version, dtype, D, *mask)
        for version in {CHECKED[name] for name in names} - {decoding}
        for dtype, D, mask in product(dtypes_of(version), set(WIDTHS), masks)
        if version is not tensor_cores or D % 16 == 0
    ]
    few = (1, 4) if decoding.__name__ in names else ()
    for dtype, D, mask, queries in product(dtypes_of(decoding), set(FEW_WIDTHS), masks, few):
        chunk = 16 // as_dtype(dtype).itemsize
        cases.append((decoding, dtype, D, *mask, tiles, queries, chunk if D % chunk == 0 else 1))
    with ThreadPoolExecutor() as pool:
        list(pool.map(compiled, cases))
    print(f"{len(cases)} cases compiled in {time.perf_counter() - start:.0f} s", flush=True)


def check(version: Callable[..., Version], count: int, longest: int) -> int:
    """Random shapes against the reference; how many were wrong."""
    dtypes = dtypes_of(version)
    rng = np.random.default_rng(1)
    wrong, worst, start = 0, dict.fromkeys(dtypes, 0.0), time.perf_counter()
    # heads that tensor cores refuse are given to tiles, and the choice fits decoding to its case
    with chosen(None if version in (tensor_cores, decoding) else version):
        for _ in range(count):
            widths = FEW_WIDTHS if version is decoding else WIDTHS
            example = random_example(rng, dtypes, longest, widths)
            if version is decoding:
                few = int(rng.integers(1, FEW_QUERIES + 1))
                example = example._replace(T=few, S=max(MANY_KEYS, example.S))
            try:
                with tensor.no_grad():  # as decoding is
                    there, gradients = partial(move, device="cuda"), version is not decoding
                    error = errors(example, there, to_host, gradients)
            except Exception as failure:
                error = float("inf")
                print(f"{type(failure).__name__}: {str(failure)[:300]}")
            worst[example.dtype] = max(worst[example.dtype], error)
            if not error <= UNITS[example.dtype]:
                wrong += 1
                print(f"WRONG {version.__name__} {error:.1e} {example}")
    found = "  ".join(f"{dtype} {error:.1e}" for dtype, error in worst.items())
    seconds = time.perf_counter() - start
    print(f"{version.__name__}: {wrong} of {count} wrong; largest errors {found}; {seconds:.0f} s")
    return wrong


def against_the_composition() -> None:
    """Error against float64, root mean square, beside that of the composition in the same dtype."""
    for dtype in (*NARROW, "float32"):
        for T, D, causal in ((1000, 64, True), (300, 128, False)):
            x = np.random.default_rng(0).standard_normal((2, T, 3 * 2 * D)).astype(np.float32)
            x = x.astype(as_dtype(dtype)).astype(np.float32)
            call = partial(tensor.multi_head_attention, heads=2, causal=causal)
            exact = both(call, x, "float64", on=False)
            ours, theirs = (both(call, x, dtype, on=on) for on in (True, False))
            ratios = [rms(a - c) / rms(b - c) for a, b, c in zip(ours, theirs, exact, strict=True)]
            print(
                f"error / composition's: {dtype} T {T} D {D}: y {ratios[0]:.2f} dx {ratios[1]:.2f}"
            )


def both(call: Any, x: Any, dtype: str, on: bool) -> list[Any]:
    """y and dx in float64."""
    at = Tensor(x, dtype=dtype, device="cuda", requires_grad=True)
    with kernels.deterministic() if on else kernels.off():
        y = call(at)
        dy = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
        dx = tensor.grad(y, at, Tensor(dy, dtype=dtype, device="cuda"))[0]
    if on:
        assert kernels.latest("multi_head_attention")[0] == "attention_by_hand"
    return [one.to("float64").numpy() for one in (y, dx)]


def rms(x: Any) -> float:
    return float(np.sqrt(np.mean(x**2)))


# -- how fast are they?


def milliseconds(call: Callable[[], Any], turns: int = 7) -> float:
    """The median of single calls, by events on the stream."""
    cuda = cupy().cuda
    call()
    times = []
    for _ in range(turns):
        start, end = cuda.Event(), cuda.Event()
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(cuda.get_elapsed_time(start, end))
    return float(np.median(times))


def teraflops(shape: tuple[Any, ...], factor: int, ms: float) -> float:
    B, H, T, S, D, causal = shape
    seen = np.clip(np.arange(T) + 1 + S - T, 0, S).sum() if causal else T * S
    return float(factor * D * B * H * seen / ms / 1e9)


def inputs_of(shape: tuple[Any, ...], dtype: str) -> tuple[list[Any], Any]:
    """q or q, kv; dy"""
    B, H, T, S, D, _ = shape
    C = H * D
    sizes = [(B, T, 3 * C)] if T == S else [(B, T, C), (B, S, 2 * C)]
    drawn = (tensor.randn(*size, dtype=dtype, device="cuda") for size in (*sizes, (B, T, C)))
    *given, dy = [x.array for x in drawn]
    return given, dy


def report(name: str, shape: tuple[Any, ...], dtype: str, kernel: Callable[..., Any]) -> None:
    given, dy = inputs_of(shape, dtype)
    options = {"heads": shape[1], "causal": shape[5]}
    forward = milliseconds(lambda: kernel(*given, **options))
    _, backward_of = kernel(*given, **options)
    backward = milliseconds(lambda: backward_of(dy))
    rates = teraflops(shape, 4, forward), teraflops(shape, 10, backward)
    print(
        f"{name:24} {dtype:9} {shape!s:36} forward {forward:8.3f} ms {rates[0]:6.1f} TFLOP/s   "
        f"backward {backward:8.3f} ms {rates[1]:6.1f} TFLOP/s",
        flush=True,
    )


def attempt(name: str, shape: tuple[Any, ...], dtype: str, kernel: Callable[..., Any]) -> None:
    try:
        report(name, shape, dtype, kernel)
    except Exception as failure:
        print(f"{name} {shape}: {type(failure).__name__}: {str(failure)[:300]}", flush=True)


def times() -> None:
    for shape in SHAPES:
        attempt("cudnn", shape, "bfloat16", by_cudnn.attention_by_cudnn)
        with kernels.deterministic():
            attempt("cudnn, deterministic", shape, "bfloat16", by_cudnn.attention_by_cudnn)
        for version in VERSIONS[::-1]:
            if version is not plain or shape == SHAPES[0]:
                with chosen(version):
                    attempt(version.__name__, shape, "bfloat16", by_hand.attention_by_hand)
        torch_attention(shape)
    for version in (tiles, plain):
        with chosen(version):
            attempt(version.__name__, SHAPES[0], "float32", by_hand.attention_by_hand)
    with chosen(tensor_cores):
        options: Any = {"dropout": 0.1, "key": tensor.random.Key(1)}
        dropped = partial(by_hand.attention_by_hand, **options)
        attempt("tensor_cores, dropout", SHAPES[0], "bfloat16", dropped)


def host_time() -> None:
    """Microseconds of the host for a call, with nothing to wait for."""
    given, dy = inputs_of((2, 4, 64, 64, 64, True), "bfloat16")
    options: Any = {"heads": 4, "causal": True}
    for name, supports, kernel in (
        ("cudnn", by_cudnn._supports_packed, by_cudnn.attention_by_cudnn),
        ("by hand", by_hand.supports_packed, by_hand.attention_by_hand),
    ):
        if said := supports(*given, **options):
            print(f"{name}: {said}")
            continue
        _, backward = kernel(*given, **options)
        calls = partial(supports, *given, **options), partial(kernel, *given, **options)
        spent = []
        for call in (*calls, partial(backward, dy)):
            call()
            cupy().cuda.Device().synchronize()
            start = time.perf_counter()
            for _ in range(100):
                call()
            spent.append((time.perf_counter() - start) * 1e4)
        took = ", ".join(f"{one:.1f}" for one in spent)
        print(f"{name}: host us of supports, forward, backward: {took}")


def torch_attention(shape: tuple[Any, ...]) -> None:
    """PyTorch's flash attention, where PyTorch is installed."""
    try:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:
        return
    B, H, T, S, D, causal = shape
    if causal and T != S:
        return  # it would align the diagonal at the top left
    q, k, v = (
        torch.randn(B, n, H, D, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
        for n in (T, S, S)
    )
    call = partial(torch.nn.functional.scaled_dot_product_attention, is_causal=causal)
    for x in (q, k, v):
        x.requires_grad_()

    def timed(call: Callable[[], Any]) -> float:
        found = []
        for _ in range(8):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            found.append(start.elapsed_time(end))
        return float(np.median(found[1:]))

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        forward = timed(lambda: call(q, k, v))
        y = call(q, k, v)
        dy = torch.randn_like(y)
        backward = timed(lambda: torch.autograd.grad(y, (q, k, v), dy, retain_graph=True))
    rates = teraflops(shape, 4, forward), teraflops(shape, 10, backward)
    print(
        f"{'torch flash':24} {'bfloat16':9} {shape!s:36} forward {forward:8.3f} ms "
        f"{rates[0]:6.1f} TFLOP/s   backward {backward:8.3f} ms {rates[1]:6.1f} TFLOP/s",
        flush=True,
    )


def tune() -> None:
    """With 16 and 32 rows a warp, and with fewer registers a thread."""
    for shape, M, blocks in product(SHAPES[:3], (1, 2), (2, 3)):
        version: Any = partial(tensor_cores, M=M, blocks=blocks)
        with chosen(version):
            name = f"M {M} blocks {blocks}"
            attempt(name, shape, "bfloat16", by_hand.attention_by_hand)


def resources() -> None:
    """Lines of code, and of each kernel the registers, spilled bytes, shared memory and blocks at
    once.
    """
    for version in VERSIONS:
        made = version(as_dtype("bfloat16"), 64, False, False)
        print(f"{version.__name__}: {lines_of(made.source)} lines, headers included")
    split = decoding(as_dtype("bfloat16"), 64, False, False).split
    assert split is not None
    print(f"decoding: {lines_of(split.source)} lines, headers included")
    for version, dtype in ((plain, "bfloat16"), (tiles, "float32"), (tensor_cores, "bfloat16")):
        for D in (32, 64, 128):
            made = version(as_dtype(dtype), D, False, False)
            for kernel in ("forward", "dq", "dkv"):
                name = f"attention_{made.name}_{kernel}"
                describe(made.source, name, dtype, D, getattr(made, kernel), made.width)
    for D, queries in product((64, 128), (1, 4)):
        split = decoding(as_dtype("bfloat16"), D, False, False, tiles, queries, 8).split
        assert split is not None
        for kernel in ("parts", "join"):
            name = f"attention_decoding_{kernel}"
            describe(split.source, name, "bfloat16", D, Tiling(queries, 128), split.width)


def lines_of(source: Source) -> int:
    """Lines that are neither empty nor a comment."""
    lines = map(str.strip, source.text.splitlines())
    return sum(bool(line) and not line.startswith(("//", "#line")) for line in lines)


def describe(source: Source, name: str, dtype: str, D: int, tiling: Tiling, width: int = 1) -> None:
    function = source._module(as_dtype(dtype), width).get_function(name)
    function.max_dynamic_shared_size_bytes = max(tiling.shared, 48 * 1024)
    blocks = cupy().cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(
        function.kernel.ptr, tiling.threads, tiling.shared
    )
    print(
        f"{name:26} {dtype:9} D {D:3}, tile of {tiling.rows:3}: {function.num_regs:3} registers, "
        f"{function.local_size_bytes:5} bytes of local memory, {tiling.shared:6} shared, {blocks} "
        f"blocks of {tiling.threads} threads"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", type=int, default=500, help="random shapes of each version")
    parser.add_argument("--versions", nargs="+", choices=CHECKED, default=[*CHECKED])
    parser.add_argument("--longest", type=int, default=400, help="of their queries and keys")
    parser.add_argument("--no-times", action="store_true")
    parser.add_argument("--memory", action="store_true", help="of a step with more and more tokens")
    parser.add_argument("--tune", action="store_true", help="time other tiles too")
    options = parser.parse_args()
    wrong = 0
    if options.shapes:
        compile_all(options.versions)
        for name in options.versions:
            wrong += check(CHECKED[name], options.shapes, options.longest)
    if not options.no_times:
        against_the_composition()
        resources()
        host_time()
        gpu_decoding.measure()
        times()
    if options.tune:
        tune()
    if options.memory:
        gpu_memory.measure()
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
