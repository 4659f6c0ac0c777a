"""Bugs of encoder and decoder blocks: who sees whom, and padding."""

from __future__ import annotations

from tests.zoo.bug import Bug

ATTENTION, BLOCK = "tinygpt/model/attention.py", "tinygpt/model/block.py"
PAIRS = "tinygpt/model/encoder_decoder.py"
SEEN = "tests/tinygpt/model/test_encoder_decoder.py::"
TORCH = "tests/tinygpt/model/test_torch_layers.py::"

ZOO = [
    Bug(  # an encoder that looks back only
        row=97,
        file=PAIRS,
        old="Block(config, causal=False)",
        new="Block(config)",
        test=SEEN + "test_each_token_of_the_source_reaches_all_outputs_of_the_encoder",
    ),
    Bug(  # a decoder that sees the right answer
        row=97,
        file=PAIRS,
        old="Block(config, cross=True)",
        new="Block(config, causal=False, cross=True)",
        test=SEEN + "test_no_token_of_the_target_sees_the_future",
    ),
    Bug(  # the encoder reads padding
        row=97,
        file=PAIRS,
        old="around = Around(mask=self.mask(source))",
        new="around = Around()",
        test=SEEN + "test_appended_padding_changes_nothing",
    ),
    Bug(  # the decoder reads what the encoder made of padding
        row=97,
        file=PAIRS,
        old="memory=self.encode(source), memory_mask=mask",
        new="memory=self.encode(source)",
        test=SEEN + "test_what_padding_holds_changes_no_bit",
    ),
    Bug(  # self-attention forgets its mask
        row=97,
        file=ATTENTION,
        old="self.attend(self.qkv(x), None, mask, self.causal)",
        new="self.attend(self.qkv(x), None, None, self.causal)",
        test=TORCH + "test_an_encoder_block",
    ),
    Bug(  # cross-attention forgets its mask
        row=97,
        file=ATTENTION,
        old="self.attend(self.q(x), kv, mask)",
        new="self.attend(self.q(x), kv, None)",
        test=TORCH + "test_a_decoder_block",
    ),
    Bug(  # the sum is normed without its first term
        row=97,
        file=BLOCK,
        old="else norm(x + layer(x))",
        new="else norm(layer(x))",
        test=TORCH + "test_an_encoder_block",
    ),
    Bug(  # feed-forward before cross-attention
        row=97,
        file=BLOCK,
        old="return [*parts, (self.feed_forward_norm, self.feed_forward)]",
        new="return [parts[0], (self.feed_forward_norm, self.feed_forward), *parts[1:]]",
        test=TORCH + "test_a_decoder_block",
    ),
    Bug(  # the last block's output leaves without its norm
        row=97,
        file=BLOCK,
        old="        return x if final_norm is None else final_norm(x)\n    assert",
        new="        return x\n    assert",
        test=TORCH + "test_the_encoder_decoder",
    ),
]
