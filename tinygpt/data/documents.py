"""A text of several documents, with a special token after each.

    text       The cat sat.\\n<|endoftext|>\\nThe dog ran.\\n
    tokens     T h e _ c a t _ s a t . <|endoftext|> T h e _ d o g _ r a n . <|endoftext|>

The text marks where a document ends, as the published text of TinyStories does. White space at both
ends of a document is left out, and so is a document of white space alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, groupby

from tinygpt.tokenizers import Tokenizer, TokenizerError
from tinygpt.tokenizers.byte_pair import END

EMPTY_LINE = "\n\n"  # between two files, where no special token is


def between_files(documents: bool, tokenizer: Tokenizer | None) -> str:
    """What stands between two files. tokenizer: the one that reads them; None: it is made later."""
    known = tokenizer is None or END in tokenizer.specials
    return END if documents and known else EMPTY_LINE


def marked(parts: Iterable[str]) -> Iterator[str]:
    """The documents of a text that comes in parts, wherever it is cut. A document is one part or
    several, and END is a part of its own after each document, also after the last.
    """
    waiting, begun = "", False  # begun: a part of this document was given
    for part in chain(parts, [END]):
        *ended, text = (waiting + part).split(END)
        for document in ended:
            rest = document.rstrip() if begun else document.strip()
            if rest:
                yield rest
            if rest or begun:
                yield END
            begun = False
        if not begun:
            text = text.lstrip()
        # the last characters may begin END, and the white space before them may end the document
        certain = text[: max(0, len(text) - len(END) + 1)].rstrip()
        if certain:
            yield certain
            begun = True
        waiting = text[len(certain) :]


def holds_end(parts: Iterable[str]) -> bool:
    """Whether END stands in a text that comes in parts. Reads no further than the first."""
    last = ""
    for part in parts:
        last += part
        if END in last:
            return True
        last = last[1 - len(END) :]
    return False


def encode_documents(tokenizer: Tokenizer, parts: Iterable[str]) -> Iterator[list[int]]:
    """The ids of a text that comes in parts, with the tokenizer's END after each document. Raises
    TokenizerError, with the number of the document, for what the tokenizer does not know.
    """
    number = 1
    for is_end, pieces in groupby(marked(parts), END.__eq__):
        if is_end:
            yield [tokenizer.specials[piece] for piece in pieces]
            number += 1
            continue
        try:
            yield from tokenizer.encode_parts(pieces)
        except TokenizerError as error:
            raise TokenizerError(f"document {number:,}: {error}") from None


def encode_text(tokenizer: Tokenizer, text: str, several: bool) -> list[int]:
    """The ids of a text. several: it has several documents, and each ends with END."""
    if several:
        return list(chain.from_iterable(encode_documents(tokenizer, [text])))
    return tokenizer.encode(text)


def without_cut(text: str) -> str:
    """The text without the first characters of END at its end, which a cut can leave."""
    first = max(0, len(text) - len(END) + 1)
    return text[: next(i for i in range(first, len(text) + 1) if END.startswith(text[i:]))]
