"""The live line of a training, and Ctrl-C that waits for the end of a step."""

from __future__ import annotations

import signal
from types import FrameType

from tinygpt.terminal import Bar, Signals, duration, short, stop_signals
from tinygpt.training.step import StepRecord


class LiveLine(Bar):
    """The line that follows a training.

    420/1000 ━━━━━━━━━━ loss 0.3121  lr 2.1e-03  norm 0.52  45.1k tok/s  12 s left
    """

    def __init__(self, total: int):
        super().__init__()
        self.total = total
        self._seconds = self._tokens = 0.0  # of recent steps: older ones weigh less and less

    def show(self, record: StepRecord) -> None:
        """Bring the line up to date. Once a record: the speed is a mean over recent ones."""
        self._seconds = 0.95 * self._seconds + record.seconds
        self._tokens = 0.95 * self._tokens + record.tokens
        speed = self._tokens / max(self._seconds, 1e-9)
        left = (self.total - record.step) * record.tokens / max(speed, 1e-9)
        text = (
            f"loss {record.loss:.4f}  lr {record.lr:.1e}  norm {record.gradient_norm:.2f}  "
            f"{short(speed)} tok/s  {duration(left)} left"
        )
        self.draw(record.step, self.total, text)


class Interrupt(Signals):
    """`with Interrupt() as stop:` a signal sets `stop.asked` to its number, so that the step under
    way can end and be saved.

    A second Ctrl-C stops at once. A second signal of another kind does not: a terminal that closes
    may send several.
    """

    def __init__(self) -> None:
        super().__init__(*stop_signals())
        self.asked = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = self.asked or number
