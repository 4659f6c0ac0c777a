# %% [markdown]
# # The loss on the answer alone
#
#     x   <|user|>  a   b   c  <|assistant|>  c   b   a
#     y      -1    -1  -1  -1        c        b   a  <|end|>
#
# Pretraining makes a model that goes on with any text. Fine-tuning on instructions makes a model
# that answers. The model and the training step stay the same. Two things are new: special tokens
# say who speaks, and the loss counts the answer alone.      Ouyang et al. 2022, section 3.5

# %%
import numpy as np

from tensor import Tensor, cross_entropy, no_grad
from tensor.random import Generator
from tinygpt import GPT, CharacterTokenizer, GPTConfig, SampleConfig
from tinygpt.config import FinetuneConfig
from tinygpt.data.instructions import Example, Instructions
from tinygpt.generation.answers import continued
from tinygpt.ids import CHAT_TOKENS, IGNORED
from tinygpt.tokenizers import SpecialTokenizer
from tinygpt.training.measure import mean_loss
from tinygpt.training.step import arithmetic, train

LETTERS = "abcdefgh"
tokenizer = SpecialTokenizer(CharacterTokenizer(LETTERS), CHAT_TOKENS)
USER, ASSISTANT, END = range(3)
print("special tokens:", dict(enumerate(tokenizer.special)))

# %% [markdown]
# ## 1. One example by hand
#
# The question is `abc`, and the answer is the same letters backwards. In one sequence, `<|user|>`
# stands before the question, `<|assistant|>` before the answer, and `<|end|>` after the answer. The
# target of each token is the token after it, as in pretraining. A target of -1 counts for nothing.

# %%
prompt = [USER, *tokenizer.encode("abc"), ASSISTANT]
answer = [*tokenizer.encode("cba"), END]
whole = np.array(prompt + answer)
x, y = whole[:-1], whole[1:].copy()
y[: len(prompt) - 1] = IGNORED
for token, target in zip(x, y, strict=True):
    print(f"{tokenizer.decode([token]):>14}   {tokenizer.decode([target]) if target >= 0 else -1}")

rows = Instructions([Example("abc", "cba")], tokenizer, context=8)
assert np.array_equal(rows[[0]], (x[None], y[None])), "Instructions makes the same row"
assert np.count_nonzero(y != IGNORED) == len("cba") + 1

# %% [markdown]
# ## 2. The shift
#
# Why `len(prompt) - 1`, and not `len(prompt)`? `<|assistant|>` is the last token of the prompt, and
# its target is the first token of the answer. With one -1 too many, no position learns how an
# answer begins. Without the shift, the target of a token is the token itself. Then there is nothing
# to learn: the model sees what it is asked for.

# %%
first = np.flatnonzero(y != IGNORED)[0]
assert tokenizer.decode([x[first]]) == "<|assistant|>"
assert tokenizer.decode([y[first]]) == "c"
too_many = y.copy()
too_many[: len(prompt)] = IGNORED
print("one -1 too many: learned is", repr(tokenizer.decode(too_many[too_many >= 0])))
assert tokenizer.decode(too_many[too_many >= 0]) == "ba<|end|>", "the beginning is missing"

# %% [markdown]
# ## 3. Padding
#
# Examples have different lengths. In a batch, the shorter rows are filled up at the end. The tokens
# there have no effect: in causal attention no token sees a later one, and the targets there are -1.
# So the loss is the mean over the targets that count, of all rows together.

# %%
config = GPTConfig(tokenizer.size, 16, 32, 4, 2)
model = GPT(config, generator=Generator(0), dtype="float64").eval()
pair = Instructions([Example("abc", "cba"), Example("abcdef", "fedcba")], tokenizer, context=16)
x, y = pair[[0, 1]]
with no_grad():
    logits = model(x)
    alone = model(x[0, :8]).numpy()
    other = np.where(np.arange(x.shape[1]) < 8, x[0], 5)
    assert np.allclose(logits.numpy()[0, :8], alone[0], atol=1e-12), "no token sees the padding"
    assert np.array_equal(model(other).numpy()[0, :8], model(x[0]).numpy()[0, :8])
    each = cross_entropy(logits, Tensor(np.where(y == IGNORED, 0, y)), reduction="none").numpy()
    loss = float(model.loss(x, y))
counts = y != IGNORED
print(f"targets that count: {counts.sum(1).tolist()} of {y.shape[1]} places in each row")
print(f"loss {loss:.4f}: the mean over {counts.sum()} targets")
assert np.isclose(loss, each[counts].mean(), rtol=1e-12)

# %% [markdown]
# Two means are wrong. The mean over all places counts padding and prompts as zeros, and so depends
# on the longest row of the batch. The mean of the rows' means gives a token of a short answer more
# weight than a token of a long one. Both differ from the loss:

# %%
over_places = (each * counts).mean()
of_means = np.mean([row[count].mean() for row, count in zip(each, counts, strict=True)])
print(f"over all places {over_places:.4f}, mean of the rows' means {of_means:.4f}")
assert over_places < 0.5 * loss
assert abs(of_means - loss) > 1e-4

# %% [markdown]
# ## 4. What changes if the prompt counts
#
# Two models learn to write five letters backwards. They have the same weights at the start, and see
# the same batches. The first learns the answers. For the second each token is a target, as in
# pretraining. The letters of a question are random: nobody can predict them better than one in
# eight, ln 8 = 2.08 nats a letter.


# %%
class EveryToken:
    """The same rows, in which the tokens of the prompt are targets too. No row is padded here."""

    def __init__(self, rows):
        self.rows, self.context = rows, rows.context

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, numbers):
        x, y = self.rows[numbers]
        return x, np.concatenate([x[:, 1:], y[:, -1:]], axis=1)


def learned(rows):
    """A model after 250 steps on those rows."""
    model = GPT(GPTConfig(tokenizer.size, rows.context, 32, 4, 2), generator=Generator(0))
    choices = FinetuneConfig(steps=250, batch=32, lr=3e-3)
    with arithmetic(model.config, choices):
        for _ in train(model, rows, choices):
            pass
    return model.eval()


draws = np.random.default_rng(0).choice(list(LETTERS), (3000, 5))
questions = list(dict.fromkeys("".join(letters) for letters in draws))
examples = [Example(question, question[::-1]) for question in questions]
learn, held = (Instructions(part, tokenizer, 13) for part in (examples[200:], examples[:200]))
models = {"answer": learned(learn), "every token": learned(EveryToken(learn))}

# %%
print("targets        exact answers   loss of the answers   loss of every token")
exact, losses = {}, {}
for name, model in models.items():
    greedy = SampleConfig(length=6, temperature=0)
    found = map(tokenizer.decode, continued(model, held.prompts, greedy, held.end))
    exact[name] = np.mean([a == b for a, b in zip(found, held.answers, strict=True)])
    losses[name] = mean_loss(model, held), mean_loss(model, EveryToken(held))
    print(f"{name:14} {exact[name]:13.1%} {losses[name][0]:21.4f} {losses[name][1]:21.4f}")
assert exact["answer"] > 0.95
assert exact["every token"] < 0.3
assert losses["answer"][0] < 0.1 < losses["every token"][0]

# %% [markdown]
# The first model answers questions that it never saw. In the same steps the second model does not
# learn the answers. Five of its twelve targets are random letters, and these teach nothing about an
# answer. On new questions no training takes their 5 ln 8 nats away:

# %%
floor = 5 * np.log(8) / 12
print(f"floor of the loss of every token: 5 ln 8 / 12 = {floor:.4f}")
assert losses["every token"][1] > floor
assert losses["every token"][1] < losses["answer"][1], "this is what the second model learned"

# %% [markdown]
# The second model learned how people ask: five letters after `<|user|>`, then `<|assistant|>`. The
# first model never learned this, and has no need to. So the two losses do not compare: a loss says
# something only together with what it counts. `tinygpt finetune` counts the answer alone.

# %%
shares = {}
for name, model in models.items():
    x, _ = held[range(100)]
    with no_grad():
        p = model(x).softmax(-1).numpy()
    shares[name] = p[:, 5, ASSISTANT].mean()
    print(f"{name:14} p(<|assistant|>) after five letters: {shares[name]:.3f}")
assert shares["every token"] > 0.95
assert shares["answer"] < 0.5
