"""The GPT: what it computes, how it starts, and that no token sees the future."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels, nn, random
from tensor.errors import DTypeError, ShapeError
from tensor.graph import Node, reachable
from tensor.optim import AdamW
from tinygpt import GPT, CharacterTokenizer, ConfigError, GPTConfig, story, windows
from tinygpt.model import gpt
from tinygpt.model.block import through_blocks
from tinygpt.model.positions import sinusoids

VARIANTS: list[dict[str, Any]] = [
    {},
    {"norm": "post"},
    {"positions": "sinusoidal"},
    {"activation": "relu"},
    {"tied": False},
    {"bias": False},
]


def make(device: str, dtype: str = "float64", **options: Any) -> GPT:
    sizes: dict[str, Any] = {
        "vocabulary": 11,
        "context": 7,
        "width": 12,
        "heads": 3,
        "layers": 2,
        **options,
    }
    model = GPT(GPTConfig(**sizes), generator=random.Generator(1), dtype=dtype, device=device)
    return stirred(model)


def stirred(model: GPT) -> GPT:
    """All weights, biases and gains moved well away from where they start, so that nothing is
    hidden by a 0 or a 1.
    """
    rng = np.random.default_rng(0)
    with tensor.no_grad():
        for parameter in model.parameters():
            moved = parameter.to("cpu").numpy() + 0.3 * rng.standard_normal(parameter.shape)
            parameter[...] = Tensor(moved, dtype=parameter.dtype, device=parameter.device)
    return model


def ids_of(shape: Any, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 11, shape)


# -- what goes in and comes out


@pytest.mark.parametrize("options", VARIANTS)
def test_shapes(options: dict[str, Any], device: str) -> None:
    model = make(device, **options)
    ids = ids_of((5, 4))
    logits = model(ids)
    assert logits.shape == (5, 4, 11)
    assert logits.dtype == tensor.float64
    for same in (ids.tolist(), Tensor(ids, device=device), ids.astype(np.uint16)):
        assert np.array_equal(model(same).numpy(), logits.numpy())
    assert model(ids[0]).shape == model(ids[0].tolist()).shape == (1, 4, 11)
    np.testing.assert_allclose(model(ids[0]).numpy()[0], logits.numpy()[0], rtol=1e-12)
    assert model([3]).shape == (1, 1, 11)


@pytest.mark.parametrize(
    ("ids", "error", "words"),
    [
        ([0] * 8, ShapeError, r"8 tokens do not fit the model's context of 7: pass the last 7"),
        ([[0, 1], [11, 0]], IndexError, r"token 11 is outside this model's vocabulary, 0 to 10"),
        ([-1], IndexError, "token -1"),
        ([0.5], DTypeError, "float32"),
        ([True], DTypeError, "bool"),
        ([], ShapeError, "at least one"),
        ([[]], ShapeError, "at least one"),
        ([[[1]]], ShapeError, r"\(1, 1, 1\)"),
        (3, ShapeError, r"\(\)"),
    ],
)
def test_ids_that_cannot_be(ids: Any, error: type[Exception], words: str, device: str) -> None:
    with pytest.raises(error, match=words):
        make(device)(ids)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"heads": 5},
            "width 12 is not divisible by heads 5, which share it evenly: try width 15 or heads 4",
        ),
        ({"width": 0}, "width 0: a whole number, at least 1"),
        ({"layers": -1}, "layers -1"),
        ({"context": 2.5}, "context 2.5"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"norm": "none"}, "norm 'none': choose pre or post"),
        ({"positions": "rotary"}, "choose learned or sinusoidal"),
        ({"activation": "tanh"}, "choose gelu, gelu_erf or relu"),
    ],
)
def test_configurations_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        GPTConfig(
            **{"vocabulary": 11, "context": 7, "width": 12, "heads": 3, "layers": 2, **options}
        )


def test_loss_is_the_mean_surprise(device: str) -> None:
    model, ids, targets = make(device), ids_of((3, 5)), ids_of((3, 5), 1)
    logits = model(ids).numpy()
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(p, targets[..., None], -1)).mean()
    assert model.loss(ids, targets).item() == pytest.approx(expected, rel=1e-12)
    assert model.loss(ids[0], targets[0]).item() == pytest.approx(
        model.loss(ids[:1], Tensor(targets[:1], device=device)).item(), rel=1e-12
    )
    with pytest.raises(ShapeError, match=r"targets of shape \(5, 3\) for ids of shape \(3, 5\)"):
        model.loss(ids, targets.T)


def test_positions_tell_equal_tokens_apart(device: str) -> None:
    for positions in ("learned", "sinusoidal"):
        x = make(device, positions=positions).embed([4, 4, 4]).numpy()[0]
        assert not np.allclose(x[0], x[1])
        assert not np.allclose(x[1], x[2])


def test_sinusoids(device: str) -> None:
    """Even columns sin, odd columns cos, of t / 10000^(2i / C) for the i-th pair."""
    table = sinusoids(6, 8)
    for t in range(6):
        for i in range(4):
            angle = t / 10000 ** (2 * i / 8)
            assert table[t, 2 * i] == pytest.approx(math.sin(angle), abs=1e-15)
            assert table[t, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-15)
    model = make(device, positions="sinusoidal")
    np.testing.assert_allclose(
        model.position_embedding.numpy(), sinusoids(7, 12), rtol=0, atol=1e-15
    )
    assert not any("position" in name for name, _ in model.named_parameters())
    # a buffer goes along
    assert model.to(dtype="float32").position_embedding.dtype == tensor.float32


def test_sinusoids_meet_token_embeddings_times_the_root_of_the_width(device: str) -> None:
    """Vaswani et al. 2017, section 3.4. Otherwise the sinusoids hide the tokens."""
    for positions, scaled in (("sinusoidal", None), ("learned", True)):
        model = make(device, positions=positions, scaled=scaled)
        rows = model.token_embedding.weight.numpy()[[4, 2]]
        expected = math.sqrt(12) * rows + model.position_embedding.numpy()[:2]
        np.testing.assert_allclose(model.embed([4, 2]).numpy()[0], expected, rtol=1e-15)
    assert make(device, positions="sinusoidal", scaled=False).scale == 1
    assert make(device).scale == 1


@pytest.mark.parametrize("options", [*VARIANTS, {"layers": 1}, {"layers": 3}])
def test_through_blocks_is_block_after_block(options: dict[str, Any], device: str) -> None:
    """Value and gradients; each norm has its own gain, so one taken for another would show."""
    model = make(device, **options)
    x = Tensor(
        np.random.default_rng(1).standard_normal((2, 5, 12)), device=device, requires_grad=True
    )
    h = x
    for block in model.blocks:
        h = block(h)
    parameters = [
        p for name, p in model.named_parameters() if name.startswith(("blocks", "final_norm"))
    ]
    ways, upstream = (
        (model.final_norm(h), through_blocks(model.blocks, model.final_norm, x)),
        Tensor(np.cos(np.arange(120.0)).reshape(2, 5, 12), device=device),
    )
    one, other = (
        [z.numpy() for z in (y, *tensor.grad(y, [x, *parameters], upstream)) if z is not None]
        for y in ways
    )
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(a).max())


# -- row 53: initialisation


@pytest.mark.parametrize("layers", [1, 6])
def test_bug_53_spread_of_fresh_weights(layers: int, device: str) -> None:
    model = GPT(
        GPTConfig(50, context=40, width=64, heads=4, layers=layers, tied=False),
        generator=random.Generator(2),
        device=device,
    )
    for name, parameter in model.named_parameters():
        values = parameter.to("cpu").numpy()
        if name.endswith("bias"):
            assert not values.any(), name
        elif name.endswith("gain"):
            assert (values == 1).all(), name
        else:
            spread = 0.02 / math.sqrt(2 * layers) if name.endswith("projection.weight") else 0.02
            # four standard errors
            assert values.std() == pytest.approx(spread, rel=4 / math.sqrt(2 * values.size)), name
            assert abs(values.mean()) < 4 * spread / math.sqrt(values.size), name


@pytest.mark.parametrize("options", VARIANTS)
def test_bug_53_first_loss_is_that_of_a_model_that_knows_nothing(
    options: dict[str, Any], device: str
) -> None:
    model = GPT(GPTConfig(22, **options), generator=random.Generator(0), device=device)
    ids = np.random.default_rng(0).integers(0, 22, (2, 8, 32))
    assert model.loss(*ids).item() == pytest.approx(math.log(22), abs=0.1)


@pytest.mark.parametrize("tied", [True, False])
def test_bug_53_each_weight_is_drawn_once(tied: bool, device: str) -> None:
    generator = random.Generator(0)
    model = GPT(GPTConfig(11, tied=tied), generator=generator, device=device)
    assert generator.draws == sum(parameter.ndim >= 2 for parameter in model.parameters())


def test_weights_follow_from_the_generator_in_every_dtype(device: str) -> None:
    def build(seed: int, dtype: str) -> GPT:
        return GPT(GPTConfig(11), generator=random.Generator(seed), dtype=dtype, device=device)

    wide = build(5, "float64")
    tensor.randn(3)  # what others draw makes no difference
    for dtype in ("float64", "float32", "bfloat16"):
        for (name, a), (_, b) in zip(
            wide.named_parameters(), build(5, dtype).named_parameters(), strict=True
        ):
            assert b.dtype == tensor.dtypes.as_dtype(dtype)
            assert np.array_equal(a.to(dtype).to("cpu").numpy(), b.to("cpu").numpy()), name
    assert not np.array_equal(
        wide.token_embedding.weight.numpy(), build(6, "float64").token_embedding.weight.numpy()
    )
    tensor.manual_seed(9)
    first = GPT(GPTConfig(11), device=device).token_embedding.weight.numpy().copy()
    tensor.manual_seed(9)
    assert np.array_equal(GPT(GPTConfig(11), device=device).token_embedding.weight.numpy(), first)


def test_number_of_parameters(device: str) -> None:
    def count(**options: Any) -> int:
        return sum(
            p.size for p in GPT(GPTConfig(22, 32, 64, 4, 2, **options), device=device).parameters()
        )

    V, T, C, L = 22, 32, 64, 2
    matrices, biases, norms = L * 12 * C * C, L * 9 * C, (2 * L + 1) * 2 * C
    assert count() == V * C + T * C + matrices + biases + norms
    assert count(tied=False) == count() + V * C
    assert count(positions="sinusoidal") == count() - T * C
    assert count(bias=False) == count() - biases


# -- row 54: it learns


def test_bug_54_one_batch_is_learnt_by_heart(device: str) -> None:
    tokenizer = CharacterTokenizer(story())
    x, y = windows(tokenizer.encode(story()), 16)
    # windows that start differently: nothing in them is uncertain
    firsts = [int(np.flatnonzero(x[:, 0] == token)[0]) for token in range(4)]
    model = GPT(
        GPTConfig(tokenizer.size, context=16, width=32, heads=4, layers=2),
        generator=random.Generator(0),
        device=device,
    )
    optimizer = AdamW(model, lr=1e-2, weight_decay=0.0)
    for _ in range(120):
        optimizer.zero_grad()
        loss = model.loss(x[firsts], y[firsts])
        loss.backward()
        optimizer.step()
    assert model.loss(x[firsts], y[firsts]).item() < 0.01


# -- row 55: no token sees the future


def trained(model: GPT) -> GPT:
    optimizer = AdamW(model, lr=1e-2)
    for step in range(5):
        optimizer.zero_grad()
        model.loss(ids_of((4, 7), step), ids_of((4, 7), step + 1)).backward()
        optimizer.step()
    model.zero_grad()
    return model


def sees_no_future(model: GPT) -> None:
    ids = ids_of((2, 7), 3)
    before = model(ids).numpy()
    for j in range(7):
        changed = ids.copy()
        changed[:, j] = (changed[:, j] + 5) % 11
        after = model(changed).numpy()
        assert np.array_equal(after[:, :j], before[:, :j])  # to the last bit
        # and the token itself is seen
        assert not np.isclose(after[:, j], before[:, j]).all(-1).any()
    rng = np.random.default_rng(0)
    for t in range(7):
        x = model.embed(ids)
        logits = model.logits(model.through(x))
        upstream = np.zeros(logits.shape, dtype=logits.dtype)
        upstream[:, t] = rng.standard_normal((2, 11))
        (dx,) = tensor.grad(logits, x, Tensor(upstream, device=x.device))
        assert dx is not None
        assert not dx.numpy()[:, t + 1 :].any()  # exactly 0
        assert np.abs(dx.numpy()[:, : t + 1]).max(-1).min() > 0  # and everything up to it counts


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("options", VARIANTS)
def test_bug_55_no_token_sees_the_future(options: dict[str, Any], dtype: str, device: str) -> None:
    model = make(device, dtype, **options)
    sees_no_future(model)
    sees_no_future(trained(model))


def test_bug_55_with_scores_of_any_size(device: str) -> None:
    """Large weights make large scores: a finite number in place of -inf would then let the future
    through.
    """
    model = make(device)
    for block in model.blocks:
        block.attention.qkv.weight.array[...] *= 3e3
    ids = ids_of(7, 3)
    before = model(ids).numpy()
    for j in range(1, 7):
        changed = ids.copy()
        changed[j] = (changed[j] + 5) % 11
        assert np.array_equal(model(changed).numpy()[:, :j], before[:, :j])


# -- row 59: the head is the embedding


def head_by_hand(model: GPT, ids: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The logits from what enters the head and the embedding as it is now."""
    inputs: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(
            gpt, "through_blocks", lambda *args: inputs.append(through_blocks(*args)) or inputs[-1]
        )  # type: ignore[func-returns-value]
        model(ids)
    return inputs[0].numpy() @ model.token_embedding.weight.to("cpu").numpy().T


def test_bug_59_the_head_is_the_embedding_always(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every way in which weights are replaced: loaded, moved, packed, written, learnt."""
    model, ids = make(device), ids_of((2, 5))
    assert [name for name, p in model.named_parameters() if p.shape == (11, 12)] == [
        "token_embedding.weight"
    ]
    other = {name: value.to("cpu").numpy() * 1.5 for name, value in model.state_dict().items()}
    changes: list[Callable[[], Any]] = [
        lambda: None,
        lambda: model.load_state_dict(other),
        lambda: model.pack(),
        lambda: model.to(dtype="float32"),
        lambda: model.to(dtype="float64"),
        lambda: trained(model),
    ]
    for change in changes:
        change()
        np.testing.assert_allclose(
            model(ids).numpy(),
            head_by_hand(model, ids, monkeypatch),
            **(
                {"rtol": 1e-5, "atol": 1e-6 * (device != "cpu")}
                if model(ids).dtype == tensor.float32
                else {"rtol": 1e-12}
            ),
        )


@pytest.mark.parametrize("packed", [False, True])
def test_bug_59_gradient_of_both_uses(packed: bool, device: str) -> None:
    """d tied = d embedding + d head of an untied model with the same weights."""
    tied, untied = make(device), make(device, tied=False)
    state = {name: value.numpy() for name, value in tied.state_dict().items()}
    untied.load_state_dict({**state, "head.weight": state["token_embedding.weight"].T})
    if packed:
        tied.pack()
    for model in (tied, untied):
        model.loss(ids_of((3, 6)), ids_of((3, 6), 1)).backward()
    head = untied.head
    assert head is not None
    assert tied.token_embedding.weight.grad is not None
    assert untied.token_embedding.weight.grad is not None
    assert head.weight.grad is not None
    expected = untied.token_embedding.weight.grad.numpy() + head.weight.grad.numpy().T
    np.testing.assert_allclose(
        tied.token_embedding.weight.grad.numpy(),
        expected,
        rtol=0,
        atol=1e-13 * np.abs(expected).max(),
    )
    others = dict(untied.named_parameters())
    for name, parameter in tied.named_parameters():
        if name != "token_embedding.weight":
            assert parameter.grad is not None
            mine, other = parameter.grad.numpy(), others[name].grad
            assert other is not None
            np.testing.assert_allclose(mine, other.numpy(), rtol=0, atol=1e-13 * np.abs(mine).max())


# -- one copy, dropout, packing, dtypes


def test_one_copy_a_block(device: str) -> None:
    """Only where heads are merged does the forward pass move elements without computing."""
    model = make(device, layers=3)
    with kernels.off():  # a kernel takes the heads as they lie
        loss = model.loss(ids_of((2, 7)), ids_of((2, 7)))
    made_by = Counter(node.op for node in reachable([loss.node]) if type(node) is Node)
    assert made_by["clone"] == 3
    assert made_by["cast"] == made_by["transfer"] == made_by["concatenate"] == 0


def test_dropouts_of_one_model_differ(device: str) -> None:
    model = make(device, dropout=0.5, layers=3)
    modules = dict(model.named_modules())
    numbers = {name: part.number for name, part in modules.items() if isinstance(part, nn.Dropout)}
    expected = {"dropout": 0}  # the numbers that old runs were trained with
    for i in range(3):
        expected[f"blocks.{i}.attention.weights_dropout"] = 1 + 3 * i
        expected[f"blocks.{i}.attention.dropout"] = 2 + 3 * i
        expected[f"blocks.{i}.feed_forward.dropout"] = 3 + 3 * i
    assert numbers == expected
    ids = ids_of((2, 7))
    with random.keyed(random.Key(1, step=1)):
        first = model(ids).numpy()
        assert np.array_equal(model(ids).numpy(), first)  # the same key, the same masks
    with random.keyed(random.Key(1, step=2)):
        assert not np.allclose(model(ids).numpy(), first)
    still = model.eval()(ids).numpy()
    assert np.array_equal(still, model(ids).numpy())
    assert not np.allclose(still, first)


def test_each_dropout_drops(device: str) -> None:
    """With p near 1 in one dropout alone, what goes through it is gone."""
    ids = ids_of((2, 7))
    model = make(device, layers=1)
    still = model(ids).numpy()
    for _, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.9
            assert not np.allclose(model(ids).numpy(), still)
            module.p = 0.0


def test_packed_and_not_the_same(device: str) -> None:
    ids, targets = ids_of((3, 7)), ids_of((3, 7), 1)
    losses, gradients = [], []
    for packed in (False, True):
        model = make(device)
        if packed:
            model.pack()
        loss = model.loss(ids, targets)
        loss.backward()
        losses.append(loss.item())
        gradients.append([p.grad.numpy().copy() for p in model.parameters() if p.grad is not None])
    assert losses[0] == losses[1]
    assert len(gradients[0]) == len(gradients[1]) == len(list(model.parameters()))
    assert all(np.allclose(a, b, rtol=0, atol=1e-13) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("dtype", "atol"), [("float32", 5e-6), ("bfloat16", 0.03), ("float16", 5e-3)]
)
def test_lower_precision_computes_the_same(dtype: str, atol: float, device: str) -> None:
    ids = ids_of((3, 7))
    model = make(device, dtype)
    logits = model(ids)
    assert logits.dtype == tensor.dtypes.as_dtype(dtype)
    wide = model.to(dtype="float64")(ids).numpy()  # the same weights
    np.testing.assert_allclose(
        logits.to("float64").numpy(), wide, rtol=0, atol=atol * np.abs(wide).max()
    )
