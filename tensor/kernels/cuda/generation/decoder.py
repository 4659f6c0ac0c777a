"""A decoder as the kernels of generation take it: its parameters in the order of their use."""

from __future__ import annotations

from typing import Any, NamedTuple

from tensor.dtypes import DType, bfloat16, float16, float32
from tensor.kernels.cuda.cublaslt import unavailable
from tensor.kernels.cuda.launch import empty
from tensor.kernels.cuda.products import product
from tensor.memory.devices import Array, cupy

TYPES = (bfloat16, float16, float32)
PRODUCTS = "qkv", "project", "expand", "contract"  # of a block
ALIGNED = 64  # numbers


class Block(NamedTuple):
    """The parameters of a block in the order of their use. A bias may be missing."""

    norm: Array
    norm_bias: Array
    qkv: Array
    qkv_bias: Array | None
    project: Array
    project_bias: Array | None
    norm2: Array
    norm2_bias: Array
    expand: Array
    expand_bias: Array | None
    contract: Array
    contract_bias: Array | None


class Decoder(NamedTuple):
    """A decoder's parameters and choices."""

    tokens: Array
    positions: Array
    blocks: list[Block]
    norm: Array
    norm_bias: Array
    head: Array
    heads: int
    relu: bool
    tied: bool
    eps: float
    scale: float

    @property
    def width(self) -> int:
        """C"""
        return int(self.tokens.shape[1])

    @property
    def vocabulary(self) -> int:
        """V"""
        return len(self.tokens)

    @property
    def pitch(self) -> int:
        """The numbers from a row of logits to the next one."""
        return -(-self.vocabulary // ALIGNED) * ALIGNED

    def logits(self, h: Array) -> Array:
        """The head.   h: (rows, C)   logits: (rows, pitch), float32, of which the first V columns
        count
        """
        logits = empty((len(h), self.pitch), float32)
        head = self.head.T if self.tied else self.head  # (C, V), or (C, pitch)
        product(h, head, logits[:, : head.shape[1]])
        return logits

    def padded(self) -> Decoder:
        """The same with `pitch` outputs of the head: cuBLASLt takes five times as long where their
        number is odd.
        """
        if self.pitch == self.vocabulary:
            return self
        shape = (self.pitch, self.width) if self.tied else (self.width, self.pitch)
        head = cupy().zeros(shape, self.dtype)
        head[: self.head.shape[0], : self.head.shape[1]] = self.head
        return self._replace(head=head)

    @property
    def dtype(self) -> DType:
        """That of all parameters."""
        dtype: DType = self.tokens.dtype
        return dtype


def refusal(
    *parameters: Array, heads: int, pre_norm: bool, activation: str, **_: Any
) -> str | None:
    """Why the kernels do not take this decoder; None where they do."""
    dtype, C = parameters[0].dtype, parameters[0].shape[1]
    if dtype not in TYPES or any(x.dtype != dtype for x in parameters):
        found = ", ".join(sorted({str(x.dtype) for x in parameters}))
        return f"dtype {found}: one of bfloat16, float16, float32 is needed for all parameters"
    if not pre_norm:
        return "norms that come after a layer"
    if activation not in ("gelu", "relu"):
        return f"activation {activation}"
    pack, D = 16 // dtype.itemsize, C // heads
    if D % pack or 32 * pack < D:
        return f"heads of {D} numbers: a multiple of {pack} up to {32 * pack} is needed"
    if any(not x._c_contiguous or x.data.ptr % 16 for x in parameters):
        return "a parameter that is not row-major from a multiple of 16 bytes on"
    return unavailable()


def decoder_of(
    *parameters: Array,
    heads: int,
    activation: str,
    biases: bool,
    tied: bool,
    eps: float,
    scale: float,
    **_: Any,
) -> Decoder:
    """The decoder of these parameters, which lie as `decode_in_one_call` takes them."""
    size = len(Block._fields)
    ends = range(2, 2 + (len(parameters) - 5) // size * size, size)
    blocks = [Block(*parameters[start : start + size]) for start in ends]
    if not biases:  # the weight stands in the bias's place
        none = dict.fromkeys(f"{name}_bias" for name in PRODUCTS)
        blocks = [block._replace(**none) for block in blocks]
    norm, norm_bias, head = parameters[2 + len(blocks) * size :][:3]
    tokens, positions, relu = *parameters[:2], activation == "relu"
    last = norm, norm_bias, head
    return Decoder(tokens, positions, blocks, *last, heads, relu, tied, eps, scale)
