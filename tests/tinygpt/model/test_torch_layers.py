"""Blocks and the encoder-decoder against PyTorch's layers with the same weights: values and
gradients in float64, with padding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensor import Tensor, no_grad
from tinygpt import EncoderDecoder, EncoderDecoderConfig
from tinygpt.ids import PAD, SourceTarget
from tinygpt.model.block import Around, Block

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.filterwarnings("ignore:enable_nested_tensor"),  # PyTorch's own way for padding
    pytest.mark.parametrize("norm", ["pre", "post"]),
    pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_erf"]),
]

B, S, T, C, H = 3, 7, 5, 12, 3
LENGTHS = 7, 4, 1  # of the sources
SEEN = np.arange(S) < np.array(LENGTHS)[:, None]  # (B, S)
ACTIVATIONS = {
    "relu": "relu",
    "gelu": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "gelu_erf": "gelu",
}
LAYERS = {
    "self_attn.in_proj_": ["attention.qkv"],
    "self_attn.out_proj.": ["attention.projection"],
    "multihead_attn.in_proj_": ["cross_attention.q", "cross_attention.kv"],
    "multihead_attn.out_proj.": ["cross_attention.projection"],
    "linear1.": ["feed_forward.expand"],
    "linear2.": ["feed_forward.projection"],
}


def in_torch(ours: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a block by PyTorch's names, matrices as (outputs, inputs)."""
    found = {}
    for theirs, names in LAYERS.items():
        if f"{names[0]}.weight" in ours:
            for part in ("weight", "bias"):
                joined = np.concatenate([ours[f"{name}.{part}"].T for name in names])
                found[theirs + part] = joined
    norms = ["attention_norm", "cross_norm", "feed_forward_norm"]
    for number, name in enumerate((n for n in norms if f"{n}.gain" in ours), 1):
        found[f"norm{number}.weight"] = ours[f"{name}.gain"]
        found[f"norm{number}.bias"] = ours[f"{name}.bias"]
    return found


def model_in_torch(ours: dict[str, Any]) -> dict[str, Any]:
    """The same for all blocks and norms of an encoder-decoder."""
    found = {}
    for side in ("encoder", "decoder"):
        for number in range(2):
            prefix = f"{side}.{number}."
            block = {n.removeprefix(prefix): a for n, a in ours.items() if n.startswith(prefix)}
            found |= {f"{side}.layers.{number}.{n}": a for n, a in in_torch(block).items()}
        found[f"{side}.norm.weight"] = ours[f"{side}_norm.gain"]
        found[f"{side}.norm.bias"] = ours[f"{side}_norm.bias"]
    return found


def config(norm: Any, activation: Any) -> EncoderDecoderConfig:
    return EncoderDecoderConfig(9, 8, C, H, layers=2, norm=norm, activation=activation)


def options(norm: str, activation: str) -> dict[str, Any]:
    """The same in PyTorch."""
    return {
        "d_model": C, "nhead": H, "dim_feedforward": 4 * C, "dropout": 0.0, "batch_first": True,
        "activation": ACTIVATIONS[activation], "norm_first": norm == "pre", "dtype": torch.float64,
    }  # fmt: skip


def drawn(module: Any) -> dict[str, Any]:
    """Weights of which all count, put into the module."""
    rng = np.random.default_rng(0)
    arrays = {n: 0.4 * rng.standard_normal(p.shape) for n, p in module.named_parameters()}
    with no_grad():
        for name, parameter in module.named_parameters():
            parameter[...] = Tensor(arrays[name])
    return arrays


def loaded(layer: Any, arrays: dict[str, Any]) -> Any:
    """PyTorch's layer with those arrays; the names must be all of its names."""
    layer.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    return layer


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_allclose(
            array, theirs[name].detach().numpy(), rtol=0, atol=1e-10, err_msg=name
        )


def future() -> Any:
    """True where PyTorch's decoder must not look."""
    return torch.triu(torch.ones(T, T, dtype=torch.bool), diagonal=1)


def gradients(module: Any) -> dict[str, Any]:
    return {name: p.grad.numpy() for name, p in module.named_parameters()}


def inputs(*shapes: tuple[int, ...]) -> tuple[list[Tensor], list[Any]]:
    """Numbers that want gradients, for us and for PyTorch."""
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    return (
        [Tensor(array, requires_grad=True) for array in arrays],
        [torch.tensor(array, requires_grad=True) for array in arrays],
    )


def test_an_encoder_block(norm: str, activation: str) -> None:
    block = Block(config(norm, activation), causal=False).to(dtype="float64")
    arrays = drawn(block)
    layer = loaded(torch.nn.TransformerEncoderLayer(**options(norm, activation)), in_torch(arrays))
    (x, dy), (tx, tdy) = inputs((B, S, C), (B, S, C))
    y = block(x, Around(mask=Tensor(SEEN[:, None, None])))
    ty = layer(tx, src_key_padding_mask=torch.tensor(~SEEN))
    y.backward(dy)
    ty.backward(tdy)
    compare({"y": y.numpy(), "dx": x.grad.numpy()}, {"y": ty, "dx": tx.grad})  # type: ignore[union-attr]
    compare(in_torch(gradients(block)), {n: p.grad for n, p in layer.named_parameters()})


def test_a_decoder_block(norm: str, activation: str) -> None:
    block = Block(config(norm, activation), cross=True).to(dtype="float64")
    arrays = drawn(block)
    layer = loaded(torch.nn.TransformerDecoderLayer(**options(norm, activation)), in_torch(arrays))
    (x, memory, dy), (tx, tmemory, tdy) = inputs((B, T, C), (B, S, C), (B, T, C))
    y = block(x, Around(memory=memory, memory_mask=Tensor(SEEN[:, None, None])))
    ty = layer(
        tx,
        tmemory,
        tgt_mask=future(),
        memory_key_padding_mask=torch.tensor(~SEEN),
    )
    y.backward(dy)
    ty.backward(tdy)
    compare(
        {"y": y.numpy(), "dx": x.grad.numpy(), "dmemory": memory.grad.numpy()},  # type: ignore[union-attr]
        {"y": ty, "dx": tx.grad, "dmemory": tmemory.grad},
    )
    compare(in_torch(gradients(block)), {n: p.grad for n, p in layer.named_parameters()})


def test_the_encoder_decoder(norm: str, activation: str) -> None:
    """From ids to the loss: nn.Transformer between the embeddings and the head."""
    model = EncoderDecoder(config(norm, activation), dtype="float64", draw=False)
    arrays = drawn(model)
    whole = torch.nn.Transformer(
        num_encoder_layers=2, num_decoder_layers=2, **options(norm, activation)
    )
    loaded(whole, model_in_torch(arrays))
    rng = np.random.default_rng(2)
    source = np.where(SEEN, rng.integers(3, 9, (B, S)), PAD)
    target, y = rng.integers(3, 9, (2, B, T))
    loss = model.loss(SourceTarget(source, target), y)
    loss.backward()
    table = torch.tensor(arrays["token_embedding.weight"], requires_grad=True)
    positions = torch.tensor(model.position_embedding.numpy())

    def embedded(ids: Any) -> Any:
        return table[torch.tensor(ids)] * C**0.5 + positions[: ids.shape[1]]

    padding = torch.tensor(~SEEN)
    h = whole(
        embedded(source),
        embedded(target),
        tgt_mask=future(),
        src_key_padding_mask=padding,
        memory_key_padding_mask=padding,
    )
    logits = h @ table.T
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(y).flatten())
    expected.backward()
    found = model(source, target)
    compare({"logits": found.numpy(), "loss": loss.numpy()}, {"logits": logits, "loss": expected})
    ours = gradients(model)
    compare({"table": ours.pop("token_embedding.weight")}, {"table": table.grad})
    compare(model_in_torch(ours), {n: p.grad for n, p in whole.named_parameters()})
