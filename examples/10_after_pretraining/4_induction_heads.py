# %% [markdown]
# # Induction heads: how attention copies what came before
#
#     text          h  q  z  m  e  k  h        the last token is h, as the first one was
#     looks at         ^                       the token after the earlier h: q comes next
#
# A model that has never seen *hqzme* can repeat *hqzme* after it was in the prompt once. This is
# the simplest learning from a prompt. Two layers of attention can do it, and one layer cannot
# (Olsson et al. 2022). First you set two heads by hand. Then you train a GPT of one layer and a GPT
# of two layers. A score tells whether a head works as the one made by hand. Without its heads the
# model can no longer copy. A picture shows what both heads look at.
#
#     B texts   T time (letters)   V vocabulary

# %%
import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import optim
from tinygpt.data.in_context import InContext, task_tokenizer

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads
tokenizer = task_tokenizer("copy")  # a token is one of 26 letters
V, T = tokenizer.size, 40

# %% [markdown]
# ## 1. Two heads by hand
#
# - Head 1 looks one position back, and notes the letter there. So each token holds the letter
#   before it, too.
# - Head 2 compares the letter of a token (the query) with what all tokens noted (the keys). So it
#   finds the tokens that came after the same letter. It copies their letters (the values).
#
# Letters and positions are one-hot: a row with a single 1. A factor of 20 makes the softmax sharp.


# %%
def softmax(scores):
    """The weights of causal attention: a token sees itself and those before."""
    weights = np.exp(scores) * np.tri(len(scores))
    return weights / weights.sum(axis=-1, keepdims=True)


text = "ahqzmekhqzmewhqzm"
letter = np.eye(V)[tokenizer.encode(text)]  # (T, V)
position, next_position = np.eye(len(text)), np.eye(len(text), k=1)  # row t: a 1 at t, at t + 1
head_1 = softmax(20 * position @ next_position.T)
noted = head_1 @ letter  # the letter before, (T, V)
head_2 = softmax(20 * letter @ noted.T)
copied = head_2 @ letter
guesses = tokenizer.decode(copied.argmax(axis=-1).tolist())
repeats = [t for t in range(len(text)) if text[t] in text[:t]]
print("text     ", " ".join(text))
print("comes next", " ".join(guesses[t] if t in repeats else "." for t in range(len(text))))
known = [t for t in repeats if text[t] != "e" and t + 1 < len(text)]  # after e comes k, then w
assert all(guesses[t] == text[t + 1] for t in known)

# %% [markdown]
# Why not one layer? The score of head 2 needs the letter before a token. In the first layer a token
# holds its own letter and its position, and nothing about its neighbour.
#
# ## 2. Two trainings: one layer and two
#
# Each text repeats a sequence of 5 to 8 letters, with other letters between. This is the data of
# `tinygpt train --task copy`. Each layer has one head. The texts to measure on have sequences that
# no training text has, and answers are counted from the second copy on.

# %%
texts = InContext("copy", T, 0, tokenizer, measured=300).drawn(np.arange(300))
asked = texts.known[:, 1:]
print("\na text   ", " ".join(tokenizer.decode(texts.ids[0].tolist())))


def train(layers, steps=300, batch=32, peak=0.04):
    config = tinygpt.GPTConfig(V, T, width=32, heads=1, layers=layers, positions="sinusoidal")
    model = tinygpt.GPT(config, generator=tensor.Generator(0))
    optimizer = optim.Muon(model, lr=peak, betas=(0.9, 0.99), weight_decay=0.1)
    new = InContext("copy", T, 0, tokenizer)
    for step in range(steps):
        optimizer.lr = optim.warmup_cosine(step, peak=peak, warmup=30, total=steps)
        x, y = new[np.arange(step * batch, (step + 1) * batch)]
        optimizer.zero_grad()
        model.loss(x, y).backward()
        optim.clip_gradients(model, 1.0)
        optimizer.step()
    return model


def right_answers(model):
    with tensor.no_grad():
        likeliest = model(texts.ids[:, :-1]).numpy().argmax(axis=-1)
    return (likeliest == texts.ids[:, 1:])[asked].mean()


models = {layers: train(layers) for layers in (1, 2)}
right = {layers: right_answers(model) for layers, model in models.items()}
for layers, share in right.items():
    print(f"layers {layers}: {share:6.1%} of the answers are right")
assert right[2] > 0.97
assert right[1] < right[2] - 0.15

# %% [markdown]
# ## 3. A score finds the heads
#
#     previous  = mean over t of w[t, t - 1], t < 8                what head 1 does
#     induction = mean over t of sum w[t, s + 1], x[s] = x[t]      what head 2 does
#
# w[t, s] is how much token t takes from token s. The sum is over all earlier s with the same
# letter. "previous" is measured at the start of the text, where the first copy is.


# %%
def weights_of(model, ids):
    """The attention weights of each layer, (B, T, T)."""
    with tensor.no_grad(), tensor.record(implementation="reference") as recording:
        model(ids)
    names = [f"blocks.{i}.attention.weights" for i in range(model.config.layers)]
    return [np.asarray(recording[name])[:, 0] for name in names]


ids = texts.ids[:, :-1]
same = ids[:, :, None] == ids[:, None, :]  # [b, t, s]
after = np.zeros_like(same)
after[:, :, 1:] = same[:, :, :-1]  # [b, t, s + 1]
after &= np.tri(T, dtype=bool)  # up to t
scores = {}
print("\n                    previous  induction")
for layers, model in models.items():
    for layer, w in enumerate(weights_of(model, ids)):
        previous = w[:, np.arange(1, 8), np.arange(7)].mean()
        induction = (w * after).sum(axis=-1)[asked].mean()
        scores[layers, layer] = previous, induction
        print(f"layers {layers}, layer {layer}: {previous:12.2f} {induction:10.2f}")
by_chance = (after.sum(axis=-1) / np.arange(1, T + 1))[asked].mean()
print(f"equal weights: {' ':14} {by_chance:10.2f}")
assert scores[2, 0][0] > 0.5
assert scores[2, 1][1] > 0.9
assert scores[1, 0][1] < 0.5

# %% [markdown]
# ## 4. Without the heads
#
# If the output projection of a layer is zero, its head says nothing. Without either head the model
# of two layers can no longer copy. So the heads are not only there: they do the work.

# %%
print()
for layer in (0, 1):
    weight = models[2].blocks[layer].attention.projection.weight
    kept = weight.numpy().copy()
    with tensor.no_grad():
        weight[...] = 0.0
        without = right_answers(models[2])
        weight[...] = kept
    print(f"without the head of layer {layer}: {without:6.1%} right")
    assert without < 0.4
assert right_answers(models[2]) == right[2]

# %% [markdown]
# ## 5. The picture
#
# Left, the head of the first layer. In the first copy of the sequence it looks one token back, next
# to the diagonal. Further down it hardly does, because nobody reads what the tokens there note.
# Right, the head of the second layer: at each letter that was there before, it looks at the token
# after that letter, in the first copy.

# %%
letters = list(tokenizer.decode(ids[0].tolist()))
picture, axes = plt.subplots(1, 2, figsize=(12, 6))
for layer, w in enumerate(weights_of(models[2], ids)):
    axes[layer].imshow(w[0], vmin=0, vmax=1, cmap="Blues")
    axes[layer].set_xticks(np.arange(T), letters, fontsize=7)
    axes[layer].set_yticks(np.arange(T), letters, fontsize=7)
    axes[layer].set_title(f"layer {layer}: what each letter (row) looks at")
picture.tight_layout()
if plt.get_backend().lower() != "agg":  # agg: no screen, nothing to show
    plt.show()
