"""Trainings that are killed, that run out of disk, that are started twice: what is lost, mixed or
left over is counted.

    python -m tests.faults.kills --kills 200 --finetune 10 --align 10 --full 50 --together 20
    python -m tests.faults.kills --cuda 10

kills       kill -9 at a random moment of a training that saves at every step, the best weights too;
            each next one goes on from there
finetune    the same of a fine-tuning
adapters    the same of a fine-tuning with adapters (LoRA), which saves its other weights once
align       the same of PPO, which writes its own replies and steers its price of KL
thread      the same where a thread saves while the next steps run, as on a GPU
cuda        the same on a GPU
full        on a disk with room for a part of a save: the training ends; then there is room again
together    two trainings into one folder at once

After each, the run is loaded whole: model, best weights, optimiser and state of one checkpoint, no
older than what it was seen to have saved. At the end the run is compared, bit for bit, with one
that never stopped. Exit code 1 where anything was lost, mixed, left over or different.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.faults.saving import ON_THREAD
from tests.helpers.program import environment
from tinygpt import story
from tinygpt.errors import InputError
from tinygpt.runs import checkpoint
from tinygpt.runs import run as runs
from tinygpt.training.step import optimizer_of

PROGRAM = [sys.executable, "-m", "tests.faults.saving"]
WIDTH = ["--width", "32", "--heads", "2", "--layers", "2", "--context", "16", "--batch", "2"]
LONG = ["--steps", "100000", "--validation", "0.3", "--lr", "1e-4", "--warmup", "0"]
SAVING = [*LONG, "--evaluate", "1"]
CHOICES = ["train", *WIDTH, "--text", "text.txt", *SAVING]
ON_GPU = [*CHOICES, "--device", "cuda", "--dtype", "bfloat16", "--dropout", "0.1"]
TUNING = ["finetune", "base", "--data", "examples.jsonl", "--batch", "2", *SAVING]
ADAPTERS = [*TUNING, "--lora", "2"]
PREFERRING = ["--data", "pairs.jsonl", "--batch", "4", *LONG]
ALIGNING = ["align", "tuned", "--reward", "judge", "--kl-target", "0.05", *PREFERRING]
SECONDS = 0.25  # from the first step that a process saved, a kill comes within
FILES = (runs.MODEL, runs.OPTIMIZER, runs.BEST, runs.STATE)
DISK = 1 << 22  # bytes of a small disk


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """The program, without anything to read."""
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def again(folder: Path, choices: Sequence[str]) -> list[str]:
    """Begin the run, or go on with it."""
    return (
        [choices[0], "--resume", "run"]
        if checkpoint.current(folder / "run", runs.MODEL).exists()
        else [*choices, "--out", "run"]
    )


def saved(folder: Path) -> int:
    """The step that the run stands at; 0 where there is no checkpoint yet."""
    state = checkpoint.state_of(folder / "run")
    return 0 if state is None else state.step


def faults(folder: Path, least: int) -> Iterator[str]:
    """What is wrong with the run: lost, mixed."""
    try:
        run, model, _ = runs.load(folder / "run", plain=False)
        runs.load(folder / "run", best=True)
        progress = runs.resume(run, model, optimizer_of(model, run.training))
    except InputError as error:
        yield f"lost: {error}"
        return
    if progress.step < least:
        yield f"lost: it stands at step {progress.step}, and {least} had been saved"
    counts = optimizer_counts(folder)
    if counts != {progress.step * run.training.updates}:
        yield f"mixed: the optimiser took {counts} steps, the run {progress.step}"


def optimizer_counts(folder: Path) -> set[int]:
    state = checkpoint.state_of(folder / "run")
    return (
        set(state.optimizer.counts.values())
        if state is not None and state.optimizer is not None
        else set()
    )


def left_over(folder: Path) -> list[str]:
    """Files of a save that was cut short."""
    return [
        path.name for path in (folder / "run").rglob("*") if checkpoint.LEFT.fullmatch(path.name)
    ]


def go_on(folder: Path, steps: int, choices: Sequence[str] = CHOICES) -> Iterator[str]:
    """A few steps more, to the end of which nothing is left over."""
    before = saved(folder)
    process = start(*again(folder, choices), "--until", str(before + steps), cwd=folder)
    _, said = process.communicate()
    if process.returncode or saved(folder) != before + steps:
        yield f"lost: it did not go on: {said[-300:]}"
    yield from (f"left over: {name}" for name in left_over(folder))


# -- killed


def kill(folder: Path, chance: random.Random, choices: Sequence[str]) -> Iterator[str]:
    """A training that is killed after its first steps, or before them."""
    before = saved(folder)
    process = start(*again(folder, choices), cwd=folder)
    assert process.stderr is not None
    while saved(folder) == before and process.poll() is None:
        time.sleep(0.002)
    time.sleep(chance.random() * SECONDS)
    seen = saved(folder)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        yield f"lost: it ended by itself, {process.returncode}"
    yield from faults(folder, seen)


def compare(folder: Path, choices: Sequence[str] = CHOICES) -> Iterator[str]:
    """With a run that takes as many steps at once."""
    step = saved(folder)
    done = subprocess.run(
        [*PROGRAM, *choices, "--out", "whole", "--until", str(step)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        yield f"different: the other one failed: {done.stderr[-300:]}"
        return
    whole, run = (contents(folder / name) for name in ("whole", "run"))
    for name in {*whole, *run}:
        if whole.get(name) != run.get(name):
            yield f"different: {name} after {step} steps"
    if noted(folder / "run") != noted(folder / "whole"):
        yield f"different: {runs.METRICS} after {step} steps"


def contents(run: Path) -> dict[str, bytes]:
    """Those of its files that a checkpoint may have."""
    paths = [run / name for name in (*FILES, runs.BASE)]
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def noted(run: Path) -> list[dict[str, object]]:
    records = map(json.loads, (run / runs.METRICS).read_text().splitlines())
    return [
        {name: value for name, value in record.items() if name != "seconds"} for record in records
    ]


# -- full


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk with room for few checkpoints. Raises CalledProcessError where that is not allowed."""
    place = folder / "disk"
    place.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(place)],
        check=True,
        capture_output=True,
    )
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, chance: random.Random) -> Iterator[str]:
    """A training on a disk of which a random part is taken; it must say so and leave a whole
    checkpoint.

    Then there is room again.
    """
    before = saved(disk)
    room = os.statvfs(disk)
    # by a save that is the best one
    needed = sum((disk / "run" / name).stat().st_size for name in FILES)
    (disk / "ballast").write_bytes(bytes(room.f_bavail * room.f_frsize - chance.randrange(needed)))
    process = start(*again(disk, CHOICES), "--until", str(before + 200), cwd=disk)
    _, said = process.communicate()
    (disk / "ballast").unlink()
    if "Traceback" in said or process.returncode != 2 or "No space left" not in said:
        yield f"lost: exit code {process.returncode}: {said[-300:]}"
    yield from faults(disk, before)


# -- together


def together(folder: Path, number: int) -> Iterator[str]:
    """Two trainings into one folder."""
    both = [
        start(*CHOICES, "--out", f"pair-{number}", "--until", "5", cwd=folder) for _ in range(2)
    ]
    said = [process.communicate()[1] for process in both]
    codes = sorted(process.returncode for process in both)
    refused = [
        text
        for text in said
        if "is being trained by another process" in text or "is not empty" in text
    ]
    if codes != [0, 2] or len(refused) != 1:
        yield f"lost: two that started together ended with {codes}: {said}"
    try:
        run, model, _ = runs.load(folder / f"pair-{number}")
        progress = runs.resume(run, model, optimizer_of(model, run.training))
    except InputError as error:
        yield f"lost: {error}"
        return
    steps = [record["step"] for record in noted(folder / f"pair-{number}") if "lr" in record]
    if progress.step != 5 or steps != [1, 2, 3, 4, 5]:
        yield f"mixed: step {progress.step}, metrics of {steps}"


# -- the table


def run_kills(count: int, seed: int, choices: Sequence[str] = CHOICES) -> Counter[str]:
    found: Counter[str] = Counter()
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, choices)
        for number in range(count):
            found.update(told(f"kill {number}", kill(folder, chance, choices)))
            found["files a kill left"] += len(left_over(folder))
            if number % 10 == 9:
                found.update(told(f"after kill {number}", go_on(folder, 3, choices)))
        found.update(told("the end", go_on(folder, 3, choices)))
        found["steps"] = saved(folder)
        found.update(told("the end", compare(folder, choices)))
    return found


def run_tuning(count: int, seed: int) -> Counter[str]:
    """The kills of a fine-tuning."""
    return run_kills(count, seed, TUNING)


def run_adapters(count: int, seed: int) -> Counter[str]:
    """The kills of a fine-tuning with adapters."""
    return run_kills(count, seed, ADAPTERS)


def run_aligning(count: int, seed: int) -> Counter[str]:
    """The kills of PPO."""
    return run_kills(count, seed, ALIGNING)


def run_thread(count: int, seed: int) -> Counter[str]:
    """The kills of a training whose thread saves."""
    os.environ[ON_THREAD] = "1"
    try:
        return run_kills(count, seed)
    finally:
        del os.environ[ON_THREAD]


def run_cuda(count: int, seed: int) -> Counter[str]:
    """The kills of a training on a GPU."""
    return run_kills(count, seed, ON_GPU)


def prepare(folder: Path, choices: Sequence[str]) -> None:
    """A text, examples, and the runs of one step that a training of these choices starts from."""
    (folder / "text.txt").write_text(story() * 5)
    words = sorted(set(re.findall("[a-z]+", story())))
    lines = [json.dumps({"instruction": word, "answer": word[0]}) for word in words]
    (folder / "examples.jsonl").write_text("\n".join(lines))
    pairs = [
        json.dumps({"prompt": word, "better": word[0], "worse": word[:2]})
        for word in words
        if len(word) > 1
    ]
    (folder / "pairs.jsonl").write_text("\n".join(pairs))
    brief = ["--steps", "1", "--out"]
    made = [["train", *WIDTH, "--text", "text.txt", *brief, "base"]]
    if choices[0] == "align":
        made.append(["finetune", "base", "--data", "examples.jsonl", *brief, "tuned"])
        made.append(["reward", "tuned", "--data", "pairs.jsonl", *brief, "judge"])
    for arguments in made:
        subprocess.run(
            [*PROGRAM, *arguments], cwd=folder, env=environment(), check=True, capture_output=True
        )


def run_full(count: int, seed: int) -> Counter[str]:
    found: Counter[str] = Counter()
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary, small_disk(Path(temporary)) as disk:
        (disk / "text.txt").write_text(story() * 5)
        found.update(told("the beginning", go_on(disk, 3)))
        for number in range(count):
            found.update(told(f"full disk {number}", fill(disk, chance)))
            found["files a full disk left"] += len(left_over(disk))
            found.update(told(f"after full disk {number}", go_on(disk, 3)))
        found["steps"] = saved(disk)
        found.update(told("the end", compare(disk)))
    return found


def run_together(count: int, seed: int) -> Counter[str]:
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / "text.txt").write_text(story() * 5)
        for number in range(count):
            found.update(told(f"pair {number}", together(Path(temporary), number)))
    return found


def told(what: str, problems: Iterator[str]) -> Iterator[str]:
    """The kind of each problem, which is printed."""
    for problem in problems:
        print(f"{what}: {problem}", file=sys.stderr, flush=True)
        yield problem.partition(":")[0]


WORK: dict[str, Callable[[int, int], Counter[str]]] = {
    "kills": run_kills,
    "finetune": run_tuning,
    "adapters": run_adapters,
    "align": run_aligning,
    "thread": run_thread,
    "cuda": run_cuda,
    "full": run_full,
    "together": run_together,
}
KINDS = ("lost", "mixed", "left over", "different")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in WORK:
        parser.add_argument(f"--{name}", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(
        f"{'':10}{'tries':>7}{'steps':>8}"
        + "".join(f"{kind:>11}" for kind in KINDS)
        + "   files left for the next save to remove"
    )
    bad = 0
    for name, work in WORK.items():
        count = getattr(options, name)
        if count:
            found = work(count, options.seed)
            bad += sum(found[kind] for kind in KINDS)
            left = found["files a kill left"] + found["files a full disk left"]
            print(
                f"{name:10}{count:7,}{found['steps']:8,}"
                + "".join(f"{found[kind]:11,}" for kind in KINDS)
                + f"   {left:,}",
                flush=True,
            )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
