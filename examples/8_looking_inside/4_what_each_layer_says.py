# %% [markdown]
# # What would each layer say?
#
#     logits after block i = head(final_norm(x_i))        x_i: the stream after block i
#
# The head of a GPT reads the stream after the last block. But every block adds to the same stream.
# So the head can read it after any block, as if the model ended there. This is called the logit
# lens. It shows how a prediction grows from block to block. The method `hidden_states` gives the
# stream: the embeddings first, then the stream after each block. At the end there is a picture.
#
#     B batch   T time   C width   V vocabulary

# %%
import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import Tensor, nn, optim

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads

# %% [markdown]
# ## 1. A GPT with four blocks learns the story

# %%
story = tinygpt.story()
tokenizer = tinygpt.CharacterTokenizer(story)
ids = tokenizer.encode(story)
x, y = tinygpt.windows(ids, 32)  # (N, T)
config = tinygpt.GPTConfig(vocabulary=tokenizer.size, context=32, width=32, heads=4, layers=4)
model = tinygpt.GPT(config, generator=tensor.Generator(0))
optimizer, batches = optim.AdamW(model, lr=1e-2), tensor.Generator(0)
for step in range(200):
    optimizer.lr = optim.warmup_cosine(step, peak=1e-2, warmup=20, total=200)
    rows = batches.integers(0, len(x), (16,))
    optimizer.zero_grad()
    loss = model.loss(x[rows], y[rows])
    loss.backward()
    optim.clip_gradients(model, 1.0)
    optimizer.step()
model.eval()
print(f"loss {loss.item():.3f}")

# %% [markdown]
# ## 2. The head reads every stream
#
# The table shows the loss over all windows, and how many next characters are guessed right. After
# the last block this is the loss of the model itself.

# %%
with tensor.no_grad():
    states = [state.numpy() for state in model.hidden_states(x)]  # 5 x (N, T, C)
    said = [model.logits(model.final_norm(Tensor(state))) for state in states]
    losses = [tensor.cross_entropy(logits, y).item() for logits in said]
    own_loss = model.loss(x, y).item()
guesses = [logits.numpy().argmax(-1) for logits in said]
names = ["embeddings", *(f"block {i}" for i in range(1, 5))]
print("\nthe head after   loss    right    says the last character again")
for name, value, guess in zip(names, losses, guesses, strict=True):
    print(f"{name:16} {value:5.2f}   {np.mean(guess == y):6.1%}   {np.mean(guess == x):6.1%}")
assert np.isclose(losses[-1], own_loss, atol=1e-5)
assert losses[-1] < min(losses[:-1])
assert np.mean(guesses[-1] == y) > 0.9

# %% [markdown]
# ## 3. One line, layer by layer
#
# Under each character stands the guess for the next one. _ is a space.

# %%
line = "The dog ran in the park. "
with tensor.no_grad():
    stream = model.hidden_states(tokenizer.encode(line))
    p = [model.logits(model.final_norm(state)).softmax(-1).numpy()[0] for state in stream]
right = tokenizer.encode(line[1:] + "T")
print("\nread        ", " ".join(line.replace(" ", "_")))
for name, layer in zip(names, p, strict=True):
    print(f"{name:12}", " ".join(tokenizer.decode(layer.argmax(-1).tolist()).replace(" ", "_")))
print("comes next  ", " ".join(tokenizer.decode(right).replace(" ", "_")))

# %% [markdown]
# The embeddings say the character itself, each time. The head is tied: it compares the stream with
# the embeddings of all characters, and each embedding is most like itself. So the blocks have two
# tasks: to remove the character that was read, and to add the one that comes next.

# %%
assert np.mean(guesses[0] == x) > 0.99

# %% [markdown]
# ## 4. Easy characters are ready early
#
# For each character: after which block is the guess right, and stays right? Inside a word the
# letters before decide. At the start of a word the model must know the words before.

# %%
rightly = np.stack([guess == y for guess in guesses])  # (5, N, T)
# how many of the last layers in a row are right, counted from the top
in_a_row = np.cumprod(rightly[::-1], axis=0).sum(axis=0)
ready = len(names) - in_a_row  # (N, T): 5 where the model is wrong at the end
space = tokenizer.encode(" ")[0]
kinds = {
    "a space or a dot": (y == space) | (y == tokenizer.encode(".")[0]),
    "the start of a word": x == space,
}
kinds["inside a word"] = ~kinds["a space or a dot"] & ~kinds["the start of a word"]
print("\nready after         ", *(f"{name:>8}" for name in names[1:]), "   never     mean")
means = {}
for kind, where in kinds.items():
    shares = [np.mean(ready[where] == layer) for layer in range(1, 6)]
    means[kind] = ready[where & (ready < 5)].mean()
    print(f"{kind:20}", *(f"{share:8.1%}" for share in shares), f"{means[kind]:8.2f}")
assert means["inside a word"] < means["the start of a word"]

# %% [markdown]
# ## 5. What the lens does not see
#
# The model was trained to be read after the last block only. After the others the stream may hold
# more than this head can read. So give each stream a head of its own, and train these heads alone:
# the model does not change. A head of its own shows how much of the answer is there for a linear
# reader.

# %%
heads = [nn.Linear(config.width, config.vocabulary) for _ in names]
readers = [parameter for head in heads for parameter in head.parameters()]
optimizer, batches = optim.AdamW(readers, lr=3e-2, weight_decay=0.0), tensor.Generator(1)
with tensor.no_grad():
    normed = [model.final_norm(Tensor(state)).numpy() for state in states]
for step in range(200):
    optimizer.lr = optim.warmup_cosine(step, peak=3e-2, warmup=20, total=200)
    rows = batches.integers(0, len(x), (16,))
    optimizer.zero_grad()
    for head, h in zip(heads, normed, strict=True):
        tensor.cross_entropy(head(Tensor(h[rows])), y[rows]).backward()
    optimizer.step()
print("\nloss after      the model's head   a head of its own")
with tensor.no_grad():
    own = [
        tensor.cross_entropy(head(Tensor(h)), y).item()
        for head, h in zip(heads, normed, strict=True)
    ]
for name, lens, value in zip(names, losses, own, strict=True):
    print(f"{name:14} {lens:18.2f} {value:19.2f}")
assert all(own[i] < losses[i] for i in range(4))
assert own[0] > own[1] > own[2] > own[3]

# %% [markdown]
# The embeddings hold the character and its position in the window. So with a head of its own the
# first row reaches what a table of pairs of characters reaches (4_networks/3_softmax_and_loss.py).
# The rest is the work of the blocks.

# %%
one_before = tinygpt.floor(ids, 1)
print(f"\nthe best that one character before can do: {one_before:.2f}")
assert abs(own[0] - one_before) < 0.3

figure, ax = plt.subplots(figsize=(11, 3.5), layout="constrained")
of_right = np.stack([layer[np.arange(len(line)), right] for layer in p])  # (5, T)
figure.colorbar(ax.imshow(of_right, cmap="cividis", vmin=0, vmax=1, aspect="auto"), ax=ax)
ax.set_xticks(range(len(line)), list((line[1:] + "T").replace(" ", "_")))
ax.set_yticks(range(len(names)), names)
ax.set(title="Probability of the character that comes next", xlabel="comes next")
if plt.get_backend().lower() != "agg":  # agg: no screen, nothing to show
    plt.show()
