# %% [markdown]
# # Who is she? Which head looks back at the name
#
#     share of a head = sum of its weights w[t, s] over all s where the name stands
#     share by chance = (how often the name stands there) / (t + 1): equal weights
#
# *Mia was a small dog. She met a cat named Tom.* A reader knows that She is Mia. The grammar of the
# stories knows this too: it writes He or She only where a single animal can be meant. So you can
# measure how much each head of attention looks from the pronoun back to the name. This lesson
# compares two GPTs of one block. The first predicts the next word, as usual. The second is asked at
# each pronoun: who is it?
#
#     B stories   T time (words)   H heads   D head width

# %%
import textwrap
from itertools import islice

import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import optim
from tinygpt.data.grammar import NAMES, stories
from tinygpt.ids import IGNORED

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads
text = "".join(islice(stories(seed=0), 2000))
tokenizer = tinygpt.WordTokenizer(text)
(space,) = tokenizer.encode(" ")  # there is one between any two words: nothing to learn
HEADS = 4


def words_of(story):
    """The tokens of a story, with the end of the story before."""
    return [tokenizer.decode([i]) for i in tokenizer.encode("\n" + story) if i != space]


def number(word):
    return tokenizer.encode(word)[0]


# %% [markdown]
# ## 1. What a pronoun stands for
#
# Tom and Ben are he, Mia and Ann are she. Before a pronoun there is only one name to which it can
# refer.


# %%
def references(words):
    """(place of a pronoun, places of its name, places of other names), for each He and She."""
    found = []
    for t, word in enumerate(words):
        if word in ("He", "She"):
            names = [(s, name) for s, name in enumerate(words[:t]) if name in NAMES]
            meant = {name for _, name in names if NAMES[name] == word}
            assert len(meant) == 1, "one animal only"
            its = [s for s, name in names if name in meant]
            found.append((t, its, [s for s, name in names if name not in meant]))
    return found


new = [words_of(story.rstrip("\n")) for story in islice(stories(seed=1), 300)]  # to measure on
shown = next(words for words in new if {"He", "She"} <= set(words))
print(textwrap.fill(" ".join(shown[1:]), 98))
for t, its, _ in references(shown):
    print(f"    {shown[t]:3} at {t:2} is {shown[its[0]]}, at {', '.join(map(str, its))}")

# %% [markdown]
# ## 2. Two models, and where their heads look
#
# Both see the same stories. They differ in the targets. For the second model all targets are left
# out (-1), except at the pronouns. There the target is the name.

# %%
lines = [words_of(story + "\n") for story in text.splitlines()]
T = max(map(len, lines)) - 1
x = np.full((len(lines), T), number("\n"))
next_word, who = np.full((2, len(lines), T), IGNORED)
for row, words in enumerate(lines):
    ids = [number(word) for word in words]
    x[row, : len(ids) - 1], next_word[row, : len(ids) - 1] = ids[:-1], ids[1:]
    for t, its, _ in references(words):
        who[row, t] = ids[its[0]]


def train(y, steps):
    config = tinygpt.GPTConfig(tokenizer.size, T, width=32, heads=HEADS, layers=1)
    model = tinygpt.GPT(config, generator=tensor.Generator(0))
    optimizer, batches = optim.AdamW(model, lr=1e-2), tensor.Generator(0)
    for step in range(steps):
        optimizer.lr = optim.warmup_cosine(step, peak=1e-2, warmup=20, total=steps)
        rows = batches.integers(0, len(x), (16,))
        optimizer.zero_grad()
        loss = model.loss(x[rows], y[rows])
        loss.backward()
        optim.clip_gradients(model, 1.0)
        optimizer.step()
    return model, loss.item()


def attention_weights(model, ids):
    """How much word t takes from word s, by head: (B, H, T, T)."""
    block = model.blocks[0]
    qkv = block.attention.qkv(block.attention_norm(model.embed(ids))).numpy()
    q, k, _ = np.moveaxis(qkv.reshape(*ids.shape, 3, HEADS, -1), (2, 3), (0, 2))  # (B, H, T, D)
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    scores = np.where(np.tri(ids.shape[1], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


unseen = np.full((len(new), T), number("\n"))
for row, words in enumerate(new):
    unseen[row, : len(words)] = [number(word) for word in words]


def shares(model, back, other=False):
    """Mean share on the name, from `back` words before the pronoun: for each pronoun (H,), and by
    chance. other: the share on the names of the other animal, in the stories that have one.
    """
    with tensor.no_grad():
        weights = attention_weights(model, unseen)
    found, chance = {"He": [], "She": []}, []
    for row, words in enumerate(new):
        for t, its, others in references(words):
            places = others if other else its
            if places:
                found[words[t]].append(weights[row, :, t - back, places].sum(axis=0))
                chance.append(len(places) / (t - back + 1))
    return {word: np.mean(each, axis=0) for word, each in found.items()}, np.mean(chance)


def table(name, found, chance):
    print(name)
    for word, each in found.items():
        print(f"    {word:4}", *(f"{share:7.2f}" for share in each), f"     by chance {chance:.2f}")


title = "         " + "".join(f"  head {head}" for head in range(HEADS))

# %% [markdown]
# ## 3. The model that predicts the next word
#
# From which word does the model look back? Hardly from the pronoun. To write "liked" after "She",
# the model need not know who she is. But one word earlier, at the full stop, the model must choose
# between He and She. There the model needs the name.

# %%
model, loss = train(next_word, 400)
print(f"\nnext word: loss {loss:.2f}\nmean share on the name\n{title}")
at_pronoun, chance = shares(model, 0)
before, chance_before = shares(model, 1)
table("from the pronoun", at_pronoun, chance)
table("from the word before", before, chance_before)
at_best, before_best = (max(sum(f.values())) / 2 for f in (at_pronoun, before))
print(f"best head: {at_best:.2f} from the pronoun, {before_best:.2f} from the word before")
assert before_best > 3 * chance_before
assert before_best > 1.5 * at_best

# %% [markdown]
# ## 4. The model that is asked who it is
#
# Here the name is needed at the pronoun, and the heads look back from there. Some heads find the
# name for He, and some for She. They do not take any name: in a story with two animals they leave
# out the other one.

# %%
asked, loss = train(who, 300)
found, chance = shares(asked, 0)
others, chance_others = shares(asked, 0, other=True)
print(f"\nwho is it: loss {loss:.3f}\nmean share, from the pronoun\n{title}")
table("on the name", found, chance)
table("on the name of the other animal", others, chance_others)
for word, each in found.items():
    best = int(each.argmax())
    print(f"head {best} finds {word}: {each[best]:.2f}, {each[best] / chance:.0f} times chance")
    assert each[best] > 0.9
    assert others[word][best] < 0.1

with tensor.no_grad():
    answers = asked(unseen).numpy().argmax(axis=-1)  # (B, T)
right = []
for row, words in enumerate(new):
    right += [answers[row, t] == number(words[its[0]]) for t, its, _ in references(words)]
print(f"right answers in new stories: {sum(right)} of {len(right)}")
assert np.mean(right) > 0.98

# %% [markdown]
# So a head does not look at a name because the two words belong together in the language. It looks
# there if the name helps to predict the target.
