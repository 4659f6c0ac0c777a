"""loss.png of PPO: the numbers of its rollouts, a panel each."""

from __future__ import annotations

from pathlib import Path

from tinygpt.files import RESTORE, drawing, reading, write_picture
from tinygpt.runs.curves import smooth, thin
from tinygpt.runs.metrics import records

# what metrics.jsonl has of a step: the title of its panel
PANELS = {
    "reward": "reward, of the reward model",
    "true_score": "true score, by rule",
    "kl": "KL to the reference (nats a reply)",
    "entropy": "entropy (nats a token)",
    "clipped": "share of tokens that are clipped",
    "length": "length (tokens a reply)",
}


@drawing()
def draw(source: Path, picture: Path) -> None:
    """Draw each of these numbers of a metrics.jsonl, as far as they were noted. Raises InputError
    where the file cannot be read or the picture not be written.
    """
    from matplotlib.figure import Figure  # here: it takes longer to import than all the rest

    with reading(source, RESTORE):
        noted = [record for record in records(source) if record.lr is not None]
    names = [name for name in PANELS if any(getattr(step, name) is not None for step in noted)]
    figure = Figure(figsize=(10, 6), dpi=120, layout="constrained")
    figure.suptitle("Replies of the policy while PPO trains it: means over each rollout")
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(2, 3, place)
        numbers = [(step.step, getattr(step, name)) for step in noted]
        steps, values = zip(*[pair for pair in numbers if pair[1] is not None], strict=True)
        positions = thin(values)
        some = [steps[i] for i in positions]
        axes.plot(some, [values[i] for i in positions], color="tab:blue", alpha=0.25, linewidth=1)
        axes.plot(some, smooth(values, positions), color="tab:blue", linewidth=2)
        axes.set(title=PANELS[name], xlabel="step (rollouts)")
        axes.title.set_fontsize(10)
        axes.grid(alpha=0.3)
    write_picture(figure, picture, "free some space there; the run itself is saved")
