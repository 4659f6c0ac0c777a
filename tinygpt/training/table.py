"""The table that `tinygpt plan` prints."""

from __future__ import annotations

import math

from tensor.dtypes import NARROW, as_dtype
from tensor.recording import in_bytes
from tinygpt.config import FinetuneConfig, ModelConfig, PreferencesConfig, TrainConfig
from tinygpt.model.sizes import parts
from tinygpt.runs.run import described
from tinygpt.terminal import number_of, short
from tinygpt.training import gpu, stages
from tinygpt.training.planning import Plan


def windows_of(config: TrainConfig) -> str:
    """What a step learns from: 16 windows, pairs or texts, or 16 x 4 of them with accumulation."""
    unit = "pair" if config.kind == "encoder-decoder" else "window"
    unit = "text" if config.in_context else unit
    if isinstance(config, PreferencesConfig):
        unit = "prompt" if stages.by_ppo(config) else "pair"
    if config.accumulation > 1:
        return f"{config.batch} x {config.accumulation} {unit}s"
    return number_of(config.batch, unit)


def table(plan: Plan) -> list[str]:
    """The lines that `tinygpt plan` prints."""
    model, config, notes = plan.model, plan.training, notes_of(plan)
    learned = isinstance(config, FinetuneConfig | PreferencesConfig)
    up_to = "up to " if config.kind == "encoder-decoder" or learned else ""
    passing = f"and up to {in_bytes(plan.passing)} while backward runs"
    lines = [
        f"model        {described(model)}",
        f"step         {plan.tokens:,} tokens: {windows_of(config)} of {up_to}{model.context}",
        "",
        *parts_table(model, config.dtype),
        "",
        *(
            f"{kind:<13}{in_bytes(size):>10}   {notes[kind]}".rstrip()
            for kind, size in plan.parts.items()
        ),
        f"together     {in_bytes(plan.memory):>10}   {passing}",
        "",
    ]
    work = f"work         {digits(plan.flops / 1e9):>10}   GFLOP a step"
    if config.device == "cpu":
        lines.append(work)
    else:
        of_mfu = digits(gpu.flops_per_token(model) / 1e6)
        lines += [
            f"{work}, {digits(plan.flops / plan.tokens / 1e6)} MFLOP a token",
            f"MFU counts   {of_mfu:>10}   MFLOP a token: all keys of the context count",
        ]
    if math.isnan(plan.seconds):
        return lines
    steps = "1 step takes" if config.steps == 1 else f"{config.steps:,} steps take"
    lines.append(f"speed        {short(plan.speed):>10}   tokens/s, {plan.by}")
    if plan.peak is not None and plan.where == Plan.where:
        lines.append(
            f"MFU          {plan.mfu:>10.1%}   of {plan.peak / 1e12:,.0f} TFLOP/s in 16 bits"
        )
    return [
        *lines,
        "",
        f"On {plan.where} {steps} about {in_words(plan.seconds * config.steps)}, "
        "without measuring and saving.",
    ]


def parts_table(model: ModelConfig, dtype: str) -> list[str]:
    """Where the parameters are: a line for each part, with its share and its bytes."""
    size, found = as_dtype(dtype).itemsize, parts(model)
    total = sum(found.values())
    lines = [f"{'part':<20}{'parameters':>15}{'share':>9}{dtype:>13}"]
    for part, count in [*found.items(), ("together", total)]:
        if count:
            part += " = head" * (part == "token table" and not found["head"])
            share = f"{count / total:.2%}"
            lines.append(f"{part:<20}{count:>15,}{share:>9}{in_bytes(count * size):>13}")
    return lines


def notes_of(plan: Plan) -> dict[str, str]:
    """What is said beside each part of the memory."""
    model, config = plan.model, plan.training
    kept = f"of its {in_bytes(plan.again)} for backward" if plan.again else "for backward"
    logits = f"{model.outcomes:,} a token, with what the loss makes of them"
    if config.device != "cpu" and plan.logits == gpu.logits_by_kernels(model, config):
        logits = "a chunk at a time, and the gradient of the head"
    masters = ", with the weights in float32" * (as_dtype(config.dtype) in NARROW)
    return {
        "weights": config.dtype,
        "gradients": "",
        "moments": config.optimizer + masters,
        "activations": f"each layer keeps {in_bytes(plan.layer)} {kept}",
        "logits": logits,
        "windows": "ids and targets",
        "reference": "the policy as it was at first",
        "reward": "the reward model",
        "rollout": "in the place of activations and logits, while the policy writes",
    }


def in_words(seconds: float) -> str:
    """2 seconds, 25 minutes, 3.1 hours, 12 days"""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * size:
            count = seconds / size
            return f"{count:.1f} {unit}s" if count < 10 else f"{count:,.0f} {unit}s"
    return "a second" if seconds < 1.5 else f"{seconds:.0f} seconds"


def digits(number: float) -> str:
    """0.319, 12.5, 13,100"""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
