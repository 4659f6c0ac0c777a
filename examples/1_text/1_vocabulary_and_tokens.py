# %% [markdown]
# # The cat sat: from text to numbers and back
#
# A model computes with numbers. So a text is cut into tokens, and each different token gets a
# number, its id. All different tokens together are the vocabulary. Small tokens, such as
# characters, make a small vocabulary and long texts. Large tokens, such as words, make a large
# vocabulary and short texts. Byte pairs are between the two: they begin with single bytes, and join
# the neighbours that are most frequent.

# %%
import re
import textwrap
from collections import Counter
from itertools import pairwise

import tinygpt
from tinygpt import BytePairTokenizer, CharacterTokenizer, TokenizerError

text = tinygpt.story()
print(textwrap.fill(text, 98))

# %% [markdown]
# ## 1. Characters: the vocabulary by hand, in order of first appearance

# %%
vocabulary = list(dict.fromkeys(text))  # a dict keeps its keys in order, and each once
number = {character: i for i, character in enumerate(vocabulary)}
ids = [number[character] for character in "The cat sat"]
print(f"\n{len(text)} characters, {len(vocabulary)} different ones: {''.join(vocabulary)}")
print("The cat sat ->", *ids)

tokenizer = CharacterTokenizer(text)
assert tokenizer.encode("The cat sat") == ids == [0, 1, 2, 3, 4, 5, 6, 3, 7, 5, 6]
assert tokenizer.decode(ids) == "".join(vocabulary[i] for i in ids) == "The cat sat"

# %% [markdown]
# A character that was not in the text has no id:

# %%
try:
    tokenizer.encode("The cow")
except TokenizerError as error:
    print(textwrap.fill(f"TokenizerError: {error}", 98, subsequent_indent="    "))
else:
    raise AssertionError("the story has no w")

# %% [markdown]
# ## 2. Byte pairs by hand
#
# The text is cut into words. The space before a word is part of the word, and no token crosses a
# cut. At first the tokens of a word are its bytes, 0 to 255. Then two steps are repeated: count all
# pairs of neighbours, and make the most frequent pair a token with the next free id.


# %%
def merged(word, pair, token):
    """The word with `token` wherever the pair stood, from left to right."""
    result = []
    for i in word:
        if result and (result[-1], i) == pair:
            result[-1] = token
        else:
            result.append(i)
    return result


def learn(text, show=False):
    """All merges that the text is good for: pair of ids -> new id, in the order in which they were
    learned.
    """
    words = [list(word.encode()) for word in re.findall(r" ?\w+|[^\w\s]", text)]
    names = {i: chr(i) for i in range(128)} | {ord(" "): "_"}  # a space is shown as _
    merges = {}
    while True:
        counts = Counter(pair for word in words for pair in pairwise(word))
        # the most frequent; of equals the one with the smallest ids
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[pair] < 2:
            return merges
        merges[pair] = token = 256 + len(merges)
        names[token] = names[pair[0]] + names[pair[1]]
        words = [merged(word, pair, token) for word in words]
        if show:
            print(
                f"{token}  {names[token]:7} {counts[pair]:2} times    ->  ",
                "  ".join("|".join(names[i] for i in word) for word in words[:6]),
            )


print("\nWhat `The cat sat` teaches: `at`, and no other pair stands there twice.\n")
assert learn("The cat sat", show=True) == {(ord("a"), ord("t")): 256}

print(
    "\nWhat the story teaches, and what becomes of its first six words (| stands between tokens):\n"
)
merges = learn(text, show=True)

# %% [markdown]
# ## 3. The same from the engine, and for a new text
#
# Merges are applied in the order in which they were learned.


# %%
def encode(text):
    """Words, bytes, and then every merge over every word, the first learned first."""
    words = [list(word.encode()) for word in re.findall(r" ?\w+|[^\w\s]", text)]
    for pair, token in merges.items():
        words = [merged(word, pair, token) for word in words]
    return [i for word in words for i in word]


byte_pairs = BytePairTokenizer.train(text, size=256 + len(merges), specials=())
assert list(byte_pairs.merges) == [
    (byte_pairs.tokens[left], byte_pairs.tokens[right]) for left, right in merges
]
for new in ("The cat sat", "The cow sat on the catamaran.", text):
    assert byte_pairs.encode(new) == encode(new)
    assert byte_pairs.decode(encode(new)) == new
    print(f"\n{len(new)} characters, {len(encode(new))} tokens:")
    print(
        textwrap.fill(
            " ".join(f"[{byte_pairs.decode([i])}]".replace(" ", "_") for i in encode(new)), 98
        )
    )

# %% [markdown]
# Every text has tokens: `cow` is not in the text, so it becomes single bytes, which always have an
# id. And the story has less than half as many tokens as characters.

# %%
assert [byte_pairs.decode([i]) for i in encode(" cow")] == [" c", "o", "w"]
assert len(encode(text)) < len(text) / 2
