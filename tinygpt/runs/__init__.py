"""What is on disk: run folders, checkpoints, metrics, curves, GPT-2 files. Uses models and
tokenizers.
"""

from __future__ import annotations

from tinygpt.runs.run import find, load

__all__ = ["find", "load"]
