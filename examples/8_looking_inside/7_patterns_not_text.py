# %% [markdown]
# # Patterns, not text, are in the weights
#
#     text       300 stories, 23,000 letters         a file of letters
#     weights    28,000 numbers                      a file of numbers
#
# A model is trained on a text, and then the text is taken away. This lesson looks for the text in
# the file of the weights, and does not find it. Then the model writes stories. A grammar made the
# training text, so it can judge each story: was it in the text, is it new and right, or is it
# wrong? The last part shows the other side: a model can know a text by heart.

# %%
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import optim
from tinygpt.config import SampleConfig
from tinygpt.data import grammar
from tinygpt.generation.generate import steps
from tinygpt.runs import checkpoint

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads

# %% [markdown]
# ## 1. A grammar that makes the text
#
# A rule returns the ways to write a symbol. The name decides He or She, and the place comes twice.
# A model that has learned this can be told from a model that has not.

# %%
NAMES = {"Tom": "He", "Ben": "He", "Sam": "He", "Max": "He"}
NAMES |= {"Mia": "She", "Ann": "She", "Eva": "She", "Lea": "She"}
PLACES = "park", "garden", "house", "wood"


def tale():
    return grammar.evenly(
        (f"{name} was a ", (animal,), ". ", (rest, pronoun, place))
        for name, pronoun in NAMES.items()
        for place in PLACES
    )


def animal():
    sizes, kinds = ("", "big ", "small "), ("cat", "dog", "fox")
    return grammar.evenly((size + kind,) for size in sizes for kind in kinds)


def rest(pronoun, place):
    return grammar.evenly(
        (
            f"{pronoun} liked the {place}. {pronoun} {verb} in the {place}. "
            f"{pronoun} was {feeling}.\n",
        )
        for verb in ("ran", "slept", "played")
        for feeling in ("happy", "tired", "hungry")
    )


possible = len(NAMES) * len(PLACES) * len(grammar.choices((animal,))) * 9
told = list(islice(grammar.stories(0, (tale,)), 300))
text = "".join(told)
print(f"{len(set(told))} different stories of {possible:,} that the grammar can make, such as")
print(told[0])
assert np.isclose(grammar.log_probability((tale,), told[0]), -np.log(possible)), "all as likely"

# %% [markdown]
# ## 2. A GPT of words learns them
#
# Each story is an example, with the line end before it as the first token.

# %%
tokenizer = tinygpt.WordTokenizer(text)
(end,) = tokenizer.encode("\n")
rows = [[end, *tokenizer.encode(story)] for story in told]
context = max(map(len, rows)) - 1
x, y = np.full((2, len(rows), context), -1)  # a target of -1 counts for nothing
for i, row in enumerate(rows):
    x[i, : len(row) - 1], y[i, : len(row) - 1] = row[:-1], row[1:]
x[x < 0] = end


def train(model, x, y, count, peak):
    optimizer, batches = optim.AdamW(model, lr=peak), tensor.Generator(0)
    for step in range(count):
        batch = batches.integers(0, len(x), (24,))
        optimizer.lr = optim.warmup_cosine(step, peak=peak, warmup=20, total=count)
        optimizer.zero_grad()
        loss = model.loss(x[batch], y[batch])
        loss.backward()
        optim.clip_gradients(model, 1.0)
        optimizer.step()
    return loss.item()


config = tinygpt.GPTConfig(tokenizer.size, context, width=32, heads=4, layers=2)
model = tinygpt.GPT(config, generator=tensor.Generator(0))
loss = train(model, x, y, count=400, peak=1e-2)
floor = grammar.entropy((tale,)) / np.mean([len(row) - 1 for row in rows])
print(f"loss {loss:.3f} nats a token; the grammar's own is {floor:.3f}")
assert loss < floor + 0.06

# %% [markdown]
# ## 3. What of the text is in the file?
#
# Every piece of five letters of the text is looked for in the file of the weights. For comparison,
# it is looked for in the file of the tokenizer, which has a list of words.


# %%
def pieces(letters, size=5):
    """All different pieces of a text, as bytes."""
    return {letters[i : i + size].encode() for i in range(len(letters) - size + 1)}


def in_a_file(save):
    """The bytes that `save` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        save(path)
        return path.read_bytes()


def weights_file(model):
    """model.safetensors of a run."""
    arrays = {name: weights.array for name, weights in model.state_dict().items()}
    return in_a_file(lambda path: checkpoint.write_arrays(path, arrays))


weights, words = weights_file(model), in_a_file(tokenizer.save)
for name, file in (("text", text.encode()), ("weights", weights), ("tokenizer", words)):
    found = sum(piece in file for piece in pieces(text))
    print(f"{name:10}{len(file):9,} bytes   {found:5} of {len(pieces(text)):,} pieces of the text")
assert not any(piece in weights for piece in pieces(text))
assert b"garden" in words, "the tokenizer has the words, and none of the sentences"
assert b"the garden" not in words

# %% [markdown]
# The file of the weights is larger than the text, and no piece of the text is in it. A weight is a
# number that took part in every prediction, and every story changed it a little.
#
# ## 4. What does the model write?
#
# It draws 64 stories. A table of neighbours draws 64 more: it counts which word follows which word,
# and knows nothing else.


# %%
def by_the_model(count):
    """Stories, each drawn token by token after a line end."""
    generators = [tensor.Generator(100 + i) for i in range(count)]
    written, ended = [[] for _ in range(count)], set()
    how = SampleConfig(length=context)
    for i, step in steps(model, [[end]] * count, how, generators, ended):
        written[i].append(step.token)
        if step.token == end:
            ended.add(i)
    return [tokenizer.decode(ids) for ids in written]


def by_neighbours(count):
    """Stories, each word drawn by how often it follows the word before."""
    words = [story.replace(" ", " \0").split("\0") for story in told]
    after = {}
    for story in words:
        for left, right in zip(["\n", *story], story, strict=False):
            after.setdefault(left, []).append(right)
    rng, drawn = np.random.default_rng(0), []
    for _ in range(count):
        story = ["\n"]
        while len(story) < 40 and (len(story) == 1 or not story[-1].endswith("\n")):
            story.append(rng.choice(after[story[-1]]))
        drawn.append("".join(story[1:]))
    return drawn


def judged(stories):
    """How many were in the text, are new and grammatical, are wrong."""
    kinds = {"in the text": 0, "new and right": 0, "wrong": 0}
    for story in stories:
        try:
            grammar.log_probability((tale,), story)
            kinds["in the text" if story in told else "new and right"] += 1
        except ValueError:
            kinds["wrong"] += 1
    return kinds


drawn = by_the_model(64)
for name, stories in (("the model", drawn), ("neighbours", by_neighbours(64))):
    print(f"\n{name}: {judged(stories)}")
    print(next(story for story in stories if story not in told), end="")
of_model, of_neighbours = judged(drawn), judged(by_neighbours(64))
assert of_model["new and right"] > 2 * of_model["in the text"], "it writes, and does not copy"
assert of_model["new and right"] > 16 > 2 * of_neighbours["new and right"]

# %% [markdown]
# So the weights hold rules such as "after Mia comes She". Most stories that the model writes right
# were in no text that it saw. Some are wrong: the rules are learned from examples, and nobody wrote
# them down.
#
# ## 5. The other side: a text by heart
#
# A model that sees 149 letters hundreds of times learns each of them. It then writes the text
# letter by letter. The letters are still not in the file. But whoever has the file can have the
# text, so the file of a model is no safe place for a secret.

# %%
story = tinygpt.story()
letters = tinygpt.CharacterTokenizer(story)
x, y = tinygpt.windows(letters.encode(story), 32)
config = tinygpt.GPTConfig(letters.size, 32, width=32, heads=4, layers=2)
by_heart = tinygpt.GPT(config, generator=tensor.Generator(0))
train(by_heart, x, y, count=260, peak=1e-2)
start = story[:16]
written = letters.decode(by_heart.generate(letters.encode(start), len(story) - 16, temperature=0))
print(f"\n{written}")
assert written == story, "every letter of it"
assert not any(piece in weights_file(by_heart) for piece in pieces(story))
