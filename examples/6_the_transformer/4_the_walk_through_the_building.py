# %% [markdown]
# # The walk through the building
#
# *The cat sat* enters a building, and nine people work on it until the next word is found. The
# building is a small GPT that has learned the story, with one token for each word. The lesson
# computes every number of the model by hand, and compares with the model's own. These are the
# people, and their names in the field:
#
# 1. the receptionist cuts the text into pieces: the tokenizer (1_text/1_vocabulary_and_tokens.py)
# 2. the cataloguer gives each piece a number: the ids
# 3. the semantic analyst knows what a piece means: the embedding (8_looking_inside/2_embeddings.py)
# 4. the context manager knows where it stands: the positions (5_attention/1_positions.py)
# 5. the attention coordinator says which piece listens to which: the weights of attention
#    (5_attention/2_attention_by_hand.py)
# 6. the analysts, one on each floor, write the reports: the layers (6_the_transformer/2_a_block.py)
# 7. the committee scores each word of the catalogue: the logits
# 8. the calculator makes probabilities of the scores: softmax (4_networks/3_softmax_and_loss.py)
# 9. the system appends a word, and everything begins again: generation (7_training/2_generation.py)
#
# Then a message goes down through the building: it says how each number should change. At the end
# there is a picture.
#
#     T tokens   C width of a token's numbers   H heads   D head width, C / H   V vocabulary

# %%
import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import optim

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads
story = tinygpt.story()
tokenizer = tinygpt.WordTokenizer(story)
(space,) = tokenizer.encode(" ")


def ids_of(text):
    """The ids of words and marks. There is a space between any two words: nothing to learn."""
    return [i for i in tokenizer.encode(text) if i != space]


windows, targets = tinygpt.windows(ids_of(story), 12)
config = tinygpt.GPTConfig(vocabulary=tokenizer.size, context=12, width=24, heads=2, layers=3)
building = tinygpt.GPT(config, generator=tensor.Generator(0))
optimizer, batches = optim.AdamW(building, lr=1e-2), tensor.Generator(0)
for step in range(150):
    rows = batches.integers(0, len(windows), (16,))
    optimizer.lr = optim.warmup_cosine(step, peak=1e-2, warmup=20, total=150)
    optimizer.zero_grad()
    loss = building.loss(windows[rows], targets[rows])
    loss.backward()
    optimizer.step()
print(story)
print(f"\nthe building has learned these words: loss {loss.item():.3f}\n")
building.eval()
C, H, V = config.width, config.heads, config.vocabulary
D = C // H


def few(numbers, count=4):
    return "[" + " ".join(f"{x:5.2f}" for x in numbers[:count]) + " ...]"


def size(x):
    return float(np.sqrt(np.mean(np.square(x))))


# %% [markdown]
# ## 1 and 2. The receptionist cuts, the cataloguer numbers
#
# The most frequent pieces have the lowest numbers.

# %%
text = "The cat sat"
words, ids = text.split(), ids_of(text)
T = len(ids)
print("piece    number")
for word, i in zip(words, ids, strict=True):
    print(f"{word:8} {i:6}")
assert [tokenizer.decode([i]) for i in ids] == words

# %% [markdown]
# ## 3 and 4. What a piece means, and where it stands
#
# The semantic analyst has a card with C numbers for each word, and the context manager has one for
# each position. All were learned. The sum of the two cards enters the building: the stream x.

# %%
cards, places = building.token_embedding.weight.numpy(), building.position_embedding.numpy()
x = cards[ids] + places[:T]  # (T, C)
print("\npiece    meaning                          + position                       = enters")
for t, word in enumerate(words):
    print(f"{word:8} {few(cards[ids[t]])}   {few(places[t])}   {few(x[t])}")
assert np.array_equal(x, building.embed(ids).numpy()[0])

# %% [markdown]
# ## 5 and 6. On each floor: the coordinator, then the analyst
#
# The coordinator works with H teams (the heads). For each piece a team writes a question q, a label
# k and a content v. It compares the question of a piece with the labels of this piece and of those
# before it. So each piece gets a mixture of contents. Then the analyst of the floor looks at each
# piece alone (the feed-forward), and adds a report to the stream.
#
#     weights = softmax(q k^T / sqrt(D), the future masked)
#     add to x:  (weights v, all teams side by side) W, then feed_forward(norm(x))


# %%
def norm(x, layer):
    """Every piece brought to mean 0 and size 1, then the layer's gain and bias."""
    centred = x - x.mean(-1, keepdims=True)
    normed = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + layer.eps)
    return layer.gain.numpy() * normed + layer.bias.numpy()


def through(x, layer):
    return x @ layer.weight.numpy() + layer.bias.numpy()


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


future = np.triu(np.ones((T, T), bool), 1)
streams, weights = [x], []  # after each floor: (T, C); on each floor: (H, T, T)
print("\n                 to sat, from")
print("              " + "".join(f"{word:>6}" for word in words))
for floor, block in enumerate(building.blocks, start=1):
    qkv = through(norm(x, block.attention_norm), block.attention.qkv)  # (T, 3C)
    q, k, v = qkv.reshape(T, 3, H, D).transpose(1, 2, 0, 3)  # 3 x (H, T, D)
    scores = np.where(future, -np.inf, q @ k.transpose(0, 2, 1) / np.sqrt(D))  # (H, T, T)
    looks = softmax(scores)
    brought = through((looks @ v).transpose(1, 0, 2).reshape(T, C), block.attention.projection)
    x = x + brought
    inner = through(norm(x, block.feed_forward_norm), block.feed_forward.expand)  # (T, 4C)
    gelu = inner / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
    report = through(gelu, block.feed_forward.projection)
    x = x + report
    streams.append(x)
    weights.append(looks)
    for team in range(H):
        shares = "".join(f"{share:6.0%}" for share in looks[team, -1])
        print(f"{f'floor {floor}' if team == 0 else '':8}team {team + 1}{shares}")
    print(f"        size of what the teams add {size(brought[-1]):.2f}", end=", ")
    print(f"of the analyst's report {size(report[-1]):.2f}")
    assert np.allclose(looks.sum(-1), 1)
    assert (looks[:, future] == 0).all(), "nobody is told anything by a later piece"

tensors = building.hidden_states(ids)  # the model's own stream: (1, T, C) each
off = max(np.abs(own.numpy()[0] - x).max() for own, x in zip(tensors, streams, strict=True))
print(f"after all floors: largest difference to the model's own stream {off:.0e}")
assert off < 1e-4

# %% [markdown]
# ## 7. The committee: which word continues best?
#
# First comes the final norm. Then the committee compares x with each card of the catalogue: the
# score of a word is the inner product of its card with x. (The cards are those of the semantic
# analyst: the head is tied.)

# %%
logits = norm(x, building.final_norm) @ cards.T  # (T, V)
assert np.allclose(logits, building(ids).numpy()[0], atol=1e-3)
order = np.argsort(-logits[-1])

# %% [markdown]
# ## 8. The calculator: from scores to probabilities
#
# A difference of scores becomes a ratio of probabilities: 1.3 more is e^1.3 = 3.67 times as likely,
# whatever the other scores are. So the scores 8.5, 7.2, 6.1, 4.3, -2.1 and -5.7 give about 73 %,
# 20 %, 7 %, 1 %, 0 % and 0 %.

# %%
example = softmax(np.array([8.5, 7.2, 6.1, 4.3, -2.1, -5.7]))
print("\n8.5, 7.2, 6.1, 4.3, -2.1, -5.7 ->", " ".join(f"{p:.2%}" for p in example))
assert np.isclose(example[0] / example[1], np.exp(1.3))
assert np.allclose(example, [0.7256, 0.1977, 0.0658, 0.0109, 0.0, 0.0], atol=1e-4)
p = softmax(logits)
print("\nafter 'The cat sat'   score   probability")
for i in (*order[:4], order[-1]):
    print(f"    {tokenizer.decode([int(i)]):15} {logits[-1, i]:8.2f}   {p[-1, i]:11.2%}")
assert tokenizer.decode([int(order[0])]) == "on"
assert p[-1, order[0]] > 0.9

# %% [markdown]
# The calculator is asked after each piece, not only after the last. After "The cat" the calculator
# is not sure: in the story "sat", "and" and "liked" follow. The loss is the mean of -ln p of the
# words that do come.

# %%
right = ids_of("cat sat on")
print("\nafter        comes    p of it   -ln p   expected most")
for t, i in enumerate(right):
    seen = " ".join(words[: t + 1])
    best = tokenizer.decode([int(p[t].argmax())])
    print(f"{seen:12} {tokenizer.decode([i]):8} {p[t, i]:7.2f} {-np.log(p[t, i]):7.2f}   {best}")
loss = float(np.mean([-np.log(p[t, i]) for t, i in enumerate(right)]))
print(f"loss {loss:.4f}; the model's own {building.loss(ids, right).item():.4f}")
assert np.isclose(loss, building.loss(ids, right).item(), atol=1e-4)
after_cat = {tokenizer.decode([int(i)]) for i in np.argsort(-p[1])[:3]}
assert after_cat == {"sat", "and", "liked"}

# %% [markdown]
# ## 9. The system: append the word, and begin again
#
# Each new word goes in at the door with all words before it.

# %%
print()
written = list(ids)
for _ in range(5):
    probabilities = softmax(building(written).numpy()[0, -1])
    best = int(probabilities.argmax())
    line = " ".join(tokenizer.decode([i]) for i in written)
    print(f"{line:26} -> {tokenizer.decode([best]):5} {probabilities[best]:.2f}")
    written.append(best)
assert " ".join(tokenizer.decode([i]) for i in written) == "The cat sat on the mat . The"
assert written == building.generate(ids, 5, temperature=0)

# %% [markdown]
# ## 10. The message goes down: the backward pass
#
# The calculator tells the committee how each score changes the loss: (p - 1 at the right word, p
# elsewhere) / T. From there each floor passes on how its own input changes the loss, down to the
# cards. All floors add to the stream on the way up. So on the way down the message passes through
# the stream, and every floor adds a part.

# %%
table = building.token_embedding.weight
scores = building.logits(building.final_norm(tensors[-1]))
again = tensor.cross_entropy(scores, np.array([right]))
at_scores, *down = (g.numpy()[0] for g in tensor.grad(again, [scores, *tensors], retain_graph=True))
by_hand = (p - np.eye(V)[right]) / T
print("\ngradient at the scores, by hand and by the engine: ", end="")
print(f"largest difference {np.abs(at_scores - by_hand).max():.0e}")
assert np.allclose(at_scores, by_hand, atol=1e-6)
names = ("door", *(f"above floor {floor}" for floor in range(1, 4)))
for name, gradient, there in reversed(list(zip(names, down, streams, strict=True))):
    print(f"    {name:14} gradient {size(gradient):.4f}, stream {size(there):.2f}")

# %% [markdown]
# The card of cat hears from two sides: cat came in at the door, and cat was scored after each
# piece. A word that did not come in was scored all the same.

# %%
building.zero_grad()
again.backward()
h = norm(x, building.final_norm)
cat, dog = ids[1], ids_of("dog")[0]
as_card, as_score = down[0][1], by_hand[:, cat] @ h
print(
    f"\ncat: from the door {size(as_card):.4f}, from the scores {size(as_score):.4f}: they add up"
)
print(f"dog: from the scores {size(by_hand[:, dog] @ h):.4f}")
assert np.allclose(table.grad.numpy()[cat], as_card + as_score, atol=1e-5)
assert np.allclose(table.grad.numpy()[dog], by_hand[:, dog] @ h, atol=1e-6)

with tensor.no_grad():
    for parameter in building.parameters():
        parameter -= 0.05 * parameter.grad
after = building.loss(ids, right).item()
print(f"all numbers move a little against what they heard: loss {loss:.4f} -> {after:.4f}")
assert after < loss

# %%
figure, axes = plt.subplots(H, 4, figsize=(13, 6), layout="constrained")
for floor, looks in enumerate(weights):
    for team in range(H):
        ax = axes[team, floor]
        ax.imshow(looks[team], cmap="cividis", vmin=0, vmax=1)
        ax.set(title=f"floor {floor + 1}, team {team + 1}", xlabel="from", ylabel="to")
        ax.set_xticks(range(T), words)
        ax.set_yticks(range(T), words)
top = order[:6][::-1]
axes[0, 3].barh([repr(tokenizer.decode([int(i)])) for i in top], p[-1, top])
axes[0, 3].set(title="what comes after sat", xlabel="probability", xlim=(0, 1))
axes[1, 3].barh(names, [size(gradient) for gradient in down], color="tab:orange")
axes[1, 3].set(title="the message on its way down", xlabel="size of the gradient")
if plt.get_backend().lower() != "agg":  # agg: no screen, nothing to show
    plt.show()
