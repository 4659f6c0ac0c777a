"""Token ids as arrays, and the target that counts for nothing."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Ids: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

# a target that counts for nothing: what lies after the end of a text, or was counted before
IGNORED = -1

# the special tokens of pairs of a source and a target, by their ids
PAD, SOS, EOS = 0, 1, 2  # fills a row up; begins a target; ends a target
PAIR_TOKENS = "<pad>", "<sos>", "<eos>"
