# %% [markdown]
# # Without KL: a policy finds what its reward model does not know
#
#     J(p) = E_p[proxy] - beta KL(p, q)     proxy: a reward model's score, in place of the truth
#
# A reward model learned from replies of the reference q. The reward model judges such replies
# rightly, and knows nothing about other replies. A policy that only raises the proxy ends at these
# other replies. This is reward hacking. "When a measure becomes a target, it ceases to be a good
# measure" (Goodhart's law, in the words of Strathern 1997). The price beta of the KL keeps the
# policy where the proxy is right (Ziegler et al. 2019; for large models Gao et al. 2022). In this
# lesson a reply has five words of six, so all 7,776 replies are counted, and each number of a
# policy is exact. At the end there is a picture.

# %%
import matplotlib.pyplot as plt
import numpy as np

# %% [markdown]
# ## 1. The truth, and the reference
#
# The question is: Who slept? A good reply says Tom, and thanks. A repeated word is silly. So the
# true score gives 1 for Tom and 1 for thanks, and takes away 1 each time a word comes again. A dot
# is a word that says nothing, and may be repeated.
#
# The reference draws each of the five words by itself: a name first, thanks last, and often dots.
# Each other word has a probability of 0.005 at each place.

# %%
WORDS = "Tom", "thanks", "Mia", "slept", "well", "."
PLACES, V = 5, len(WORDS)
USUAL = {"Tom": 0.3, "Mia": 0.4}, {"slept": 0.6}, {"well": 0.6}, {}, {"thanks": 0.3}
q = np.full((PLACES, V), 0.005)
for place, usual in enumerate(USUAL):
    for word, p in usual.items():
        q[place, WORDS.index(word)] = p
q[:, -1] = 1 - q[:, :-1].sum(axis=1)  # what is left is for the dot
replies = np.indices((V,) * PLACES).reshape(PLACES, -1).T  # (7776, places): all of them
counts = (replies[:, :, None] == np.arange(V)).sum(axis=1)  # (7776, V)


def true_score(counts):
    """counts: (replies, V), how often a reply says each word."""
    again = np.maximum(counts[:, :5] - 1, 0).sum(axis=1)
    return np.minimum(counts[:, :2], 1).sum(axis=1) - 1.0 * again


def said(reply):
    return " ".join(WORDS[word] for word in reply)


def probabilities(p):
    """Of all replies: the product over their words.   p: (places, V)"""
    return p[np.arange(PLACES), replies].prod(axis=1)


truth = true_score(counts)
of_q = probabilities(q)
assert np.isclose(of_q.sum(), 1)
print(f"{len(replies):,} replies; the true score of the reference: {of_q @ truth:.3f}")
for row in (np.argmax(truth), np.argmin(truth)):
    print(f"true score {truth[row]:4.0f}   {said(replies[row])}")

# %% [markdown]
# ## 2. A reward model, from comparisons of the reference's replies
#
# People compare 2,000 pairs of replies and say which is better by the true score. The reward model
# gives each word a weight, and adds up: proxy = counts @ w. It learns by the loss of Bradley and
# Terry (1_bradley_and_terry.py). It cannot know that "Tom Tom" is silly. But the reference hardly
# ever writes this, so on held-out pairs the reward model is nearly always right.


# %%
def drawn_pairs(p, count, draws):
    """Counts of the better and the worse reply: (count, V) each. Equal true scores are left out."""
    rows = draws.choice(len(replies), (3 * count, 2), p=probabilities(p))
    rows = rows[truth[rows[:, 0]] != truth[rows[:, 1]]][:count]
    swap = truth[rows[:, 0]] < truth[rows[:, 1]]
    rows[swap] = rows[swap][:, ::-1]
    return counts[rows[:, 0]], counts[rows[:, 1]]


def accuracy(w, better, worse):
    """Of the pairs: a tie counts half."""
    difference = (better - worse) @ w
    return np.where(np.isclose(difference, 0), 0.5, difference > 0).mean()


draws = np.random.default_rng(0)
better, worse = drawn_pairs(q, 2000, draws)
w = np.zeros(V)
for _ in range(300):
    p_right = 1 / (1 + np.exp(-(better - worse) @ w))
    w += 0.5 * ((1 - p_right)[:, None] * (better - worse)).mean(axis=0)
w -= w[-1]  # scores are known up to a constant: a dot is worth 0
proxy = counts @ w
near = accuracy(w, *drawn_pairs(q, 2000, draws))
named = [f"{word} {weight:.2f}" for word, weight in zip(WORDS, w, strict=True)]
print("\nweights:", "  ".join(named))
print(f"right about held-out pairs of the reference: {near:.1%}")
assert near > 0.95

# %% [markdown]
# ## 3. Gradient ascent, with a price for KL and without
#
#     dJ/dz = p (w - beta ln(p / q) - mean)      for each place; the mean is over its words
#
# This is the ascent of 4_dpo.py, at each of the five places. The true score is only watched.

# %%
STEPS = 300


def watched(p):
    """The proxy, the true score and the KL of a policy."""
    of_p = probabilities(p)
    kl = (p * np.log(p / q)).sum()
    return of_p @ proxy, of_p @ truth, max(kl, 0.0)  # rounding can make it -1e-17


def ascended(beta):
    """The policy at the end, and a row of numbers for each step."""
    z, rows = np.log(q), []
    for _ in range(STEPS + 1):
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        rows.append(watched(p))
        reward = w - beta * np.log(p / q)
        z = z + 0.2 * p * (reward - (p * reward).sum(axis=1, keepdims=True))
    return p, np.array(rows)


BETA = 2.0
runs = {beta: ascended(beta) for beta in (0.0, BETA)}
for beta, (p, rows) in runs.items():
    print(f"\nbeta {beta}\n step   proxy    true      KL")
    for step in (0, 10, 50, 100, 150, 200, STEPS):
        print("{:5} {:7.2f} {:7.2f} {:7.2f}".format(step, *rows[step]))
    print("drawn:", " | ".join(said(replies[i]) for i in draws.choice(7776, 3, p=probabilities(p))))
(hacked, free), (held, priced) = runs[0.0], runs[BETA]
assert (np.diff(free[:, 0]) > 0).all(), "the proxy rises at every step"
assert free[:, 1].max() > 1.4, "at first the true score rises too"
assert free[-1, 1] < free[0, 1] - 1, "at the end it is far below where it started"
assert free[-1, 2] > 10
assert priced[-1, 1] > priced[0, 1] + 0.5
assert priced[-1, 1] > priced[:, 1].max() - 0.1, "what was won is kept"
assert priced[-1, 2] < 2

# %% [markdown]
# Without KL the proxy rises at each step. The curve of the proxy does not show where the true score
# begins to fall. (To stop at step 50 would have helped. But a person who sees the proxy alone does
# not know this step.) The policy found a gap of the reward model: Tom again and again. With the
# price, the policy stays near replies that the reward model has seen. Without the price, the
# reward model judges the replies of the policy worse than a coin:

# %%
print("\nthe reward model is right about pairs of")
shares = {"the reference": near}
for name, p in (("the policy with a price", held), ("the policy without", hacked)):
    shares[name] = accuracy(w, *drawn_pairs(p, 2000, draws))
for name, share in shares.items():
    print(f"{name:26}{share:6.1%}")
assert shares["the policy with a price"] > 0.6
assert shares["the policy without"] < 0.5

# %% [markdown]
# ## 4. How high should the price be?
#
# For each price the best policy is known: q e^(w / beta) / Z, at each place (4_dpo.py). So the
# whole way needs no training. Read the table from the top: each nat of KL raises the proxy. The
# true score rises, is best at a KL of 1 to 2 nats, and falls. No column but the last shows where.


# %%
def best_policy(beta):
    products = q * np.exp((w - w.max()) / beta)
    return products / products.sum(axis=1, keepdims=True)


assert np.abs(best_policy(BETA) - held).max() < 0.01, "the ascent arrives there"
PRICES = 8.0, 4.0, 2.0, 1.5, 1.0, 0.7, 0.5, 0.3, 0.1
way = np.array([watched(best_policy(beta)) for beta in PRICES])
print("\nbeta      KL   proxy    true")
for beta, (high, true, kl) in zip(PRICES, way, strict=True):
    print(f"{beta:4} {kl:7.2f} {high:7.2f} {true:7.2f}")
assert (np.diff(way[:, [0, 2]], axis=0) > 0).all(), "lower prices: more proxy for more KL"
assert 0 < way[:, 1].argmax() < len(way) - 1, "the best price is neither the highest nor the lowest"

# %% [markdown]
# So KL is a budget, and a truth that the policy does not learn from must say how large it may be:
# new comparisons by people, or a rule. `tinygpt align --true-score` watches such a rule.
#
# ## 5. The picture
#
# Reward, true score and KL against the steps, with a price and without. The last panel is the table
# above: proxy and true score against KL.

# %%
figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
titles = "proxy: what the policy learns from", "true score", "KL to the reference (nats)"
for ax, column, title in zip(axes.flat, range(3), titles, strict=False):
    for (beta, (_, rows)), color in zip(runs.items(), ("tab:red", "tab:blue"), strict=True):
        ax.plot(rows[:, column], color=color, linewidth=2, label=f"beta = {beta:g}")
    ax.set(title=title, xlabel="step of gradient ascent")
    ax.grid(alpha=0.3)
    ax.legend()
along = axes[1, 1]
grid = np.array([watched(best_policy(beta)) for beta in np.geomspace(50, 0.05, 80)])
along.plot(grid[:, 2], grid[:, 0], color="gray", linestyle="--", label="proxy")
along.plot(grid[:, 2], grid[:, 1], color="tab:green", linewidth=2, label="true score")
along.set(title="the best policy of each price", xlabel="KL to the reference (nats)")
along.grid(alpha=0.3)
along.legend()
if plt.get_backend().lower() != "agg":  # agg: no screen, nothing to show
    plt.show()
