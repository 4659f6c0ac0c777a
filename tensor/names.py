"""Names of PyTorch and NumPy, and what to write here: an error answers them.

In the answers x and y are tensors of one shape, a and b square matrices, v and w vectors, ids
integers and p probabilities.
"""

from __future__ import annotations

import inspect
from typing import Any

from tensor.errors import ArgumentError, brief

# name there -> code here, that does the same
HERE = {
    # shapes and memory
    "numel": "x.size",
    "nelement": "x.size",
    "dim": "x.ndim",
    "ndimension": "x.ndim",
    "stride": "x.strides",
    "storage_offset": "x.offset",
    "element_size": "x.dtype.itemsize",
    "itemsize": "x.dtype.itemsize",
    "nbytes": "x.size * x.dtype.itemsize",
    "t": "a.T",
    "H": "a.T",
    "adjoint": "a.mT",
    "swapaxes": "x.transpose(0, 1)",
    "swapdims": "x.transpose(0, 1)",
    "moveaxis": "x.permute(1, 0)",
    "movedim": "x.permute(1, 0)",
    "ravel": "x.flatten()",
    "view_as": "x.view(*y.shape)",
    "reshape_as": "x.reshape(*y.shape)",
    "expand_as": "v.expand(*x.shape)",
    "broadcast_to": "v.expand(2, 3)",
    "expand_dims": "x.unsqueeze(0)",
    "newaxis": "x[:, None]",
    "unflatten": "x.view(2, 3, 1)",
    "narrow": "x[:, 1:3]",
    "select": "x[:, 0]",
    "index_select": "x[ids]",
    "take": "x[ids]",
    "take_along_axis": "x.gather(ids[None, :1].expand(2, 1), axis=1)",
    "take_along_dim": "x.gather(ids[None, :1].expand(2, 1), axis=1)",
    "masked_select": "x[x > 0]",
    "flip": "x[::-1]",
    "fliplr": "x[:, ::-1]",
    "flipud": "x[::-1]",
    "flatnonzero": "np.flatnonzero(x.numpy())",
    "nonzero": "np.nonzero(x.numpy())",
    "argwhere": "np.argwhere(x.numpy())",
    "unbind": "tuple(x)",
    "cat": "tensor.concatenate([x, y])",
    "concat": "tensor.concatenate([x, y])",
    "hstack": "tensor.concatenate([x, y], axis=1)",
    "vstack": "tensor.concatenate([x, y], axis=0)",
    "column_stack": "tensor.concatenate([x, y], axis=1)",
    "row_stack": "tensor.concatenate([x, y], axis=0)",
    "dstack": "tensor.stack([x, y], axis=2)",
    "repeat_interleave": "x[[0, 0, 1, 1]]",
    "tile": "tensor.concatenate([x, x])",
    "repeat": "tensor.concatenate([x, x])",
    "roll": "tensor.concatenate([x[1:], x[:1]])",
    "diagonal": "a[[0, 1, 2], [0, 1, 2]]",
    "diag": "a[[0, 1, 2], [0, 1, 2]]",
    "trace": "a[[0, 1, 2], [0, 1, 2]].sum()",
    # making tensors
    "tensor": "tensor.Tensor([1.0, 2.0])",
    "array": "tensor.Tensor([1.0, 2.0])",
    "as_tensor": "tensor.Tensor([1.0, 2.0])",
    "asarray": "tensor.Tensor([1.0, 2.0])",
    "from_numpy": "tensor.Tensor.from_array(np.ones(3))",
    "frombuffer": "tensor.Tensor.from_array(np.frombuffer(bytes(8)))",
    "linspace": "tensor.Tensor(np.linspace(0, 1, 5), dtype='float32')",
    "logspace": "tensor.Tensor(np.logspace(0, 1, 5), dtype='float32')",
    "identity": "tensor.eye(3)",
    "meshgrid": "v[:, None].expand(3, 3), w.expand(3, 3)",
    "new_zeros": "tensor.zeros(2, dtype=x.dtype)",
    "new_ones": "tensor.ones(2, dtype=x.dtype)",
    "new_tensor": "tensor.Tensor([1.0], dtype=x.dtype)",
    "copy": "x.clone()",
    "seed": "tensor.manual_seed(0)",
    "normal": "tensor.randn(2, 3) * 2.0 + 1.0",
    "bernoulli": "tensor.rand(3) < 0.5",
    # dtypes and devices
    "astype": "x.to('float64')",
    "type": "x.to('float64')",
    "type_as": "x.to(y.dtype)",
    "float": "x.to('float32')",
    "double": "x.to('float64')",
    "half": "x.to('float16')",
    "long": "x.to('int64')",
    "int": "x.to('int32')",
    "short": "x.to('int16')",
    "bool": "x.to('bool')",
    "int64": "tensor.dtypes.int64",
    "int32": "tensor.dtypes.int32",
    "int16": "tensor.dtypes.int16",
    "int8": "tensor.dtypes.int8",
    "uint8": "tensor.dtypes.uint8",
    "cpu": "x.to('cpu')",
    "is_cuda": "x.device != 'cpu'",
    # the graph
    "data": "x.detach()",
    "zero_grad": "model.zero_grad()",
    "grad_fn": "x.node",
    "requires_grad_": "x.requires_grad = True",
    "detach_": "x.detach()",
    # arithmetic
    "pow": "x ** 2",
    "square": "x * x",
    "reciprocal": "1 / x",
    "rsqrt": "x ** -0.5",
    "exp2": "2 ** x",
    "log2": "x.log() / np.log(2)",
    "log10": "x.log() / np.log(10)",
    "sign": "(x > 0).to(x.dtype) - (x < 0).to(x.dtype)",
    "tan": "x.sin() / x.cos()",
    "sinh": "(x.exp() - (-x).exp()) / 2",
    "cosh": "(x.exp() + (-x).exp()) / 2",
    "absolute": "x.abs()",
    "neg": "-x",
    "sub": "x - y",
    "mul": "x * y",
    "div": "x / y",
    "true_divide": "x / y",
    "clamp": "x.clip(0, 1)",
    "clamp_min": "x.clip(0)",
    "clamp_max": "x.clip(None, 1)",
    "addcmul": "x + x * y",
    "addcdiv": "x + x / y",
    "lerp": "x + 0.5 * (y - x)",
    # comparisons
    "eq": "x == y",
    "ne": "x != y",
    "lt": "x < y",
    "le": "x <= y",
    "gt": "x > y",
    "ge": "x >= y",
    "equal": "(x == y).all()",
    "isnan": "x != x",
    "isinf": "x.abs() == np.inf",
    "isfinite": "x.abs() < np.inf",
    "isclose": "(x - y).abs() < 1e-6",
    "allclose": "((x - y).abs() < 1e-6).all()",
    "logical_and": "(x > 0) & (y > 0)",
    "logical_or": "(x > 0) | (y > 0)",
    "logical_xor": "(x > 0) ^ (y > 0)",
    "logical_not": "~(x > 0)",
    # reductions
    "amax": "x.max(0)",
    "amin": "x.min(0)",
    "norm": "(x * x).sum().sqrt()",
    "dist": "((x - y) * (x - y)).sum().sqrt()",
    "nansum": "tensor.where(x == x, x, 0).sum()",
    "count_nonzero": "(x != 0).sum()",
    # products
    "mm": "a @ b",
    "bmm": "a[None] @ b[None]",
    "mv": "a @ v",
    "dot": "v @ w",
    "vdot": "v @ w",
    "inner": "v @ w",
    "outer": "v[:, None] * w",
    "addmm": "a + a @ b",
    # activations and losses
    "leaky_relu": "tensor.maximum(x, 0.01 * x)",
    "relu6": "x.clip(0, 6)",
    "softsign": "x / (1 + x.abs())",
    "softplus": "tensor.where(x > 20, x, (1 + x.clip(None, 20).exp()).log())",
    "elu": "tensor.where(x > 0, x, x.clip(None, 0).exp() - 1)",
    "logsigmoid": "-tensor.where(x < -20, -x, (1 + (-x).clip(None, 20).exp()).log())",
    "mse_loss": "tensor.mean_squared_error(x, y)",
    "smooth_l1_loss": "tensor.huber_loss(x, y)",
    "kl_div": "tensor.kl_divergence(x.log_softmax(), p)",
    "nll_loss": "-a.log_softmax().gather(ids[:, None], axis=1).mean()",
    "cosine_similarity": "(v @ w) / ((v @ v) * (w @ w)).sqrt()",
    "rms_norm": "x / ((x * x).mean(-1, keepdims=True) + 1e-6).sqrt()",
    "scaled_dot_product_attention": "tensor.attention(a, a, b)",
    # writing in place
    "fill_": "x[...] = 1.0",
    "zero_": "x[...] = 0.0",
    "copy_": "x[...] = y",
    "uniform_": "x[...] = tensor.rand(2, 3)",
    "normal_": "x[...] = tensor.randn(2, 3)",
    "add_": "x + y",
    "sub_": "x - y",
    "mul_": "x * y",
    "div_": "x / y",
    "clamp_": "x.clip(0, 1)",
}

# modules of other libraries -> code here
MODULES = {
    "functional": "tensor.relu(x)",
    "F": "tensor.relu(x)",
    "linalg": "np.linalg.norm(x.numpy())",
    "Module": "nn.Module()",
    "Parameter": "nn.Parameter([1.0])",
    "ModuleList": "[nn.Linear(3, 3), nn.Linear(3, 3)]",
    "ModuleDict": "{'first': nn.Linear(3, 3)}",
    "ParameterList": "[nn.Parameter([1.0]), nn.Parameter([2.0])]",
    "CrossEntropyLoss": "tensor.cross_entropy(a, ids)",
    "NLLLoss": "tensor.cross_entropy(a, ids)",
    "MSELoss": "tensor.mean_squared_error(x, y)",
    "L1Loss": "tensor.l1_loss(x, y)",
    "HuberLoss": "tensor.huber_loss(x, y)",
    "SmoothL1Loss": "tensor.huber_loss(x, y)",
    "KLDivLoss": "tensor.kl_divergence(x.log_softmax(), p)",
    "BCELoss": "tensor.binary_cross_entropy(p, p)",
    "BCEWithLogitsLoss": "tensor.binary_cross_entropy_with_logits(x, p)",
    "Identity": "x",
    "lr_scheduler": "optim.SGD(model, lr=lambda step: 0.1 * 0.9**step)",
    "LambdaLR": "optim.SGD(model, lr=lambda step: 0.1 * 0.9**step)",
    "ExponentialLR": "optim.SGD(model, lr=lambda step: 0.1 * 0.9**step)",
    "StepLR": "optim.SGD(model, lr=lambda step: 0.1 * 0.5 ** (step // 30))",
    "CosineAnnealingLR": (
        "optim.SGD(model, lr=lambda s: optim.warmup_cosine(s, peak=0.1, warmup=0, total=100))"
    ),
    "clip_grad_norm_": "optim.clip_gradients(model.parameters(), 1.0)",
    "clip_grad_norm": "optim.clip_gradients(model.parameters(), 1.0)",
    "init": "nn.Parameter(tensor.randn(3, 3) * 0.02)",
    "pi": "np.pi",
    "e": "np.e",
    "inf": "np.inf",
    "nan": "np.nan",
}
# what is not here, and may come
_LATER = """
    einsum prod cumprod cummax cummin sort argsort topk kthvalue unique median quantile mode
    round floor ceil trunc frac log1p expm1 remainder fmod floor_divide arctan arctan2 arcsin
    arccos atan atan2 asin acos asinh acosh atanh arcsinh arccosh arctanh erfc erfinv lgamma
    digamma mish hardtanh scatter scatter_add index_add index_fill unfold as_strided rot90
    triu_indices tril_indices bincount histogram histc searchsorted bucketize randperm
    multinomial tensordot cross kron conv1d conv2d conv3d max_pool1d max_pool2d avg_pool2d
    interpolate nan_to_num aminmax nanmean diff pinverse
    inverse det cholesky svd qr fft jacobian hessian vmap set_printoptions
    get_default_dtype set_default_dtype inference_mode
    is_grad_enabled complex64 complex128 Conv1d Conv2d Conv3d BatchNorm1d BatchNorm2d GroupNorm
    RNN LSTM GRU MultiheadAttention TransformerEncoderLayer TransformerDecoderLayer RMSprop
    Adagrad DataLoader utils Function
    clip_grad_value_
"""
LATER = frozenset(_LATER.split())


def unknown(owner: str, name: str) -> AttributeError:
    """The error of a name that `owner` does not have, with what to write in its place."""
    code = HERE.get(name) or MODULES.get(name)
    if code:
        return AttributeError(f"{owner} has no {name!r}. Write this: {code}")
    if name in LATER:
        return AttributeError(f"{owner} has no {name!r} yet")
    return AttributeError(f"module {owner!r} has no attribute {name!r}")


class Count(int):
    """A number of elements. Called as a method, it says that it is none."""

    @brief
    def __call__(self, *axes: Any) -> Any:
        axis = str(*axes) and f"[{axes[0]}]"
        raise ArgumentError(f"size is the number of elements, {self}. Write x.shape{axis}")


class _Answer:
    """An attribute that is not there, and says so."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        raise unknown("Tensor", self.name)


class OtherNames:
    """The names of other libraries, as attributes that raise AttributeError. A base class of
    Tensor: `__getattr__` would slow down every look-up of an attribute.
    """

    __slots__ = ()

    def __dir__(self) -> list[str]:
        """For completion: the names that are here."""
        known = object.__dir__(self)
        return [x for x in known if not isinstance(inspect.getattr_static(self, x), _Answer)]


for _name in (*HERE, *LATER):
    setattr(OtherNames, _name, _Answer(_name))
