"""tensor: n-dimensional arrays with explicit strides, and reverse-mode gradients, from first
principles.

    >>> import tensor
    >>> x = tensor.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    Tensor([2., 4., 6.])

Start reading at memory/layout.py and memory/storage.py, then base.py, graph.py, autograd/plain.py,
and any file of ops/.
"""

# ruff: noqa: F403 (every op and every way to make a tensor is public, by its own name)
import importlib
from typing import TYPE_CHECKING, Any

from tensor import creation, dtypes, errors, kernels, ops, random
from tensor.autograd.backward import grad
from tensor.autograd.recompute import checkpoint
from tensor.creation import *
from tensor.dtypes import bfloat16, float16, float32, float64
from tensor.files import load, save
from tensor.kernels import cpu as _cpu  # noqa: F401 (registers its kernels)
from tensor.memory.freed import keep_freed_memory
from tensor.memory.layout import Layout
from tensor.mode import detect_anomaly, enable_grad, no_grad, set_grad_enabled
from tensor.names import unknown
from tensor.ops import *
from tensor.random import Generator, manual_seed
from tensor.tensor import Tensor
from tensor.warned import name_users_lines

if TYPE_CHECKING:
    from tensor import nn as nn
    from tensor.drawing import draw
    from tensor.recording import record

# loaded at the first use: they take a fifth of the time of an import
LATER = {"draw": "drawing", "nn": "", "record": "recording", "recording": ""}

__version__ = "0.1.0"

keep_freed_memory()
name_users_lines()

__all__ = [
    "Generator",
    "Layout",
    "Tensor",
    "bfloat16",
    "checkpoint",
    "detect_anomaly",
    "draw",
    "dtypes",
    "enable_grad",
    "errors",
    "float16",
    "float32",
    "float64",
    "grad",
    "kernels",
    "load",
    "manual_seed",
    "no_grad",
    "random",
    "record",
    "save",
    "set_grad_enabled",
]
__all__ += creation.__all__
__all__ += ops.__all__


def __dir__() -> list[str]:
    return [*globals(), *LATER]


if not TYPE_CHECKING:  # a type checker would take any name for one of this module

    def __getattr__(name: str) -> Any:
        """What is loaded at the first use: a module, or a function of a module."""
        if name not in LATER:
            raise unknown(__name__, name)
        module = importlib.import_module(f"tensor.{LATER[name] or name}")
        return getattr(module, name) if LATER[name] else module
