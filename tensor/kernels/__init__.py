"""Kernels: faster stand-ins for whole ops, and why one was or was not taken.

A kernel has the signature of the op's reference, `(arrays, **options) -> (y, backward)`, and must
give the same values and gradients: to rounding where they are finite, and NaN and infinities in the
same places. (Only where finite numbers overflow in the middle of a sum may the two differ: there
the order of the sum decides.) Where a kernel meets values that it cannot treat it returns
NotImplemented, and the reference runs.

    @kernel_for("layer_norm", device="cuda", supports=lambda x, gain, bias, **_: None if x.shape[-1]
    % 8 == 0 else "...")

Off switches: the environment variable TENSOR_KERNELS=off, `with kernels.off():`, and `with
kernels.off("layer_norm"):`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tensor.errors import OptionError
from tensor.kept_inputs import note_kept_inputs
from tensor.memory.devices import WHEN_CUPY_IS_USED, Array, is_cuda
from tensor.mode import MODE, Switch, switch


class Kernel(NamedTuple):
    """A kernel: `supports(*arrays, **options)` returns None, or a sentence that says why not.

    reason: for which the kernel is taken, said by `explain`
    """

    device: str
    function: Callable[..., Any]
    supports: Callable[..., str | None]
    reason: str = ""


KERNELS: dict[str, list[Kernel]] = {}
NOTES: list[str] = []  # lines that `explain` adds: what is not as usual, though kernels run
_DISABLED = os.environ.get("TENSOR_KERNELS", "on").lower() in ("off", "0", "no", "false")
_TAKEN = {"cpu": "cpu kernel", "cuda": "cuda kernel"}
_last: dict[str, tuple[str, str]] = {}  # op -> what its latest call took, and why


def load_cuda() -> None:
    """Register the kernels of the GPU. To load them takes 20 ms, which others need not wait for."""
    importlib.import_module("tensor.kernels.cuda.generation")  # which loads all others


WHEN_CUPY_IS_USED.append(load_cuda)


def kernel_for(
    name: str, *, supports: Callable[..., str | None], device: str = "cpu", reason: str = ""
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the kernel of op `name` on "cpu" or "cuda"."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        KERNELS.setdefault(name, []).append(Kernel(device, function, supports, reason))
        note_kept_inputs(function)
        return function

    return register


def choose(
    name: str,
    kernels: Sequence[Kernel],
    arrays: Sequence[Array],
    options: dict[str, Any],
    off: frozenset[str],
) -> Callable[..., Any] | None:
    """The first kernel that takes these very arrays, None for the reference. The reason is kept for
    `explain`.
    """
    on_cpu = not arrays or type(arrays[0]) is np.ndarray or not any(map(is_cuda, arrays))
    device = "cpu" if on_cpu else "cuda"
    if _DISABLED or "*" in off or name in off:
        reason = "kernels are off" if name not in off else "this kernel is off"
        if kernels and not any(kernel.device == device for kernel in kernels):
            reason = f"no kernel for {device}"
        _last[name] = "reference", reason
        return None
    refusals = []
    for kernel in kernels:
        if kernel.device == device:
            refusal = kernel.supports(*arrays, **options)
            if refusal is None:
                _last[name] = kernel.function.__name__, kernel.reason or _TAKEN[device]
                return kernel.function
            refusals.append(refusal)
    _last[name] = "reference", "; ".join(refusals) or f"no kernel for {device}"
    return None


def pick(name: str, *arrays: Any, **options: Any) -> Callable[..., Any] | None:
    """The kernel of that name for these arrays, for what is no op; None for the reference."""
    return choose(name, KERNELS.get(name, ()), arrays, options, MODE.get().kernels_off)


def passed_over(name: str, reason: str, off: frozenset[str]) -> None:
    """Note for `explain` that op `name` ran as its reference though no kernel refused, and why."""
    if not (_DISABLED or "*" in off or name in off):
        _last[name] = "reference", reason
    else:
        choose(name, (), (), {}, off)  # which says that they are off


def latest(name: str) -> tuple[str, str]:
    """What the latest call of an op took, "reference" or the kernel's name, and why."""
    return _last.get(name, ("reference", "not called yet"))


def forget() -> None:
    """Let `latest` and `explain` know only the calls from now on."""
    _last.clear()


def all_off() -> bool:
    """Whether no kernel may run just now."""
    return _DISABLED or "*" in MODE.get().kernels_off


@switch
def off(*names: str) -> Switch[None]:
    """`with kernels.off():` runs the references of all ops, `with kernels.off("gelu", ...):` of
    those named. Also a decorator.
    """
    if not KERNELS.keys() >= set(names):
        load_cuda()  # some names are of kernels for a GPU alone
    unknown = [name for name in names if name not in KERNELS]
    if unknown:
        raise OptionError(f"no op is named {unknown[0]!r}")
    return Switch(kernels_off=frozenset(names or ("*",)))


@switch
def tf32() -> Switch[None]:
    """`with kernels.tf32():` matrix products of float32 on a GPU run in TF32: operands are rounded
    to 11 bits, sums are float32. About eight times as fast, and off otherwise. Also a decorator.
    """
    return Switch(tf32=True)


@switch
def deterministic() -> Switch[None]:
    """`with kernels.deterministic():` equal inputs give equal bits also where a kernel is faster
    without: attention by cuDNN. Decided in the forward pass. Also a decorator.
    """
    return Switch(deterministic=True)


def disabled() -> bool:
    """Whether the environment turns all kernels off: TENSOR_KERNELS=off."""
    return _DISABLED


def explain() -> str:
    """A table: each op that has kernels, what its latest call took, and the reason. Then what is
    not as usual here.
    """
    rows = [("op", "implementation", "reason")]
    rows += [
        (name, *_last.get(name, ("-", "not called yet")))
        for name in sorted(KERNELS)
        if KERNELS[name]
    ]
    names, takers, _ = zip(*rows, strict=True)
    first, second = max(map(len, names)), max(map(len, takers))
    lines = [f"{op:{first}}  {taken:{second}}  {reason}" for op, taken, reason in rows]
    return "\n".join([*lines, *NOTES])
