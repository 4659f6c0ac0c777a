"""tensor: n-dimensional arrays with explicit strides, and reverse-mode gradients, from first principles.

    >>> import tensor
    >>> x = tensor.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    Tensor([2., 4., 6.])

Start reading at layout.py, then storage.py, core.py, graph.py, autograd.py, and any file of ops/.
"""

from tensor.core import Tensor  # isort: skip (first: core takes its methods from ops, and ops make tensors)

from tensor import dtypes, errors, kernels, ops, random
from tensor.autograd import grad
from tensor.creation import (
    arange,
    empty,
    empty_like,
    eye,
    from_dlpack,
    full,
    full_like,
    ones,
    ones_like,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    tril,
    triu,
    zeros,
    zeros_like,
)
from tensor.drawing import draw
from tensor.dtypes import bfloat16, float16, float32, float64
from tensor.kernels import cpu as _cpu  # noqa: F401 (registers its kernels)
from tensor.kernels import cuda as _cuda  # noqa: F401 (registers its kernels; CuPy stays unimported)
from tensor.layout import Layout
from tensor.memory import keep_freed_memory
from tensor.mode import detect_anomaly, no_grad
from tensor.ops import *  # noqa: F403 (every op is public, by its own name)
from tensor.random import Generator, manual_seed
from tensor.recompute import checkpoint
from tensor.tape import record

__version__ = "0.1.0"

keep_freed_memory()

__all__ = [
    "Generator",
    "Layout",
    "Tensor",
    "arange",
    "bfloat16",
    "checkpoint",
    "detect_anomaly",
    "draw",
    "dtypes",
    "empty",
    "empty_like",
    "errors",
    "eye",
    "float16",
    "float32",
    "float64",
    "from_dlpack",
    "full",
    "full_like",
    "grad",
    "kernels",
    "manual_seed",
    "no_grad",
    "ones",
    "ones_like",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "random",
    "record",
    "tril",
    "triu",
    "zeros",
    "zeros_like",
]
__all__ += ops.__all__
