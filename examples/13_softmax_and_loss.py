"""A language model in one table, by counting and by gradient descent.

    softmax(x)_j = e^x_j / sum_k e^x_k        loss = mean of -ln p(next character | this character)

A bigram model looks at one character. Counting gives the best such table at once; a table of numbers pushed downhill from zero ends at
the same loss, and that loss is a property of the text: the entropy of the next character, given this one.
"""

import numpy as np

import tensor
import tinygpt

text = tinygpt.story()
tokenizer = tinygpt.CharacterTokenizer(text)
ids, V = np.array(tokenizer.encode(text)), tokenizer.size
this, following = ids[:-1], ids[1:]  # (148,) pairs: following[i] comes after this[i]
print(f"{text!r}\n\n{len(ids)} characters, {V} different ones: {tokenizer.characters!r}")

print("\n1. Softmax makes probabilities of any numbers; the loss is the surprise, -ln p, at what came\n")
logits = tensor.Tensor([2.0, 1.0, -1.0])
p = np.exp([2.0, 1.0, -1.0]) / np.exp([2.0, 1.0, -1.0]).sum()
print("by hand ", p.round(4), " sum", p.sum().round(4), "   tensor.softmax ", logits.softmax().numpy().round(4))
print("-ln p[1]", -np.log(p[1]).round(4), "             tensor.cross_entropy ", round(tensor.cross_entropy(logits, 1).item(), 4))

print("\n2. By counting: p(b | a) = n(a, b) / n(a)\n")
counts = np.zeros((V, V))
np.add.at(counts, (this, following), 1)
p_counted = counts / counts.sum(1, keepdims=True)
counted = -np.log(p_counted[this, following]).mean()
print(f"knows nothing, 1/{V} for each      ln {V} = {np.log(V):.4f} nats a character")
print(f"knows the pairs                          {counted:.4f}")

print("\n3. By gradient descent: row a of the table holds the logits of what follows a\n")
table = tensor.zeros(V, V, requires_grad=True)
for step in range(1001):
    table.grad = None
    loss = tensor.cross_entropy(table[this], following)  # (148, V) against (148,)
    loss.backward()
    if step == 0:  # on paper: for each pair, softmax - one_hot, over the number of pairs
        by_hand = (counts.sum(1, keepdims=True) / V - counts) / len(this)
        print("first gradient = (softmax - one_hot) / pairs, added up by row; largest difference", f"{np.abs(table.grad.numpy() - by_hand).max():.0e}\n")
    if step in (0, 1, 10, 100, 1000):
        print(f"step {step:4}   loss {loss.item():.4f}   above counting by {loss.item() - counted:.4f}")
    with tensor.no_grad():
        table -= 50.0 * table.grad
assert 0 < loss.item() - counted < 0.002
print("\nIt never quite arrives: where a pair does not occur p should be 0, and its logit walks towards minus infinity, ever slower.")
learned = table.softmax().numpy()
a = tokenizer.encode("a")[0]
print("after 'a'   ", *(f"{tokenizer.decode([b])!r:>6}" for b in np.flatnonzero(counts[a])))
print("counted     ", *(f"{p_counted[a, b]:6.3f}" for b in np.flatnonzero(counts[a])))
print("learned     ", *(f"{learned[a, b]:6.3f}" for b in np.flatnonzero(counts[a])))


def entropy(n):
    """- sum p ln p, p = n / sum n, in nats"""
    p = n[n > 0] / n.sum()
    return -(p * np.log(p)).sum()


print("\n4. The floor: entropy of pairs less entropy of single characters is that of the next one, given this one\n")
conditional = entropy(counts) - entropy(counts.sum(1))
print(f"H(this, next) - H(this) = {entropy(counts):.4f} - {entropy(counts.sum(1)):.4f} = {conditional:.4f}      counting: {counted:.4f}")
assert np.isclose(conditional, counted)
print("More of the past, and the floor sinks:  ", "   ".join(f"{T} seen: {tinygpt.floor(ids, T):.3f}" for T in (1, 2, 4, 8, 32)))

print("\n5. What one character of memory writes\n")
rng = np.random.default_rng(0)
line = [int(ids[0])]
while len(line) < 100:
    seen = learned[line[-1]].astype(np.float64)
    line.append(int(rng.choice(V, p=seen / seen.sum())))
print(tokenizer.decode(line))
