"""The live line of a training, and Ctrl-C that waits for the end of a step."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

from tinygpt.config import ModelConfig
from tinygpt.terminal import Bar, Signals, duration, short, stop_signals
from tinygpt.training import gpu
from tinygpt.training.step import StepRecord

STOPPING = "stopping after this step; Ctrl-C again stops at once and does not save"


class LiveLine(Bar):
    """The line that follows a training; on a GPU with the memory and with MFU, the share of the
    GPU's peak (gpu.py) that the FLOPs of the tokens take.

    420/1000 ━━━━━━━━━━ loss 0.3121  lr 2.1e-03  norm 0.52  45.1k tok/s  12 s left
    420/1000 ━━━━━━━━━━ loss 3.3121  512k tok/s  MFU 44%  15.2 GiB  2:05:00 left
    """

    def __init__(self, total: int, model: ModelConfig, device: str = "cpu"):
        super().__init__()
        self.total, self.device = total, device
        self._seconds = self._tokens = 0.0  # of recent steps: older ones weigh less and less
        peak = gpu.peak(device)
        self._share = gpu.flops_per_token(model) / peak if peak else 0.0  # of the peak: a token/s

    def show(self, record: StepRecord) -> None:
        """Bring the line up to date. Once a record: the speed is a mean over recent ones."""
        self._seconds = 0.95 * self._seconds + record.seconds
        self._tokens = 0.95 * self._tokens + record.tokens
        speed = self._tokens / max(self._seconds, 1e-9)
        left = (self.total - record.step) * record.tokens / max(speed, 1e-9)
        # beside what a GPU has to say, 80 columns hold one number of a step of a model's own loss
        parts = record.said if self.device == "cpu" else record.said[:1]
        parts += [f"{short(speed)} tok/s", *self._of_gpu(speed), f"{duration(left)} left"]
        self.draw(record.step, self.total, "  ".join(parts))

    def _of_gpu(self, speed: float) -> list[str]:
        """What a GPU has instead of the learning rate and the norm: 80 columns hold no more."""
        if self.device == "cpu":
            return []
        memory = f"{gpu.pool_bytes(self.device) / 2**30:.1f} GiB"
        return [f"MFU {speed * self._share:.0%}", memory] if self._share else [memory]


class Interrupt(Signals):
    """`with Interrupt() as stop:` a signal sets `stop.asked` to its number, so that the step under
    way can end and be saved. Ctrl-C says so at once, for a step may take long.

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
        if number == signal.SIGINT:
            _tell(STOPPING)


def _tell(text: str) -> None:
    """A line on stderr, past its buffer: the signal may have come while that was written."""
    with suppress(OSError, ValueError, AttributeError):  # nobody reads stderr, or there is none
        start = "\n" if sys.stderr.isatty() else ""  # the live line ends in ^C
        os.write(sys.stderr.fileno(), f"{start}{text}\n".encode())
