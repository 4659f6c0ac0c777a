# %% [markdown]
# # BERT fills in what is hidden
#
#     text      The cat sat on
#     x   [CLS] The c[MASK]t sat on            some tokens are hidden
#     y                a                       the model answers what was there
#
# A GPT learns to say what comes next, so it may see only what came before. BERT is an encoder: each
# token sees all tokens, also the next one. So there is nothing to learn in what comes next. Instead
# some tokens are hidden, and BERT learns to fill them in from both sides.      Devlin et al. 2018

# %%
import numpy as np

from tensor import no_grad
from tensor.random import Generator, Key
from tinygpt import BERT, BERTConfig, CharacterTokenizer, TrainConfig, floor, story
from tinygpt.data.masked import MASKS, Masked, masked
from tinygpt.data.windows import Windows
from tinygpt.generation.fill import fill, masked_ids
from tinygpt.ids import CLS, IGNORED, MASK, MASK_TOKENS
from tinygpt.tokenizers import SpecialTokenizer
from tinygpt.training.step import arithmetic, train

tokenizer = SpecialTokenizer(CharacterTokenizer(story()), MASK_TOKENS)
print("special tokens:", dict(enumerate(tokenizer.special)))
text = "The cat sat on the mat. "
ids = np.array(tokenizer.encode(text))
assert tokenizer.decode([CLS, *ids]) == "[CLS]" + text

# %% [markdown]
# ## 1. Masks by hand
#
# 15 % of the tokens are targets. If all of them were hidden, the model would learn nothing about
# tokens that are there. So of the targets 80 % become [MASK], 10 % become a random token, and 10 %
# stay as they are. The model does not know which of the tokens that it sees are right. So it must
# judge each token by the others.

# %%
rng = np.random.default_rng(1)
x, y = ids.copy(), np.full(len(ids), IGNORED)
targets = rng.permutation(len(ids))[: round(0.15 * len(ids))]
y[targets] = ids[targets]
for place in targets:
    kind = rng.random()
    if kind < 0.8:
        x[place] = MASK
    elif kind < 0.9:
        x[place] = rng.integers(len(MASK_TOKENS), tokenizer.size)
print(f"text  {text}\nx     {tokenizer.decode(x)}")
print("y    ", {int(i): tokenizer.decode([y[i]]) for i in sorted(targets)})
assert np.count_nonzero(y != IGNORED) == 4
assert np.array_equal(np.where(y == IGNORED, x, y), ids), "x with the answers is the text"

# %% [markdown]
# `masked` does the same. Its draws follow from a key of four numbers, and from nothing else. So a
# training that stops and goes on hides the same tokens. Over many draws the shares are as they
# should be:

# %%
drawn = [masked(ids, tokenizer.size, Key(0, number)) for number in range(2000)]
seen = np.concatenate([x[y != IGNORED] for x, y in drawn])
right = np.concatenate([y[y != IGNORED] for _, y in drawn])
shares = (seen == MASK).mean(), (seen == right).mean()
print(f"hidden {shares[0]:.3f}, left as they are {shares[1]:.3f} of {len(seen):,} targets")
assert abs(shares[0] - 0.8) < 0.02
assert abs(shares[1] - 0.1) < 0.02

# %% [markdown]
# ## 2. Train it on the story
#
# The loop is that of the GPT, and the loss is cross-entropy too. A target of -1 counts for nothing,
# so only hidden tokens (and the few others that are targets) teach.

# %%
context = 32
story_ids = np.array(tokenizer.inner.encode(story()))
windows = Windows(story_ids, context - 2)
examples = Masked(windows, tokenizer.size, seed=0, masks=MASKS)
config = BERTConfig(tokenizer.size, context, norm="pre", positions="sinusoidal")
training = TrainConfig(
    task="masked", steps=450, optimizer="muon", muon_lr=0.04, lr=6e-3, final_lr=0.0, warmup=10
)
model = BERT(config, generator=Generator(0))
with arithmetic(config, training):
    losses = [record.loss for record in train(model, examples, training)]
model.eval()
first, last = np.mean(losses[:20]), np.mean(losses[-20:])
print(f"mean loss of the first 20 steps {first:.3f}, of the last 20 steps {last:.3f}")
assert last < 0.5

# %% [markdown]
# ## 3. Fill in
#
# Several hidden letters belong to one word. If each were filled in alone, the first letter could be
# of one word and the second of another. `fill` takes the surest [MASK] first, and the others then
# see this letter.

# %%
for question in ("The c[MASK]t sat on the m[MASK]t.", "The [MASK][MASK][MASK] sat on the mat."):
    answer = masked_ids(tokenizer, question)
    print(question)
    for step in fill(model, answer):
        answer[step.position] = step.token
        print(f"    p {step.p[step.token]:.3f}   {tokenizer.decode(answer)}")
    assert tokenizer.decode(answer) == "The cat sat on the mat."

# %% [markdown]
# ## 4. Beside a model that sees one side
#
# What does a model know that sees only what came before? The best one counts: after the same
# beginning, how often did each letter come? At the start of a window after "The " it cannot know
# which animal comes. BERT reads on.

# %%
beginning = "The "
after = [part[0] for part in story().split(beginning)[1:]]
print(f"after {beginning!r}:", {letter: after.count(letter) for letter in sorted(set(after))})
(step,) = fill(model, masked_ids(tokenizer, "The [MASK]at sat on the mat."))
letter = tokenizer.decode([step.token])
print(f"BERT on 'The [MASK]at sat on the mat.': {letter!r} with p {step.p[step.token]:.3f}")
assert after.count("c") / len(after) < 0.7
assert letter == "c"
assert step.p[step.token] > 0.9

# %% [markdown]
# Now each letter of each window, hidden one at a time. No model that sees one side of these windows
# has a lower loss than `floor`. BERT is below this floor, because it sees both sides.

# %%
texts = windows.texts(slice(None)) + len(MASK_TOKENS)  # (N, T)
found = []
with no_grad():
    for place in range(texts.shape[1]):
        x = texts.copy()
        x[:, place] = MASK
        logits = model(np.insert(x, 0, CLS, axis=1)).log_softmax(-1).numpy()[:, 1 + place]
        found.append(logits[np.arange(len(texts)), texts[:, place]])
loss, one_side = -np.mean(found), floor(story_ids, context)
print(f"loss on a hidden letter: {loss:.4f} nats; the floor of one side: {one_side:.4f}")
assert loss < one_side

# %% [markdown]
# But BERT cannot write. To write, a model must say what comes next, with nothing on the right. BERT
# never learned this. `tinygpt train --task masked` trains a BERT on any text, and `tinygpt sample`
# fills in with `--fill`. `tinygpt embed` gives a text a vector, the mean of its hidden states.
