"""Bugs of tokenizers."""

from __future__ import annotations

from tests.zoo.bug import Bug

FILE = "tinygpt/tokenizers/byte_pair.py"
PAIRS = "tinygpt/tokenizers/pairs.py"
FILES = "tinygpt/tokenizers/gpt2_files.py"
TESTS = "tests/tinygpt/tokenizers/test_byte_pair.py::"

ZOO = [
    Bug(
        row=64,  # a a a holds the pair twice, and both are merged
        file=PAIRS,
        old="            if (ids[position], ids[other]) != pair:",
        new="            if False:",
        test=TESTS + "test_bug_64_overlaps",
    ),
    Bug(
        row=64,  # training merges from the right
        file=PAIRS,
        old="in_order(self.positions.pop(pair))",
        new="reversed(in_order(self.positions.pop(pair)))",
        test=TESTS + "test_bug_64_overlaps",
    ),
    Bug(
        row=64,  # pairs that end where a merge begins are still counted
        file=PAIRS,
        old="            for old in (before[position], position, other):",
        new="            for old in (position, other):",
        test=TESTS + "test_bug_64_merges_of_the_definition",
    ),
    Bug(
        row=64,  # of equals the largest
        file=PAIRS,
        old="            count, pair = heappop(self.heap)\n",
        new=(
            "            count, pair = min(self.heap, key=lambda entry: (entry[0], "
            "-entry[1][0], -entry[1][1]))\n            self.heap.remove((count, pair))\n"
        ),
        test=TESTS + "test_bug_64_ties_go_to_the_smallest_ids",
    ),
    Bug(
        row=64,  # of equals the first of a set of texts, which Python orders anew for every process
        file=PAIRS,
        old="        while self.heap:\n            count, pair = heappop(self.heap)\n",
        new='        named = {f"{left} {right}": (left, right) for left, right in self.counts}\n'
        "        best = named[max(set(named), key=lambda name: self.counts[named[name]])]\n"
        "        return best if self.counts[best] > 1 else None\n"
        "        while self.heap:\n            count, pair = heappop(self.heap)\n",
        test=TESTS + "test_bug_64_training_does_not_depend_on_the_hash_seed",
    ),
    Bug(
        row=64,  # special tokens are numbered in the order of a set
        file=FILE,
        old=(
            "            [*tokens, *map(utf8, specials)],\n"
            "            merges,\n"
            "            {special: i for i, special in enumerate(specials, len(tokens))},\n"
        ),
        new=(
            "            [*tokens, *map(utf8, set(specials))],\n"
            "            merges,\n"
            "            {special: i for i, special in enumerate(set(specials), len(tokens))},\n"
        ),
        test=TESTS + "test_bug_64_training_does_not_depend_on_the_hash_seed",
    ),
    Bug(
        row=64,  # the merge learned last goes first
        file=FILE,
        old="            rank, left = divmod(heappop(waiting), size)",
        new=(
            "            waiting.sort(key=lambda key: (-(key // size), key))\n"
            "            rank, left = divmod(waiting.pop(0), size)"
        ),
        test=TESTS + "test_bug_64_ranks_decide",
    ),
    Bug(
        row=64,  # pairs that a merge made are not merged further
        file=FILE,
        old="            for start in (before[left], left):\n",
        new="            for start in ():\n",
        test=TESTS + "test_bug_64_encoding_of_the_definition",
    ),
    Bug(
        row=64,  # the space before a word stays outside it
        file=FILE,
        old='r" ?\\p{L}+"',
        new='r"\\p{L}+"',
        test=TESTS + "test_bug_64_leading_spaces",
    ),
    Bug(
        row=64,  # several spaces leave none to the word after them
        file=FILE,
        old='            r"\\s+(?!\\S)",',
        new='            # r"\\s+(?!\\S)",',
        test=TESTS + "test_bug_64_words",
    ),
    Bug(
        row=64,  # don't: one word more
        file=FILE,
        old='            r"\'(?:s|t|re|ve|m|ll|d)",',
        new='            # r"\'(?:s|t|re|ve|m|ll|d)",',
        test=TESTS + "test_bug_64_words",
    ),
    Bug(
        row=64,  # the shorter of two special tokens wins
        file=FILE,
        old="sorted(specials, key=len, reverse=True)",
        new="sorted(specials, key=len)",
        test=TESTS + "test_bug_64_specials",
    ),
    Bug(
        row=64,  # a stranger's text ends the document
        file=FILE,
        old="split(text, self.specials if specials else ())",
        new="split(text, self.specials)",
        test=TESTS + "test_bug_64_specials",
    ),
    Bug(
        row=64,  # a character made of several tokens is lost
        file=FILE,
        old='return self.decode_bytes(ids).decode("utf-8", "replace")',
        new=(
            'return "".join(self.tokens[i].decode("utf-8", "replace") for i in checked(ids, '
            "self.size))"
        ),
        test=TESTS + "test_bug_64_invalid_utf8",
    ),
    Bug(
        row=64,  # bytes that are no UTF-8 are lost
        file=FILE,
        old='data.decode("utf-8", "surrogateescape")',
        new='data.decode("utf-8", "replace")',
        test=TESTS + "test_bug_64_any_bytes_come_back",
    ),
    Bug(
        row=64,  # ~ is taken for a character that does not print, which moves the others by one
        file=FILES,
        old='range(ord("!"), ord("~") + 1)',
        new='range(ord("!"), ord("~"))',
        test=TESTS + "test_bug_64_characters_of_bytes",
    ),
    Bug(
        row=64,  # 0xAD, the soft hyphen, is taken for one that prints
        file=FILES,
        old=' - {ord("\\xad")}',
        new="",
        test=TESTS + "test_bug_64_characters_of_bytes",
    ),
    Bug(
        row=64,  # lines that merge a # are taken for comments
        file=FILES,
        old='.replace("\\r\\n", "\\n").split("\\n")',
        new=(
            '.replace("\\r\\n", "\\n").split("\\n")\n'
            '        lines = [line for line in lines if not line.startswith("#")]'
        ),
        test=TESTS + "test_bug_64_newlines_and_marks_in_merges",
    ),
    Bug(
        row=64,  # a newline stands for itself, and ends its line
        file=FILES,
        old=(
            "    return [chr(byte) if byte in prints else chr(next(others)) for byte in range(256)]"
        ),
        new=(
            "    return [chr(byte) if byte in prints or byte == 10 else chr(next(others)) for "
            "byte in range(256)]"
        ),
        test=TESTS + "test_bug_64_newlines_and_marks_in_merges",
    ),
    Bug(
        row=64,  # byte b has id b, as in tokenizers trained here; in GPT-2's it has not
        file=FILE,
        old="[self._ids[BYTES[byte]] for byte in letters",
        new="[byte for byte in letters",
        test=TESTS + "test_bug_64_ids_of_gpt2",
    ),
    Bug(
        row=64,  # the merges of GPT-2's file are one too few: its first line is no merge
        file=FILES,
        old="if number == 1 and line",
        new="if number <= 2 and lines[0]",
        test=TESTS + "test_bug_64_ids_of_gpt2",
    ),
    Bug(
        row=64,  # <|endoftext|> is marks and letters
        file=FILE,
        old='if re.fullmatch(r"<.+>", text) and text not in made]',
        new='if re.fullmatch(r"<.>", text) and text not in made]',
        test=TESTS + "test_bug_64_ids_of_gpt2",
    ),
    Bug(
        row=65,  # as many tokens, so they seem the same
        file="tinygpt/tokenizers/tokenizer.py",
        old="json.dumps(msgspec.to_builtins(self.content()), sort_keys=True)",
        new='json.dumps({"kind": type(self).__name__, "size": self.size}, sort_keys=True)',
        test="tests/tinygpt/tokenizers/test_tokenizers.py::test_bug_65_hash_tells_tokenizers_apart",
    ),
    Bug(
        row=65,  # the same characters in another order seem the same
        file="tinygpt/tokenizers/character.py",
        old="return Characters(self.tokens)",
        new='return Characters("".join(sorted(self.tokens)))',
        test="tests/tinygpt/tokenizers/test_tokenizers.py::test_bug_65_hash_tells_tokenizers_apart",
    ),
    Bug(
        row=65,  # a tokenizer of the same size is taken for the run's own
        file="tinygpt/runs/run.py",
        old="if run.tokenizer and tokenizer.hash != run.tokenizer:",
        new="if False:",
        test="tests/tinygpt/runs/test_run.py::test_bug_65_the_tokenizer_of_another_run",
    ),
    Bug(
        row=65,  # the hash is not kept
        file="tinygpt/runs/run.py",
        old="tokenizer=tokenizer.hash)",
        new='tokenizer="")',
        test="tests/tinygpt/runs/test_run.py::test_bug_65_the_tokenizer_of_another_run",
    ),
    Bug(
        row=93,  # a file may hold any number of texts
        file="tinygpt/tokenizers/tokenizer.py",
        old="    if strings > 2 * TOKENS + 2048:",
        new="    if False:",
        test="tests/tinygpt/tokenizers/test_tokenizers.py"
        "::test_a_hostile_file_of_tokens_takes_no_memory",
    ),
    Bug(
        row=93,  # any number of special tokens, which become one pattern
        file=FILE,
        old="msgspec.Meta(max_length=1024)",
        new="msgspec.Meta(max_length=1 << 30)",
        test="tests/tinygpt/tokenizers/test_tokenizers.py"
        "::test_a_hostile_file_of_tokens_takes_no_memory",
    ),
    Bug(
        row=93,  # what is saved cannot be loaded
        file="tinygpt/tokenizers/tokenizer.py",
        old="        if self.size > TOKENS:",
        new="        if False:",
        test="tests/tinygpt/tokenizers/test_tokenizers.py"
        "::test_no_tokenizer_is_saved_that_could_not_be_loaded",
    ),
    Bug(
        row=93,  # special tokens are not counted before a file is written
        file="tinygpt/tokenizers/tokenizer.py",
        old="            msgspec.convert(content, self.schema)",
        new="            pass",
        test="tests/tinygpt/tokenizers/test_tokenizers.py"
        "::test_no_tokenizer_is_saved_that_could_not_be_loaded",
    ),
    Bug(
        row=93,  # each quotation mark in a token counts as one around a text
        file="tinygpt/tokenizers/tokenizer.py",
        old="""(single.count(b'"') - single.count(rb"\\""))""",
        new="""data.count(b'"')""",
        test="tests/tinygpt/tokenizers/test_tokenizers.py"
        "::test_bug_93_tokens_of_quotation_marks_are_not_texts",
    ),
    Bug(
        row=93,  # an escaped backslash is taken to escape what comes after it
        file="tinygpt/tokenizers/tokenizer.py",
        old="""data.replace(rb"\\\\", b"")""",
        new="data",
        test="tests/tinygpt/tokenizers/test_tokenizers.py"
        "::test_texts_are_counted_whatever_is_in_them",
    ),
]
