# %% [markdown]
# # A language model in one table, by counting and by gradient descent
#
# softmax(x)_j = e^x_j / sum_k e^x_k        loss = mean of -ln p(next character | this character)
#
# A bigram model looks at one character, and predicts the next. Its table has a probability for each
# pair. Counting gives the best table at once. Gradient descent from zeros reaches the same loss.
# And this loss is a property of the text: the entropy of a character, given the one before.

# %%
import textwrap

import numpy as np

import tensor
import tinygpt

text = tinygpt.story()
tokenizer = tinygpt.CharacterTokenizer(text)
ids, V = np.array(tokenizer.encode(text)), tokenizer.size
# one pair for each character but the last: following[i] comes after this[i]
this, following = ids[:-1], ids[1:]
print(textwrap.fill(text, 98))
print(f"\n{len(ids)} characters, {len(this)} pairs, {V} different characters")

# %% [markdown]
# ## 1. Softmax makes probabilities of any numbers; the loss is the surprise at the right answer
#
# The numbers that softmax takes are called logits. The surprise is -ln p: 0 for p = 1, and large
# for small p. The natural logarithm measures it in nats.

# %%
logits = np.array([2.0, 1.0, -1.0])
p = np.exp(logits) / np.exp(logits).sum()
came = 1  # the second of three
surprise = -np.log(p[came])
print("\nsoftmax by hand     ", p.round(4), " their sum", p.sum().round(4))
print("tensor.softmax      ", tensor.softmax(logits).numpy().round(4))
print("-ln p[1] by hand    ", surprise.round(4))
print("tensor.cross_entropy", round(tensor.cross_entropy(tensor.Tensor(logits), came).item(), 4))
assert np.allclose(tensor.softmax(logits).numpy(), p)
assert np.isclose(tensor.cross_entropy(tensor.Tensor(logits), came).item(), surprise)

# %% [markdown]
# ## 2. By counting: p(b | a) = n(a, b) / n(a)

# %%
counts = np.zeros((V, V))  # row: this character, column: the next
np.add.at(counts, (this, following), 1)
p_counted = counts / counts.sum(axis=1, keepdims=True)
counted = -np.log(p_counted[this, following]).mean()
print(f"\nloss of who knows nothing, 1/{V} for each: ln {V} = {np.log(V):.4f} nats a character")
print(f"loss of who has counted the pairs:                {counted:.4f}")
assert np.allclose(p_counted.sum(axis=1), 1)

# %% [markdown]
# ## 3. By gradient descent: row a of a table holds the logits of the character after a
#
# On paper, the gradient of one surprise with respect to its logits is softmax - one_hot. Here
# one_hot is 1 at the right answer, and 0 elsewhere. The loss is the mean over all pairs: so add
# these gradients up by row, and divide by the number of pairs.

# %%
table = tensor.zeros(V, V, requires_grad=True)
print("\nA table learns:")
for step in range(1001):
    table.grad = None
    loss = tensor.cross_entropy(table[this], following)  # (pairs, V) against (pairs,)
    loss.backward()
    if step == 0:
        by_hand = (counts.sum(axis=1, keepdims=True) / V - counts) / len(this)
        off = np.abs(table.grad.numpy() - by_hand).max()
    if step in (0, 1, 10, 100, 1000):
        print(
            f"step {step:4}   loss {loss.item():.4f}   "
            f"above counting by {loss.item() - counted:.4f}"
        )
    with tensor.no_grad():
        table -= 50.0 * table.grad
print(f"the first gradient, by hand and by the engine: largest difference {off:.0e}")
assert off < 1e-6
assert 0 < loss.item() - counted < 0.002

# %% [markdown]
# Gradient descent never quite arrives. For a pair that does not occur, p should be 0. So its logit
# moves towards minus infinity, ever more slowly.

# %%
learned = table.softmax().numpy()
a = tokenizer.encode("a")[0]
after_a = np.flatnonzero(counts[a])
print("\nafter 'a'   ", *(f"{tokenizer.decode([b])!r:>6}" for b in after_a))
print("counted     ", *(f"{p_counted[a, b]:6.3f}" for b in after_a))
print("learned     ", *(f"{learned[a, b]:6.3f}" for b in after_a))
print(f"left over for what never follows: {1 - learned[a, after_a].sum():.4f}")
assert np.abs(learned[a] - p_counted[a]).max() < 0.01
assert (learned[a] > 0).all()

# %% [markdown]
# ## 4. The lower bound: no bigram model can have a lower loss
#
# The entropy of pairs, minus the entropy of single characters, is the entropy of a character given
# the one before. Counting has exactly this loss.


# %%
def entropy(n):
    """- sum p ln p, p = n / sum n, in nats"""
    p = n[n > 0] / n.sum()
    return -(p * np.log(p)).sum()


conditional = entropy(counts) - entropy(counts.sum(axis=1))
print(
    f"\nH(this, next) - H(this) = {entropy(counts):.4f} - {entropy(counts.sum(axis=1)):.4f} "
    f"= {conditional:.4f}, counting {counted:.4f}"
)
assert np.isclose(conditional, counted)

# %% [markdown]
# A model that sees more characters before has a lower bound (1_text/2_blocks_and_pairs.py printed
# some). So the next models look further back:

# %%
floors = {T: tinygpt.floor(ids, T) for T in (1, 2, 4, 8, 32)}
print("floor by characters seen:", "   ".join(f"{T}: {floor:.3f}" for T, floor in floors.items()))
assert np.isclose(floors[1], counted)

# %% [markdown]
# ## 5. What a model writes that remembers one character
#
# Draw the next character from the row of the last one, again and again. Nearly every pair of
# letters occurs in the story. Few words do.

# %%
rng = np.random.default_rng(0)
line = [int(ids[0])]
while len(line) < 90:
    row = learned[line[-1]].astype(np.float64)
    line.append(int(rng.choice(V, p=row / row.sum())))
written = tokenizer.decode(line)
known = sum(written[i : i + 2] in text for i in range(len(written) - 1))
print(f"\n{written}\n{known} of {len(written) - 1} pairs are the story's")
assert known > 0.95 * (len(written) - 1)
