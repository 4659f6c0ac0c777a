"""The transformers: embedding, blocks of attention and feed-forward, head. Uses `tensor` and the
configuration.
"""

from __future__ import annotations

from tinygpt.model.bert import BERT
from tinygpt.model.encoder_decoder import EncoderDecoder
from tinygpt.model.gpt import GPT

__all__ = ["BERT", "GPT", "EncoderDecoder"]
