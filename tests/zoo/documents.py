"""Bugs of a text of several documents: tokens and texts that change without a word."""

from __future__ import annotations

from tests.zoo.bug import Bug

DOCUMENTS = "tinygpt/data/documents.py"
TESTS = "tests/tinygpt/data/test_documents.py::"
PARTS = TESTS + "test_documents_do_not_depend_on_the_parts"
STOPS = TESTS + "test_a_sample_stops_at_the_end_of_a_document"

ZOO = [
    Bug(  # a mark that is cut by two reads is text
        row=97,
        file=DOCUMENTS,
        old="text[: max(0, len(text) - len(END) + 1)].rstrip()",
        new="text.rstrip()",
        test=PARTS,
    ),
    Bug(  # the last document has no end
        row=97,
        file=DOCUMENTS,
        old="for part in chain(parts, [END]):",
        new="for part in parts:",
        test=PARTS,
    ),
    Bug(  # white space before a mark is learned
        row=97,
        file=DOCUMENTS,
        old="rest = document.rstrip() if begun",
        new="rest = document if begun",
        test=PARTS,
    ),
    Bug(  # a mark over two parts is not found, and one document is read
        row=97,
        file=DOCUMENTS,
        old="last = last[1 - len(END) :]",
        new='last = ""',
        test=TESTS + "test_a_mark_over_two_parts_is_found",
    ),
    Bug(  # a run of an older version goes on with other tokens
        row=97,
        file="tinygpt/runs/run.py",
        old='if "documents" not in',
        new='if "text" not in',
        test=TESTS + "test_an_older_run_goes_on_with_its_own_text",
    ),
    Bug(  # a sample goes on after the end
        row=97,
        file="tinygpt/commands/sample.py",
        old="if step.token in begun.ends or texts[i].ended:",
        new="if texts[i].ended:",
        test=STOPS,
    ),
    Bug(  # another stop takes the place of the end
        row=97,
        file="tinygpt/commands/sample.py",
        old="[*ends, *end])",
        new="end)",
        test=STOPS,
    ),
    Bug(  # the end counts as 13 bytes of the text
        row=97,
        file="tinygpt/commands/eval.py",
        old="np.unique(ids[ids != tokenizer.specials.get(END)], return_counts=True)",
        new="np.unique(ids, return_counts=True)",
        test=STOPS,
    ),
    Bug(  # the special tokens of the inner tokenizer have the ids of its text
        row=97,
        file="tinygpt/tokenizers/special.py",
        old="{name: i + k for name, i in inner.specials.items()}",
        new="dict(inner.specials)",
        test="tests/tinygpt/tokenizers/test_special.py::test_special_tokens_before_special_tokens",
    ),
    Bug(  # two special tokens are left out in place of those before
        row=97,
        file="tinygpt/tokenizers/special.py",
        old="rest = self.special[count:]",
        new="rest = self.special[:count]",
        test="tests/tinygpt/tokenizers/test_special.py::test_special_tokens_before_special_tokens",
    ),
    Bug(  # white space that ends the list of characters is no token
        row=97,
        file="tinygpt/commands/tokenize.py",
        old='CharacterTokenizer("".join(characters))',
        new='CharacterTokenizer("".join(characters).strip())',
        test=TESTS + "test_white_space_in_a_document_is_a_token",
    ),
]
