"""The fused ops, attention and the losses."""

from __future__ import annotations

import numpy as np
import torch

from tests.faults.programs.drawing import Drawer, Drawn, Entry, UnfitError, is_float, like, moderate
from tests.faults.programs.step import Op

# -- fused ops and losses


def _last(d: Drawer) -> tuple[str, torch.Tensor]:
    name = d.tensor(lambda x: moderate(x) and x.ndim > 0 and x.shape[-1] > 1)
    return name, d.live[name]


def layer(d: Drawer) -> Drawn:
    name, x = _last(d)
    outputs = d.number(1, 5)
    bias = d.one(("None", like(d, x, outputs)))
    return [name, like(d, x, x.shape[-1], outputs), bias], {}


def norm(d: Drawer) -> Drawn:
    name, x = _last(d)
    return [name, like(d, x, x.shape[-1]), like(d, x, x.shape[-1])], {}


def residual(d: Drawer) -> Drawn:
    inputs, options = norm(d)
    return [*inputs, like(d, d.live[inputs[0]], *d.live[inputs[0]].shape)], options


def heads(d: Drawer) -> Drawn:
    name = d.tensor(lambda x: moderate(x) and x.ndim == 3 and x.shape[-1] % 3 == 0)
    width = d.live[name].shape[-1] // 3
    count = d.one([n for n in (1, 2, 3) if width and width % n == 0])
    return [name], {"heads": count, "causal": d.chance(0.6)}


def two_sequences(d: Drawer) -> Drawn:
    name = d.tensor(lambda x: moderate(x) and x.ndim == 3 and x.numel() > 0)
    x = d.live[name]
    B, T, C = x.shape
    kv = like(d, x, B, T + d.number(0, 2), 2 * C)
    count = d.one([n for n in (1, 2, 3) if C % n == 0])
    return [name, kv], {"heads": count, "causal": d.chance(0.5)}


def queries(d: Drawer) -> Drawn:
    q = d.tensor(lambda x: moderate(x) and x.ndim >= 2 and x.numel() > 0)
    x = d.live[q]
    more = x.shape[-2] + d.number(0, 2)
    k = like(d, x, *x.shape[:-2], more, x.shape[-1])
    v = like(d, x, *x.shape[:-2], more, d.number(1, 3))
    return [q, k, v], {"causal": d.chance(0.6)}


def tables(d: Drawer) -> Drawn:
    name = d.tensor(lambda x: is_float(x) and x.ndim == 2 and x.numel() > 0)
    x, length = d.live[name], d.number(1, 3)
    ids = d.ids((d.number(1, 2), length), len(x))
    return [name, like(d, x, length + d.number(0, 1), x.shape[1])], {"ids": ids, "length": length}


def classes(d: Drawer) -> Drawn:
    name, x = _last(d)
    if x.numel() == 0:
        raise UnfitError
    ids = np.asarray(d.ids(x.shape[:-1], x.shape[-1]))
    ignored = d.one((-100, -100, int(ids.min())))
    if (ids == ignored).all():
        ignored = -100
    return [name], {
        "ids": ids.tolist(),
        "ignored": ignored,
        "smoothing": d.one((0.0, 0.0, 0.1)) if ignored == -100 else 0.0,
        "reduction": d.one(("mean", "sum", "none")),
    }


def losses(d: Drawer) -> Drawn:
    a = d.tensor(lambda x: moderate(x) and x.numel() > 0)
    x = d.live[a]
    b = d.tensor(lambda y: y.shape == x.shape and y.dtype == x.dtype)
    return [a, b], {"reduction": d.one(("mean", "sum", "none"))}


# -- the tables

FUSED = {
    "linear": Entry(Op("tensor.linear({0}, {1}, {2})", "F.linear({0}, {1}.T, {2})"), layer, 0.8),
    "linear_gelu": Entry(
        Op("tensor.linear_gelu({0}, {1}, {2})", "gelu(F.linear({0}, {1}.T, {2}))"),
        layer,
        0.8,
    ),
    "layer_norm": Entry(
        Op("tensor.layer_norm({0}, {1}, {2})", "F.layer_norm({0}, {0}.shape[-1:], {1}, {2})"),
        norm,
        0.8,
    ),
    "residual_layer_norm": Entry(
        Op(
            "tensor.residual_layer_norm({0}, {3}, {1}, {2})",
            "residual_layer_norm({0}, {3}, {1}, {2})",
        ),
        residual,
        0.8,
    ),
    "multi_head_attention": Entry(
        Op(
            "tensor.multi_head_attention({0}, heads={heads}, causal={causal})",
            "multi_head_attention({0}.chunk(3, -1), {heads}, {causal})",
        ),
        heads,
        0.7,
    ),
    "cross-attention": Entry(
        Op(
            "tensor.multi_head_attention({0}, {1}, heads={heads}, causal={causal})",
            "multi_head_attention([{0}, *{1}.chunk(2, -1)], {heads}, {causal})",
        ),
        two_sequences,
        0.5,
    ),
    "attention": Entry(
        Op(
            "tensor.attention({0}, {1}, {2}, causal={causal})",
            "attention({0}, {1}, {2}, {causal})",
        ),
        queries,
        0.7,
    ),
    "positional_embedding": Entry(
        Op(
            "tensor.positional_embedding({ids}, {0}, {1})",
            "F.embedding(torch.tensor({ids}), {0}) + {1}[:{length}]",
        ),
        tables,
        0.5,
    ),
    "cross_entropy": Entry(
        Op(
            "tensor.cross_entropy({0}, {ids}, ignore_index={ignored}, "
            "label_smoothing={smoothing}, reduction='{reduction}')",
            "cross_entropy({0}, torch.tensor({ids}), {ignored}, {smoothing}, '{reduction}')",
        ),
        classes,
        0.8,
    ),
    "mean_squared_error": Entry(
        Op(
            "tensor.mean_squared_error({0}, {1}, reduction='{reduction}')",
            "F.mse_loss(*met({0}, {1}), reduction='{reduction}')",
        ),
        losses,
        0.4,
    ),
    "binary_cross_entropy_with_logits": Entry(
        Op(
            "tensor.binary_cross_entropy_with_logits({0}, {1}, reduction='{reduction}')",
            "binary_cross_entropy_with_logits(*met({0}, {1}), reduction='{reduction}')",
        ),
        losses,
        0.4,
    ),
}
