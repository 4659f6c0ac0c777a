"""Bugs of texts and of foreign files: text cut wrongly, text that was to be kept back, settings
that are read past.
"""

from __future__ import annotations

from tests.zoo.bug import Bug

STREAMS = "tests/tinygpt/generation/test_text.py::"
FOUND = "tests/tinygpt/runs/test_gpt2_found.py::"
SPLIT = "tests/tinygpt/data/test_kept_back.py::"

ZOO = [
    Bug(
        row=87,  # each token decoded alone: a character of two tokens is lost
        file="tinygpt/generation/text.py",
        old="self.characters.decode(self.tokenizer.decode_bytes([token]))",
        new="self.tokenizer.decode([token])",
        test=STREAMS + "test_bug_87_every_stream_of_bytes_is_that_of_decode",
    ),
    Bug(
        row=87,  # bytes that wait at the end are dropped
        file="tinygpt/generation/text.py",
        old='self._certain(self.characters.decode(b"", final=True)) + self.waiting',
        new="self.waiting",
        test=STREAMS + "test_bug_87_every_stream_of_bytes_is_that_of_decode",
    ),
    Bug(
        row=87,  # half of a character after the stop is written
        file="tinygpt/generation/text.py",
        old="        if self.ended:\n            return",
        new="        if False:\n            return",
        test=STREAMS + "test_bug_87_byte_pairs_that_end_inside_a_character",
    ),
    Bug(
        row=87,  # what may begin the stop is written before it is sure
        file="tinygpt/generation/text.py",
        old="            self.waiting = text[end:]\n",
        new="            end = len(text)\n",
        test=STREAMS + "test_bug_87_every_stop_is_found_where_it_stands",
    ),
    Bug(
        row=87,  # a prompt ends at characters that are no line ends
        file="tinygpt/commands/sample.py",
        old='read_text(options.prompts).split("\\n")',
        new="read_text(options.prompts).splitlines()",
        test=STREAMS + "test_bug_87_a_line_of_prompts_ends_at_a_newline_alone",
    ),
    Bug(
        row=88,  # a short text is learned from as a whole
        file="tinygpt/data/prepare.py",
        old="    kept = kept_back(len(ids), 0.0 if is_story else config.validation, context)\n",
        new=(
            "    kept = int(len(ids) * config.validation)\n"
            "    kept *= kept > 1 and len(ids) - kept > context\n"
        ),
        test=SPLIT + "test_bug_88_any_split_of_any_text_is_kept",
    ),
    Bug(
        row=88,  # a share of less than two tokens is nothing to measure on, and nobody says so
        file="tinygpt/data/windows.py",
        old=" and (kept >= 2 or share == 0)",
        new="",
        test=SPLIT + "test_bug_88_any_split_of_any_text_is_kept",
    ),
    Bug(
        row=88,  # the same in a token folder
        file="tinygpt/data/token_files.py",
        old="kept_back(tokens, validation)",
        new="int(tokens * validation)",
        test=SPLIT + "test_bug_88_a_token_folder_keeps_what_it_said",
    ),
    Bug(
        row=88,  # --validation is read past
        file="tinygpt/training/starting.py",
        old="    elif config.pairs is None and config.text in BUILT_IN:\n",
        new="    elif False:\n",
        test=SPLIT + "test_bug_88_texts_of_which_nothing_can_be_kept_back",
    ),
    Bug(
        row=50,  # a run goes on with any text that is named
        file="tinygpt/training/jobs.py",
        old="        return data if data.hash == run.text else None\n",
        new="        return data\n",
        test="tests/tinygpt/training/test_moved_text.py::test_bug_50_the_same_text_elsewhere",
    ),
    Bug(
        row=89,  # settings of the tokenizer are read past
        file="tinygpt/tokenizers/gpt2_folder.py",
        old="    check_settings(msgspec.structs.asdict(settings), SETTING, where)\n",
        new="",
        test=FOUND + "test_bug_89_a_setting_that_changes_ids_is_refused",
    ),
    Bug(
        row=89,  # tokens of the settings are ordinary text
        file="tinygpt/tokenizers/gpt2_folder.py",
        old="ids | added, specials | {*added, *named}",
        new="ids | added, specials",
        test=FOUND + "test_bug_89_ids_and_texts_are_those_of_transformers",
    ),
    Bug(
        row=89,  # a token in brackets is special, though no file says so
        file="tinygpt/tokenizers/gpt2_folder.py",
        old="    specials |= {END} & ids.keys()\n",
        new="    specials |= {text for text in ids if text[0] + text[-1] in ('[]', '<>')}\n",
        test=FOUND + "test_bug_89_ids_and_texts_are_those_of_transformers",
    ),
    Bug(
        row=89,  # every text gets a token before it, and nobody says so
        file="tinygpt/tokenizers/gpt2_folder.py",
        old="""if '"SpecialToken"' in after""",
        new="""if "nothing" in after""",
        test=FOUND + "test_bug_89_settings_inside_tokenizer_json",
    ),
    Bug(
        row=89,  # the normaliser, which rewrites the text, is read past
        file="tinygpt/tokenizers/gpt2_folder.py",
        old='{"normalizer": (None,)}, where)',
        new="{}, where)",
        test=FOUND + "test_bug_89_settings_inside_tokenizer_json",
    ),
    Bug(
        row=61,  # the exact GELU taken for the tanh form
        file="tinygpt/runs/gpt2.py",
        old='"gelu": "gelu_erf"',
        new='"gelu": "gelu"',
        test=FOUND + "test_other_choices_compute_what_transformers_computes",
    ),
    Bug(
        row=61,  # the norms of the blocks keep the usual epsilon
        file="tinygpt/model/block.py",
        old="self.attention_norm = nn.LayerNorm(config.width, config.epsilon)",
        new="self.attention_norm = nn.LayerNorm(config.width)",
        test=FOUND + "test_other_choices_compute_what_transformers_computes",
    ),
    Bug(
        row=61,  # the compiled decoder computes the tanh form whatever the model has
        file="tensor/kernels/cpu/decoder.py",
        old='if activation in ("gelu", "relu")',
        new="if activation",
        test=FOUND + "test_other_choices_compute_what_transformers_computes",
    ),
    Bug(
        row=97,  # UTF-16 is read as letters with zeros between
        file="tinygpt/data/reading.py",
        old="            if looks_like_utf_16(data):\n",
        new="            if False:\n",
        test="tests/tinygpt/data/test_reading.py::test_utf_16_is_suspected_aloud",
    ),
]
