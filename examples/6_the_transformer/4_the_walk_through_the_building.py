# %% [markdown]
# # The walk through the building
#
# *The cat sat* enters a building. At the door a receptionist gives each piece of text a number. A
# cataloguer looks up a card for each number. On each floor analysts compare the pieces and bring
# them reports; then each piece goes into a room of its own, where workers look at it. At the top a
# scoring committee says how well each card of the catalogue would continue the text. A calculator
# turns the scores into probabilities and draws one card. Then the calculator sends a message down
# through the building: it says how each number should change.
#
# The building is a small GPT that has learned the story. The lesson computes every number of the
# model, and compares it with the model's own. These are the people in the words of the field:
#
# - the receptionist is the tokenizer (1_text/1_vocabulary_and_tokens.py)
# - the cataloguer is the embedding (8_looking_inside/2_embeddings.py), with the positions
#   (5_attention/1_positions.py)
# - the analysts are the heads of attention (5_attention/2_attention_by_hand.py)
# - the rooms are the feed-forward (6_the_transformer/2_a_block.py)
# - the committee is the head of the model
# - the calculator is softmax and loss (4_networks/3_softmax_and_loss.py)
#
# At the end there is a picture.
#
#     T tokens   C width of a token's numbers   H heads   D head width, C / H   V vocabulary

# %%
import re

import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import optim

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads
story = tinygpt.story()
receptionist = tinygpt.CharacterTokenizer(story)
windows, targets = tinygpt.windows(receptionist.encode(story), 32)
config = tinygpt.GPTConfig(vocabulary=receptionist.size, context=32, width=32, heads=4, layers=2)
building = tinygpt.GPT(config, generator=tensor.Generator(0))
optimizer, batches = optim.AdamW(building, lr=1e-2), tensor.Generator(0)
for step in range(200):
    rows = batches.integers(0, len(windows), (16,))
    optimizer.lr = optim.warmup_cosine(step, peak=1e-2, warmup=20, total=200)
    optimizer.zero_grad()
    loss = building.loss(windows[rows], targets[rows])
    loss.backward()
    optimizer.step()
print(f"the building has learned the story: loss {loss.item():.3f}\n")
building.eval()
C, H, V = config.width, config.heads, config.vocabulary
D = C // H


def few(numbers, count=3):
    return "[" + " ".join(f"{x:5.2f}" for x in numbers[:count]) + " ...]"


def size(x):
    return float(np.sqrt(np.mean(np.square(x))))


# %% [markdown]
# ## 1. The receptionist: each piece of text gets a number
#
# The numbers follow the first appearance of the characters in the story: T, then h.

# %%
text = "The cat sat"
ids = receptionist.encode(text)
pieces = list(text)
T = len(ids)
print("  ".join(f"{piece!r} {i}" for piece, i in zip(pieces, ids, strict=True)))
assert dict(zip(pieces, ids, strict=True)) == {
    "T": 0,
    "h": 1,
    "e": 2,
    " ": 3,
    "c": 4,
    "a": 5,
    "t": 6,
    "s": 7,
}
assert receptionist.decode(ids) == text

# %% [markdown]
# ## 2. The cataloguer: a card for each number, and a card for each position
#
# A card holds C numbers, which were learned. The t of cat and the t of sat have the same card. The
# cards of their positions, 6 and 10, differ. The sum of both cards enters the building: the stream
# x.

# %%
# One row a letter of the vocabulary, one row a place.
cards, places = building.token_embedding.weight.numpy(), building.position_embedding.numpy()
x = cards[ids] + places[:T]  # (T, C)
print()
for i in (6, 10):
    print(
        f"{pieces[i]!r}, number {ids[i]}: its card {few(cards[ids[i]])} + place {i:2} "
        f"{few(places[i])}"
    )
    print(f"                          = {few(x[i])}")
assert ids[6] == ids[10]
assert not np.array_equal(x[6], x[10])
assert np.array_equal(x, building.embed(ids).numpy()[0])

# %% [markdown]
# ## 3. The floors: analysts, then a room for each
#
# On each floor are H analysts (the heads). For every piece an analyst writes a question q (the
# query), a label k (the key) and a report v (the value). The analyst compares the question of a
# piece with the labels of this piece and of all pieces before it, and brings the piece a mixture of
# their reports:
#
#     weights = softmax(q k^T / sqrt(D), the future masked)
#     x = x + (weights v, all analysts side by side) W
#
# Then each piece goes into a room of its own (the feed-forward). 4 C workers look at it. Those
# whose number is above 0 speak (GELU), and what they say is added to the stream too.


# %%
def norm(x, layer):
    """Every piece brought to mean 0 and size 1, then the layer's gain and bias."""
    centred = x - x.mean(-1, keepdims=True)
    return (
        layer.gain.numpy()
        * centred
        / np.sqrt(np.square(centred).mean(-1, keepdims=True) + layer.eps)
        + layer.bias.numpy()
    )


def through(x, layer):
    return x @ layer.weight.numpy() + layer.bias.numpy()


print(f"\nat the door the stream of the last piece has size {size(x[-1]):.2f}\n")
weights = []  # of each floor: (H, T, T)
future = np.triu(np.ones((T, T), bool), 1)
for floor, block in enumerate(building.blocks, start=1):
    # 3 x (H, T, D)
    q, k, v = (
        through(norm(x, block.attention_norm), block.attention.qkv)
        .reshape(T, 3, H, D)
        .transpose(1, 2, 0, 3)
    )
    scores = np.where(future, -np.inf, q @ k.transpose(0, 2, 1) / np.sqrt(D))  # (H, T, T)
    looks = np.exp(scores - scores.max(-1, keepdims=True))
    looks /= looks.sum(-1, keepdims=True)
    brought = through((looks @ v).transpose(1, 0, 2).reshape(T, C), block.attention.projection)
    weights.append(looks)
    print(f"floor {floor}. The last piece, the t of sat, is told by")
    for head in range(H):
        best = np.argsort(-looks[head, -1])[:3]
        print(
            f"    analyst {head + 1}: "
            + ", ".join(f"{looks[head, -1, i]:4.0%} from {pieces[i]!r} at {i}" for i in best)
        )
    x = x + brought
    workers = through(norm(x, block.feed_forward_norm), block.feed_forward.expand)  # (T, 4C)
    gelu = workers / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (workers + 0.044715 * workers**3)))
    said = through(gelu, block.feed_forward.projection)
    x = x + said
    print(f"    its room: {np.sum(workers[-1] > 0)} of {4 * C} workers speak up")
    print(
        f"    size of what the analysts brought {size(brought[-1]):.2f}, "
        f"of what the room said {size(said[-1]):.2f}, ",
        end="",
    )
    print(f"of the stream now {size(x[-1]):.2f}\n")
    assert np.allclose(looks.sum(-1), 1)
    assert (looks[:, future] == 0).all(), "nobody is told anything by a later piece"

stream = building.embed(ids)
for block in building.blocks:
    stream = block(stream)
print(
    "after both floors: largest difference to the model's own stream "
    f"{np.abs(stream.numpy()[0] - x).max():.0e}"
)
assert np.allclose(stream.numpy()[0], x, atol=1e-4)

# %% [markdown]
# ## 4. The scoring committee: which card continues best?
#
# First comes the final norm. Then the committee compares x with every card of the catalogue: the
# score of a card is its inner product with x. (The cards are those of the door: the head is tied.)

# %%
h = norm(x, building.final_norm)
logits = h @ cards.T  # (T, V)
assert np.allclose(logits, building(ids).numpy()[0], atol=1e-3)
order = np.argsort(-logits[-1])
score_of = [f"{receptionist.decode([i])!r} {logits[-1, i]:.2f}" for i in order]
print("\nscores after 'The cat sat':", "   ".join(score_of[:4]), "  ...  last", score_of[-1])

# %% [markdown]
# ## 5. The calculator: probabilities, a draw, the loss
#
# The model is least sure where several words follow in the story: after `The cat ` come sat, and,
# or liked.

# %%
assert re.findall(r"The cat (\w+)", story) == ["sat", "and", "liked"]
p = np.exp(logits - logits.max(-1, keepdims=True))
p /= p.sum(-1, keepdims=True)
right = receptionist.encode("he cat sat ")  # what comes after each piece in the story
print("\npiece          " + "".join(f"{piece!r:>6}" for piece in pieces))
print("comes next     " + "".join(f"{receptionist.decode([i])!r:>6}" for i in right))
print("p of that      " + "".join(f"{p[t, i]:6.2f}" for t, i in enumerate(right)))
print("-ln p          " + "".join(f"{-np.log(p[t, i]):6.2f}" for t, i in enumerate(right)))
loss = float(np.mean([-np.log(p[t, i]) for t, i in enumerate(right)]))
surprised = int(np.argmin([p[t, i] for t, i in enumerate(right)]))
print(
    f"\nthe loss is their mean, {loss:.4f}; the model's own {building.loss(ids, right).item():.4f}"
)
print(
    f"most surprised after {text[: surprised + 1]!r}: "
    f"it expected {receptionist.decode([int(p[surprised].argmax())])!r}"
)
assert text[: surprised + 1] == "The cat "
assert np.isclose(loss, building.loss(ids, right).item(), atol=1e-4)
u = float(tensor.Generator(0).uniform())
drawn = int(np.searchsorted(p[-1].cumsum(), u, side="right"))
print(
    f"a draw: u = {u:.3f}; the first piece at which the running sum exceeds it is "
    f"{receptionist.decode([drawn])!r}"
)
assert drawn == building.generate(ids, 1, generator=tensor.Generator(0))[-1]

# %% [markdown]
# ## 6. The message goes down: the backward pass
#
# The calculator tells the committee how each score changes the loss: (p - 1 at the right answer, p
# elsewhere) / T. From there every room passes on how its own inputs change the loss, down to the
# cards. All floors add to the stream on the way up. So on the way down the message passes through
# the stream, and every floor adds a part. The message is largest at the door: the stream is small
# there, and the smaller the input of a norm, the larger its gradient
# (6_the_transformer/2_a_block.py).

# %%
streams = [building.embed(ids)]
for block in building.blocks:
    streams.append(block(streams[-1]))
scores = tensor.linear(
    building.final_norm(streams[-1]), building.token_embedding.weight, transposed=True
)
again = tensor.cross_entropy(scores, np.array([right]))
arriving = dict(
    zip(
        ("scores", "door", "above floor 1", "above floor 2"),
        tensor.grad(again, [scores, *streams], retain_graph=True),
        strict=True,
    )
)
by_hand = (p - np.eye(V)[right]) / T
off = np.abs(arriving["scores"].numpy()[0] - by_hand).max()
print(f"\ngradient at the scores: largest difference to (p - one_hot) / T by hand {off:.0e}")
assert np.allclose(arriving["scores"].numpy()[0], by_hand, atol=1e-6)
for name in ("above floor 2", "above floor 1", "door"):
    gradient, there = (
        arriving[name].numpy()[0],
        streams[("door", "above floor 1", "above floor 2").index(name)].numpy(),
    )
    most = int(np.square(gradient).sum(1).argmax())
    print(
        f"{name:14} size of the gradient {size(gradient):.4f}, most at {pieces[most]!r}, "
        f"place {most}; of the stream {size(there):.2f}"
    )
building.zero_grad()
again.backward()
cards_gradient = building.token_embedding.weight.grad.numpy()
at_door = arriving["door"].numpy()[0]
as_card = at_door[6] + at_door[10]  # cat and sat: the t came in twice
as_score = by_hand[:, ids[6]] @ h  # and it is scored at every position, since the head is tied
print(f"\nthe card of 't' hears of its two uses at the door, size {size(as_card):.4f},")
print(f"and of being scored {T} times, {size(as_score):.4f}: they add up")
assert np.allclose(cards_gradient[ids[6]], as_card + as_score, atol=1e-5)
absent = receptionist.encode("k")[0]
print(
    "the card of 'k' did not come in, and was scored all the same: "
    f"size {size(cards_gradient[absent]):.4f}"
)
assert np.allclose(cards_gradient[absent], by_hand[:, absent] @ h, atol=1e-6)

with tensor.no_grad():
    for parameter in building.parameters():
        parameter -= 0.05 * parameter.grad
after = building.loss(ids, right).item()
print(
    "\nall numbers of the building move a little against what they heard: "
    f"loss {loss:.4f} -> {after:.4f}"
)
assert after < loss

# %%
figure, axes = plt.subplots(len(weights), H + 1, figsize=(15, 6), layout="constrained")
for floor, looks in enumerate(weights):
    for head in range(H):
        ax = axes[floor, head]
        ax.imshow(looks[head], cmap="cividis", vmin=0, vmax=1)
        ax.set(
            title=f"floor {floor + 1}, analyst {head + 1}",
            xlabel="by" if floor else "",
            ylabel="" if head else "who is told",
        )
        ax.set_xticks(range(T), [piece.replace(" ", "_") for piece in pieces])
        ax.set_yticks(range(T), [piece.replace(" ", "_") for piece in pieces])
top = order[:6][::-1]
axes[0, H].barh([repr(receptionist.decode([i])) for i in top], p[-1, top])
axes[0, H].set(title="what comes after 'sat'", xlabel="probability", xlim=(0, 1))
names = ("door", "above floor 1", "above floor 2")
axes[1, H].barh(names, [size(arriving[name].numpy()) for name in names], color="tab:orange")
axes[1, H].set(title="word on its way down", xlabel="size of the gradient")
if plt.get_backend().lower() != "agg":  # agg: no screen, nothing to show
    plt.show()
