"""The GPT: embedding, blocks of attention and feed-forward, head. Uses `tensor` and the
configuration.
"""

from __future__ import annotations

from tinygpt.model.gpt import GPT

__all__ = ["GPT"]
