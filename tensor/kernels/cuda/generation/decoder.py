"""A decoder as the kernels of generation take it: its parameters in the order of their use."""

from __future__ import annotations

from typing import Any, NamedTuple

from tensor.dtypes import DType, bfloat16, float16, float32, int8
from tensor.kernels.cuda.cublaslt import unavailable
from tensor.kernels.cuda.launch import contiguous, empty
from tensor.kernels.cuda.products import product
from tensor.memory.devices import Array, cupy

TYPES = (bfloat16, float16, float32)
PRODUCTS = "qkv", "project", "expand", "contract"  # of a block
ALIGNED = 64  # numbers


class Weight(NamedTuple):
    """w = scale q of a product. Without a scale, q is w itself.

    q: (inputs, outputs), int8 where there is a scale   scale: (outputs,), float32
    A head that lies as the token table has q (outputs, inputs) and scale (outputs, 1).
    """

    q: Array
    scale: Array | None = None

    def widened(self, dtype: DType) -> Array:
        """w, in that dtype"""
        return self.q if self.scale is None else (self.q * self.scale).astype(dtype)


class Block(NamedTuple):
    """The parameters of a block in the order of their use. A bias may be missing."""

    norm: Array
    norm_bias: Array
    qkv: Weight
    qkv_bias: Array | None
    project: Weight
    project_bias: Array | None
    norm2: Array
    norm2_bias: Array
    expand: Weight
    expand_bias: Array | None
    contract: Weight
    contract_bias: Array | None


class Decoder(NamedTuple):
    """A decoder's parameters and choices.   tied: the head lies as the token table, (V, C)"""

    tokens: Array
    positions: Array
    blocks: list[Block]
    norm: Array
    norm_bias: Array
    head: Weight
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
        head = self.head.widened(self.dtype)
        if self.tied:
            head = head.T
        product(h, head, logits[:, : head.shape[1]])  # (C, V), or (C, pitch)
        return logits

    def widened(self) -> Decoder:
        """The same with all weights in `dtype`. Many texts share the time of reading the weights,
        and gain nothing from 8 bits.
        """
        blocks = []
        for block in self.blocks:
            weights = {name: Weight(getattr(block, name).widened(self.dtype)) for name in PRODUCTS}
            blocks.append(block._replace(**weights))
        return self._replace(blocks=blocks, head=Weight(self.head.widened(self.dtype)))

    def padded(self) -> Decoder:
        """The same with `pitch` outputs of the head: cuBLASLt takes five times as long where their
        number is odd.
        """
        if self.pitch == self.vocabulary:
            return self
        shape = (self.pitch, self.width) if self.tied else (self.width, self.pitch)
        head = cupy().zeros(shape, self.dtype)
        given = self.head.widened(self.dtype)
        head[: given.shape[0], : given.shape[1]] = given
        return self._replace(head=Weight(head))

    @property
    def dtype(self) -> DType:
        """That of all parameters but weights of 8 bits."""
        dtype: DType = self.tokens.dtype
        return dtype


def refusal(
    *parameters: Array, heads: int, pre_norm: bool, activation: str, **_: Any
) -> str | None:
    """Why the kernels do not take this decoder; None where they do."""
    dtype, C = parameters[0].dtype, parameters[0].shape[1]
    weights = {x.dtype for x in parameters[2:-1] if x.ndim == 2}  # also of a head of its own
    others = {x.dtype for x in parameters} - weights
    if dtype not in TYPES or others - {dtype} or weights not in ({dtype}, {int8}):
        found = ", ".join(sorted(map(str, weights | others)))
        return (
            f"dtype {found}: one of bfloat16, float16, float32 is needed for all parameters, or "
            "int8 for all weights of products"
        )
    if int8 in weights and C % 16:
        return f"{C} channels with weights of 8 bits: a multiple of 16 is needed"
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


def weight_of(w: Array, scale: Array) -> Weight:
    """The weight of a block from w (inputs, outputs); or from q (outputs, inputs), as a copy that
    lies as w does.
    """
    if w.dtype != int8:
        return Weight(w)
    return Weight(contiguous(w.T), as_float32(scale))


def as_float32(scale: Array) -> Array:
    """Scales as the kernels take them: a model that moves to 16 bits takes its scales along."""
    return scale.astype(float32, copy=False)


def decoder_of(
    *parameters: Array,
    scales: tuple[Array, ...],
    heads: int,
    activation: str,
    biases: bool,
    tied: bool,
    eps: float,
    scale: float,
    **_: Any,
) -> Decoder:
    """The decoder of these parameters and scales, which lie as `decode_in_one_call` takes them."""
    size = len(Block._fields)
    ends = range(2, 2 + (len(parameters) - 5) // size * size, size)
    blocks = []
    for start in ends:
        block, of_block = (Block(*x[start : start + size]) for x in (parameters, scales))
        for name in PRODUCTS:
            weight = weight_of(getattr(block, name), getattr(of_block, name))
            block = block._replace(**{name: weight})
        blocks.append(block)
    if not biases:  # another array stands in the bias's place
        none: dict[str, Any] = dict.fromkeys(f"{name}_bias" for name in PRODUCTS)
        blocks = [block._replace(**none) for block in blocks]
    end = 2 + len(blocks) * size
    norm, norm_bias, w = parameters[end : end + 3]
    rounded = w.dtype == int8  # and lies as the token table
    head = Weight(w, as_float32(scales[end + 2])[:, None] if rounded else None)
    tokens, positions, relu = *parameters[:2], activation == "relu"
    last = norm, norm_bias, head
    return Decoder(tokens, positions, blocks, *last, heads, relu, tied or rounded, eps, scale)
