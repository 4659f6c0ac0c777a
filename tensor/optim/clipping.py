"""Clipping by the global norm.      Pascanu et al. 2013, algorithm 1"""

from __future__ import annotations

import math

import numpy as np

from tensor.dtypes import NARROW, float32
from tensor.errors import ArgumentError, OptionError, brief
from tensor.kernels import pick
from tensor.memory.devices import Array, is_cuda
from tensor.mode import watched
from tensor.nn.module import Module
from tensor.optim.groups import Parameters, named_in
from tensor.optim.optimizer import Optimizer
from tensor.tensor import Tensor


@brief
def gradient_norm(parameters: Parameters | Optimizer) -> float:
    """sqrt of the sum of all squared gradient elements, of all parameters together; a tied one
    counts once. 0 without gradients.
    """
    return _norm(_gradients("gradient_norm", parameters))


def _norm(arrays: list[Array]) -> float:
    return math.sqrt(sum(map(_squared, arrays)))


@brief
@watched
def clip_gradients(parameters: Parameters | Optimizer, limit: float) -> float:
    """Scale all gradients by limit / norm where the global norm is above the limit; returns the
    norm before.

    A norm that is not finite is returned and nothing is scaled (it would spread the NaN): the
    caller skips that step. Raises ValueError for a limit that is negative or NaN.
    """
    _check_limit("clip_gradients", limit)
    arrays = _gradients("clip_gradients", parameters)
    norm = _norm(arrays)
    if math.isfinite(norm) and norm > limit:
        for array in arrays:
            kernel = pick("scale", array, limit / norm)
            if kernel:
                kernel(array, limit / norm)
            else:
                array *= limit / norm
    return norm


@brief
def clipped_step(optimizer: Optimizer, limit: float) -> float | Tensor:
    """`clip_gradients` and `optimizer.step()`, which a norm that is not finite skips. Returns the
    norm before. With a loss scale, the norm and the limit are those of the true gradients, and the
    scale is adapted.

    On a GPU, AdamW's kernel clips on its way, so that `.grad` stays as it is, and nothing waits:
    the norm is a tensor, () float64, and to read it waits. The same holds for the step counts.
    """
    if not isinstance(optimizer, Optimizer):
        raise ArgumentError(
            f"clipped_step takes an optimiser, such as AdamW(model), not a "
            f"{type(optimizer).__name__}: it clips and updates in one"
        )
    _check_limit("clipped_step", limit)
    on_device = is_cuda(optimizer.flats[0].weights.array)
    norm_there = optimizer.clipped_on_device(limit) if on_device else None
    if norm_there is not None:
        return Tensor.from_array(norm_there)
    scale = 1.0 if optimizer.loss_scale is None else optimizer.loss_scale.value
    norm = clip_gradients(optimizer, limit * scale) / scale
    if math.isfinite(norm):
        optimizer.step()
    if optimizer.loss_scale is not None:
        optimizer.loss_scale.adapt(math.isfinite(norm))
    return norm


def _check_limit(function: str, limit: float) -> None:
    if not limit >= 0:  # NaN too
        raise OptionError(f"{function} limit={limit}: a norm is at least 0; infinity clips nothing")


def _gradients(function: str, parameters: Parameters | Optimizer) -> list[Array]:
    """The gradients as few arrays: whole flat storages where every parameter in one has its
    gradient, else one by one.
    """
    if isinstance(parameters, Optimizer) or (isinstance(parameters, Module) and parameters.packed):
        arrays: list[Array] = []
        for flat in parameters.flats:
            reached = flat.reached()
            whole = len(reached) == len(flat.slots)
            found = [flat.gradients] if whole else [slot.parameter.grad for slot in reached]
            arrays += [gradient.array for gradient in found]
        return arrays
    given = [parameters] if isinstance(parameters, Tensor) else parameters
    tensors = (parameter for _, parameter in named_in(function, given))
    return [p.grad.array for p in tensors if p.requires_grad and p.grad is not None]


def _squared(g: Array) -> float:
    """Sum of squares, in float64: that of a float32 overflows from 2e19 on."""
    kernel = pick("squared_norm", g)
    if kernel:
        return float(kernel(g))
    flat = g.reshape(-1)
    flat = flat.astype(float32) if flat.dtype in NARROW else flat
    if not isinstance(flat, np.ndarray):
        return float(flat.dot(flat))
    stretches = (
        part.astype(np.float64, copy=False)
        for part in np.split(flat, range(65536, flat.size, 65536))
    )
    return float(sum(float(part @ part) for part in stretches))
