"""The same model, weights, batches, optimiser and schedule in PyTorch, written here from the
formulas: the losses must be the same.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels, no_grad, random
from tensor.optim import AdamW, clip_gradients, warmup_cosine
from tinygpt import GPT, CharacterTokenizer, GPTConfig, story, windows

PEAK, WARMUP, FINAL, CLIP, DECAY, BETAS, EPS = 3e-3, 5, 3e-4, 1.0, 0.1, (0.9, 0.99), 1e-8


def given_weights(model: GPT) -> dict[str, Any]:
    """Every weight, gain and bias from a fixed seed, none of them at 0 or 1, put into the model; a
    copy of them by name.
    """
    rng = np.random.default_rng(7)
    weights = {
        name: p.to("cpu").numpy() + 0.05 * rng.standard_normal(p.shape)
        for name, p in model.named_parameters()
    }
    model.load_state_dict(
        {
            name: Tensor(value, device=model.token_embedding.weight.device)
            for name, value in weights.items()
        }
    )
    return weights


def torch_loss(torch: Any, config: GPTConfig, w: dict[str, Any], ids: Any, targets: Any) -> Any:
    """The GPT in PyTorch, from a dictionary of weights (inputs, outputs)."""
    F = torch.nn.functional
    B, T = ids.shape
    C, H = config.width, config.heads
    D = C // H

    def linear(x: Any, name: str) -> Any:
        y = torch.einsum("btc,co->bto", x, w[f"{name}.weight"])
        return y + w[f"{name}.bias"] if config.bias else y

    def norm(x: Any, name: str) -> Any:
        return F.layer_norm(x, (C,), w[f"{name}.gain"], w[f"{name}.bias"], 1e-5)

    def attention(x: Any, name: str) -> Any:
        q, k, v = (
            part.reshape(B, T, H, D).permute(0, 2, 1, 3)
            for part in torch.chunk(linear(x, f"{name}.qkv"), 3, dim=-1)
        )
        future = torch.triu(torch.ones(T, T, dtype=torch.bool), diagonal=1)
        scores = (torch.einsum("bhtd,bhsd->bhts", q, k) / math.sqrt(D)).masked_fill(
            future, -math.inf
        )
        y = torch.einsum("bhts,bhsd->bthd", torch.softmax(scores, dim=-1), v)
        return linear(y.reshape(B, T, C), f"{name}.projection")

    def feed_forward(x: Any, name: str) -> Any:
        h = linear(x, f"{name}.expand")
        return linear(
            F.gelu(h, approximate="tanh") if config.activation == "gelu" else F.relu(h),
            f"{name}.projection",
        )

    if config.positions == "learned":
        positions = w["position_embedding"][:T]
    else:
        angle = torch.arange(T, dtype=torch.float64)[:, None] * torch.exp(
            -math.log(10000.0) * torch.arange(0, C, 2, dtype=torch.float64) / C
        )
        positions = torch.stack([angle.sin(), angle.cos()], dim=-1).reshape(T, C)
    scale = math.sqrt(C) if config.scaled else 1
    x = scale * w["token_embedding.weight"][ids] + positions
    for i in range(config.layers):
        block = f"blocks.{i}"
        if config.norm == "pre":
            x = x + attention(norm(x, f"{block}.attention_norm"), f"{block}.attention")
            x = x + feed_forward(norm(x, f"{block}.feed_forward_norm"), f"{block}.feed_forward")
        else:
            x = norm(x + attention(x, f"{block}.attention"), f"{block}.attention_norm")
            x = norm(x + feed_forward(x, f"{block}.feed_forward"), f"{block}.feed_forward_norm")
    head = w["token_embedding.weight"].T if config.tied else w["head.weight"]
    logits = norm(x, "final_norm") @ head
    return F.cross_entropy(logits.reshape(B * T, -1), targets.reshape(B * T))


def torch_losses(
    torch: Any, config: GPTConfig, weights: dict[str, Any], batches: list[Any], total: int
) -> tuple[list[float], list[float], dict[str, Any]]:
    """The loss of each step and the gradient norm before clipping, and the last weights."""
    w = {name: torch.tensor(value, requires_grad=True) for name, value in weights.items()}
    matrices, others = [p for p in w.values() if p.ndim >= 2], [p for p in w.values() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=BETAS, eps=EPS)
    losses, norms = [], []
    for step, (x, y) in enumerate(batches):
        lr = PEAK * (step + 1) / (WARMUP + 1)
        if step >= WARMUP:
            lr = (
                FINAL
                + (PEAK - FINAL) * (1 + math.cos(math.pi * (step - WARMUP) / (total - WARMUP))) / 2
            )
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        loss = torch_loss(torch, config, w, torch.tensor(x), torch.tensor(y))
        loss.backward()
        norm = math.sqrt(sum(float((p.grad**2).sum()) for p in w.values()))
        # clip_grad_norm_ divides by norm + 1e-6, which is not what is compared here
        if norm > CLIP:
            for p in w.values():
                p.grad *= CLIP / norm
        optimizer.step()
        losses.append(loss.item())
        norms.append(norm)
    return losses, norms, {name: p.detach().numpy() for name, p in w.items()}


def our_losses(model: GPT, batches: list[Any], total: int) -> tuple[list[float], list[float]]:
    optimizer = AdamW(model, lr=PEAK, betas=BETAS, eps=EPS, weight_decay=DECAY)
    losses, norms = [], []
    for step, (x, y) in enumerate(batches):
        optimizer.lr = warmup_cosine(step, peak=PEAK, warmup=WARMUP, total=total, floor=FINAL)
        optimizer.zero_grad()
        loss = model.loss(x, y)
        loss.backward()
        norms.append(clip_gradients(model, CLIP))
        optimizer.step()
        losses.append(loss.item())
    return losses, norms


def compare(torch: Any, steps: int, device: str, **options: Any) -> tuple[list[float], list[float]]:
    tokenizer = CharacterTokenizer(story())
    config = GPTConfig(tokenizer.size, context=32, width=64, heads=4, layers=2, **options)
    x, y = windows(tokenizer.encode(story()), config.context)
    rows = np.random.default_rng(1).integers(0, len(x), (steps, 8))
    batches = [(x[chosen], y[chosen]) for chosen in rows]

    model = GPT(config, generator=random.Generator(0), dtype="float64", device=device)
    weights = given_weights(model)
    theirs, their_norms, their_weights = torch_losses(torch, config, weights, batches, total=steps)
    ours, our_norms = our_losses(model, batches, total=steps)

    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
    np.testing.assert_allclose(our_norms, their_norms, rtol=1e-8)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(
            parameter.to("cpu").numpy(), their_weights[name], rtol=0, atol=1e-8, err_msg=name
        )
    return ours, our_norms


def test_fifty_steps_on_the_story(torch: Any, device: str) -> None:
    losses, norms = compare(torch, 50, device)
    assert losses[0] > 3
    assert losses[-1] < 1.5  # it learns
    assert min(norms) < CLIP < max(norms)  # both sides of the clipping were taken


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "post"},
        {"activation": "relu"},
        {"positions": "sinusoidal"},
        {"tied": False},
        {"bias": False},
        {
            "norm": "post",
            "activation": "relu",
            "positions": "sinusoidal",
            "tied": False,
            "bias": False,
        },
    ],
)
def test_variants(options: dict[str, Any], torch: Any, device: str) -> None:
    compare(torch, 8, device, **options)


def test_one_step_in_float32_is_close(torch: Any, device: str) -> None:
    """What users train in: the same first loss and gradients to float32's precision."""
    config = GPTConfig(22)
    model = GPT(config, generator=random.Generator(0), dtype="float64", device=device)
    weights = given_weights(model)
    model.to(dtype="float32")
    ids = np.random.default_rng(0).integers(0, 22, (2, 8, 32))
    loss = model.loss(*ids)
    loss.backward()
    w = {name: torch.tensor(value, requires_grad=True) for name, value in weights.items()}
    expected = torch_loss(torch, config, w, *torch.tensor(ids))
    expected.backward()
    assert loss.dtype == tensor.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        scale = float(w[name].grad.abs().max())
        np.testing.assert_allclose(
            parameter.grad.to("cpu").numpy(),
            w[name].grad.numpy(),
            rtol=0,
            atol=2e-5 * scale + 1e-9,
            err_msg=name,
        )


# -- kernels


def answers(model: GPT, x: Any, y: Any) -> dict[str, Any]:
    """The logits, the logits with the cache, and the gradient of each parameter, in float64."""
    model.zero_grad()
    model.loss(x, y).backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    with no_grad():
        cache = model.new_cache(len(x))
        model(x[:, :-1], cache)
        found |= {"logits": model(x), "logits with the cache": model(x[:, -1:], cache)}
    return {
        name: a.to("cpu").numpy().astype(np.float64) for name, a in found.items() if a is not None
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "post", "activation": "relu"},
        {"positions": "sinusoidal", "tied": False},
        {"bias": False},
        {"context": 2, "layers": 1, "heads": 1},
    ],
    ids=str,
)
def test_kernels_change_nothing(options: dict[str, Any], device: str) -> None:
    """Float32 with kernels is as near to float64 as float32 without them, up to the rounding of
    sums in another order.
    """
    config = GPTConfig(**{"vocabulary": 11, "context": 10, "width": 12, "heads": 3} | options)
    model = GPT(config, generator=random.Generator(0), dtype="float64", device=device)
    given_weights(model)
    x = np.random.default_rng(0).integers(0, 11, (2, config.context))
    y = np.roll(x, -1, axis=1)
    with kernels.off():
        exact = answers(model, x, y)
        plain = answers(model.to(dtype="float32"), x, y)
    for name, fast in answers(model, x, y).items():
        largest = abs(exact[name]).max()
        off = abs(plain[name] - exact[name]).max() / largest
        assert abs(fast - exact[name]).max() / largest <= 4 * off + 2e-6, name
