"""What alignment changes: how often a reward model is right, and how good the replies are before
and after PPO, DPO, and PPO without KL.

    tinygpt train --text grammar --tokenizer bpe --tokens 512 --context 128 --steps 600 \\
        --optimizer muon --muon-lr 0.03 --out runs/base
    python benchmarks/align.py runs/base                 # three seeds, 18 trainings: half an hour

Writes align.md and align.png. Each training is a command line, printed before it runs, and its run
stays in the folder of --runs: a later call takes the runs that are there. A seed is that of all
stages after the base: other stories, other keys that are kept back, other replies.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tinygpt.commands import program
from tinygpt.data.prepare import prepare
from tinygpt.files import drawing, write_picture
from tinygpt.runs import run as runs
from tinygpt.runs.curves import smooth
from tinygpt.runs.metrics import records
from tinygpt.training.aligning import assessed, unaligned
from tinygpt.training.measure import better_p
from tinygpt.training.objectives.preferences import reward_loss

FINETUNE = "--data", "replies", "--batch", "32", "--steps", "4000", "--lr", "3e-3"
METHODS = {
    "PPO": (),
    "DPO": ("--method", "dpo"),
    "PPO without KL": ("--kl", "0", "--lr", "1e-3", "--steps", "300"),
}
INTRO = """# Alignment

Made by `python benchmarks/align.py RUN`. Median of the seeds, and each seed in brackets. The pairs
and the prompts, 500 of each, were kept back from all stages. The true score of a reply is known by
rule: 1 for a right and kind reply, 0.5 for a right and rude one, else 0. What is possible is 1.
The reward has mean 0 and spread 1 over replies of the reference to other prompts.

"""
PANELS = {"reward": "reward", "true_score": "true score", "kl": "KL (nats a reply)"}


def trained(folder: Path, *words: str) -> Path:
    """The run of this command line, made where it is missing."""
    if not (folder / runs.PICTURE).exists():
        line = [*words, "--out", str(folder)]
        print("tinygpt", *line, flush=True)
        if program.run(line):
            raise SystemExit(f"this training failed: {folder}")
    return folder


def measure(base: str, where: Path, seed: int) -> dict[str, Any]:
    """All stages with a seed: {name: number} of each."""
    number = "--seed", str(seed)
    tuned = trained(where / f"finetuned-{seed}", "finetune", base, *FINETUNE, *number)
    judge = trained(where / f"reward-{seed}", "reward", str(tuned), *number)
    run, model, tokenizer = runs.load(judge, best=True)
    data = prepare(run.training, run.model.context, tokenizer)
    assert data.validation is not None
    p = better_p(model, data.validation, reward_loss)
    found: dict[str, Any] = {"accuracy": float((p > 0.5).mean())}
    for name, flags in METHODS.items():
        folder = where / f"{name.replace(' ', '-')}-{seed}"
        scored = () if "dpo" in flags else ("--reward", str(judge))
        line = "align", str(tuned), *scored, *flags, "--true-score", *number
        run, aligned, _ = runs.load(trained(folder, *line), plain=False)
        found[name] = assessed(aligned, data.validation, run.training)
        if name == "PPO":
            found["before"] = assessed(unaligned(aligned), data.validation, run.training)
    return found


def table(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The medians over the seeds, and what each seed gave."""
    accuracies = [each["accuracy"] for each in found]
    listed = ", ".join(f"{share:.1%}" for share in accuracies)
    yield f"Reward model: {statistics.median(accuracies):.1%} of the pairs kept back ({listed})."
    yield ""
    yield "| | true score | of what is possible | KL, nats a reply | reward | tokens a reply |"
    yield "|---|---|---|---|---|---|"
    for name in ("before", *METHODS):
        yield f"| {' | '.join([name, *_cells(found, name)])} |"


def _cells(found: Sequence[dict[str, Any]], name: str) -> Iterator[str]:
    gained = [
        (each[name]["true score"] - each["before"]["true score"])
        / (1 - each["before"]["true score"])
        for each in found
    ]
    columns: list[tuple[str, list[Any]]] = [
        ("{:.3f}", [each[name]["true score"] for each in found]),
        ("{:.0%}", gained),
        ("{:.2f}", [each[name]["kl"] for each in found]),
        ("{:.2f}", [each[name].get("reward") for each in found]),
        ("{:.1f}", [each[name]["length"] for each in found]),
    ]
    for form, numbers in columns:
        if None in numbers:
            yield "-"
            continue
        # a mean of logarithms' differences may be -1e-7, and + 0.0 takes the sign of a rounded zero
        rounded = [round(number, 3) + 0.0 for number in numbers]
        middle = form.format(statistics.median(rounded))
        yield f"{middle} ({', '.join(map(form.format, rounded))})"


@drawing()
def draw(where: Path, seeds: Sequence[int], picture: Path) -> None:
    """The rollouts of PPO with KL and without, a line a seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), dpi=120, layout="constrained")
    for place, (field, title) in enumerate(PANELS.items(), 1):
        axes = figure.add_subplot(1, 3, place)
        for name, colour in (("PPO", "tab:blue"), ("PPO without KL", "tab:red")):
            for number, seed in enumerate(seeds):
                noted = records(where / f"{name.replace(' ', '-')}-{seed}" / runs.METRICS)
                values = [getattr(one, field) for one in noted if one.reward is not None]
                steps = range(1, len(values) + 1)
                label = "" if number else name
                axes.plot(steps, smooth(values, range(len(values))), color=colour, label=label)
        axes.set(title=title, xlabel="step (rollouts)")
        axes.grid(alpha=0.3)
        if field == "kl":
            axes.set_yscale("symlog", linthresh=1)
        if place == 1:
            axes.legend()
    write_picture(figure, picture, "free some space there")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("base", metavar="RUN", help="the pretrained run to start from")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/align"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    found = [measure(options.base, options.runs, seed) for seed in options.seeds]
    lines = list(table(found))
    print(*lines, sep="\n")
    (options.out / "align.md").write_text(INTRO + "\n".join([*lines, ""]))
    draw(options.runs, options.seeds, options.out / "align.png")


if __name__ == "__main__":
    main()
