# %% [markdown]
# # Bradley and Terry: scores from three comparisons
#
#     p(a is better than b) = sigmoid(r_a - r_b)        r: the score of each reply
#     loss                  = mean of -ln p of what people said
#     dloss/dr_better       = -(1 - p) / comparisons    dloss/dr_worse = +(1 - p) / comparisons
#
# Ask people how good a reply is, from 1 to 10, and everybody means another 7. Which of two replies
# is better is easier to say. Bradley and Terry's model makes scores of such comparisons (Bradley
# and Terry 1952). Three comparisons are enough to see what the scores mean, and when there are
# none. The last part learns a reward model with the same loss (Christiano et al. 2017).

# %%
import numpy as np
from threadpoolctl import threadpool_limits

import tensor
from tensor import Tensor
from tensor.random import Generator
from tinygpt import CharacterTokenizer, SpecialTokenizer
from tinygpt.config import GPTClassifierConfig, RewardConfig
from tinygpt.data.preferences import Preference, Preferences
from tinygpt.ids import CHAT_TOKENS
from tinygpt.model.heads import GPTClassifier
from tinygpt.training.objectives.preferences import compared_scores, reward_loss
from tinygpt.training.step import train

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads

# %% [markdown]
# ## 1. Three comparisons of two replies
#
# Three people compare reply a with reply b. Two say that a is better, one says b. So p should be
# 2/3, and the difference of the scores ln(p / (1 - p)) = ln 2. Gradient descent finds this
# difference. Each comparison pulls its better reply up and its worse reply down, by the probability
# that the scores gave to the opposite.


# %%
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def loss_and_gradient(scores, comparisons):
    """comparisons: pairs (better, worse) of numbers of replies. The mean loss, and dloss/dr."""
    loss, gradient = 0.0, np.zeros_like(scores)
    for better, worse in comparisons:
        p = sigmoid(scores[better] - scores[worse])
        loss -= np.log(p) / len(comparisons)
        gradient[better] -= (1 - p) / len(comparisons)
        gradient[worse] += (1 - p) / len(comparisons)
    return loss, gradient


def descended(scores, comparisons, steps=300, rate=1.0):
    """The scores after these steps of gradient descent."""
    for _ in range(steps):
        scores = scores - rate * loss_and_gradient(scores, comparisons)[1]
    return scores


A, B, C = 0, 1, 2
two_to_one = [(A, B), (A, B), (B, A)]
scores = np.zeros(2)
print("step   r_a       r_b       p(a is better)   loss     gradient of r_a")
for step in range(4):
    loss, gradient = loss_and_gradient(scores, two_to_one)
    p = sigmoid(scores[A] - scores[B])
    print(f"{step:4} {scores[A]:7.4f} {scores[B]:9.4f} {p:12.4f} {loss:15.4f} {gradient[A]:14.4f}")
    scores = scores - gradient
found = descended(np.zeros(2), two_to_one)
print(f"at the end: r_a - r_b = {found[A] - found[B]:.4f}, ln 2 = {np.log(2):.4f}")
assert np.isclose(found[A] - found[B], np.log(2))
assert np.isclose(sigmoid(found[A] - found[B]), 2 / 3)

# %% [markdown]
# The engine gives the same gradient. It also shows that the loss is an old one: the cross-entropy
# of two classes, whose logits are the two scores (4_networks/3_softmax_and_loss.py).

# %%
start = np.array([0.3, -0.5])
logits = Tensor(start, requires_grad=True)
pairs = np.array(two_to_one)
loss = tensor.cross_entropy(logits[pairs], np.zeros(3, int))  # class 0 is the better reply
loss.backward()
by_hand = loss_and_gradient(start, two_to_one)
print(f"\nby hand        loss {by_hand[0]:.6f}, gradient {by_hand[1].round(6)}")
print(f"by the engine  loss {loss.item():.6f}, gradient {logits.grad.numpy().round(6)}")
assert np.isclose(loss.item(), by_hand[0])
assert np.allclose(logits.grad.numpy(), by_hand[1])

# %% [markdown]
# ## 2. Scores are known up to a constant
#
# Only differences are in the loss. So 7 more for all scores changes nothing, and the gradients add
# up to 0: the mean of the scores stays where it started. A score of 3.1 says nothing by itself. Who
# uses scores must choose the zero: `tinygpt align` subtracts the mean score of the replies that the
# policy gives at first.

# %%
print("\nstart          scores at the end        difference")
for start in ([0.0, 0.0], [7.0, 7.0], [10.0, 0.0]):
    end = descended(np.array(start), two_to_one)
    print(f"{start!s:14} {end.round(4)!s:24} {end[A] - end[B]:.4f}")
    assert np.isclose(end.mean(), np.mean(start)), "the mean stays"
    assert np.isclose(end[A] - end[B], np.log(2))

# %% [markdown]
# ## 3. Nobody ever disagrees: the scores grow for ever
#
# Now there are three replies: a is better than b, b than c, and a than c. Any scores in this order
# are right about all three, and larger differences are surer. So the loss has no minimum. It falls
# towards 0 while the scores grow, as the logarithm of the steps. The size of the scores then says
# how long they learned, and nothing about the replies. So a reward model learns for few epochs.

# %%
in_order = [(A, B), (B, C), (A, C)]
print("\nsteps    r_a - r_c   loss")
spreads = []
for steps in (10, 100, 1000, 10_000):
    scores = descended(np.zeros(3), in_order, steps)
    spreads.append(scores[A] - scores[C])
    print(f"{steps:6} {spreads[-1]:10.2f} {loss_and_gradient(scores, in_order)[0]:10.4f}")
growth = np.diff(spreads)
assert (growth > 1.5).all(), "ten times the steps: a constant more, and no end"

# %% [markdown]
# ## 4. A circle has no scores
#
# a is better than b, b than c, and c than a. Each may be true: the shorter reply, the kinder one,
# the more exact one. But no scores fall all the way round a circle. The best that scores can do is
# to be equal. Then each comparison costs ln 2, as much as tossing a coin. A high loss of a reward
# model can be a sign of circles, and not of a model that is too small.

# %%
circle = [(A, B), (B, C), (C, A)]
scores = descended(np.array([1.0, 0.0, -2.0]), circle)
loss, gradient = loss_and_gradient(scores, circle)
print(f"\nscores {scores.round(4)}, loss {loss:.4f}, ln 2 = {np.log(2):.4f}")
assert np.ptp(scores) < 1e-6
assert np.isclose(loss, np.log(2))
draws = np.random.default_rng(0)
others = [loss_and_gradient(draws.normal(size=3), circle)[0] for _ in range(1000)]
print(f"the lowest loss of 1,000 drawn scores: {min(others):.4f}")
assert min(others) >= np.log(2)

# %% [markdown]
# ## 5. A reward model: the scores come from the text
#
# A table has a score for each reply that was compared. A reward model computes the score of any
# reply, from its text. The loss and its gradient stay the same; backward goes on from the scores to
# the weights. Here a reply is four letters. Hidden from the model, each letter is worth something,
# and a reply is worth the sum. People compare 2,000 pairs, and err as the formula says.

# %%
WORTH = {"a": 1.0, "b": 0.5, "c": 0.0, "d": -0.5, "e": -1.0}
LETTERS = "".join(WORTH)


def worth(reply):
    return sum(WORTH[letter] for letter in reply)


def compared(count, seed):
    """Pairs as people gave them."""
    draws, pairs = np.random.default_rng(seed), []
    while len(pairs) < count:
        one, two = ("".join(draws.choice(list(LETTERS), 4)) for _ in range(2))
        if draws.random() > sigmoid(worth(one) - worth(two)):
            one, two = two, one
        if one != two:
            pairs.append(Preference("c", better=one, worse=two))
    return pairs


tokenizer = SpecialTokenizer(CharacterTokenizer(LETTERS), CHAT_TOKENS)
CONTEXT = 9  # <|user|> c <|assistant|>, four letters, <|end|>, and one to spare
learn, held = (Preferences(compared(n, n), tokenizer, CONTEXT) for n in (2000, 3000))
config = GPTClassifierConfig(tokenizer.size, CONTEXT, 16, 2, 1, labels=("reward",))
model = GPTClassifier(config, generator=Generator(0))
choices = RewardConfig(steps=150, batch=64, lr=1e-2)
losses = [record.loss for record in train(model, learn, choices, objective=reward_loss)]
print(f"\nloss {losses[0]:.3f}, at the end {np.mean(losses[-20:]):.3f}")
assert np.isclose(losses[0], np.log(2), atol=0.02), "at first the model can only guess"

# %% [markdown]
# The loss that `train` took is the one by hand, on the scores of the model.

# %%
model.eval()
x, y = held[range(3000)]
with tensor.no_grad():
    scores = compared_scores(model, x).numpy().astype(np.float64)  # (3000, 2): better, worse
    by_model = reward_loss(model, x, y, "mean").item()
by_hand, _ = loss_and_gradient(scores.reshape(-1), np.arange(6000).reshape(3000, 2))
print(f"the loss of 3,000 other pairs by hand {by_hand:.5f}, by reward_loss {by_model:.5f}")
assert np.isclose(by_hand, by_model, atol=1e-5)

# %% [markdown]
# ## 6. How good is the reward model?
#
# It should agree with people about pairs that it never saw. But people err. So no model agrees more
# often than the hidden worth does, but for chance. And its probabilities should be true: of the
# pairs with p = 0.8, people should agree with 80 % (calibration).

# %%
agrees = (scores[:, 0] > scores[:, 1]).mean()
hidden = np.array([[worth(pair.better), worth(pair.worse)] for pair in held.pairs])
best = np.where(hidden[:, 0] == hidden[:, 1], 0.5, hidden[:, 0] > hidden[:, 1]).mean()
print(f"\nagrees with people: {agrees:.1%} of 3,000 pairs; the hidden worth: {best:.1%}")
assert abs(agrees - best) < 0.03

p = sigmoid(np.abs(scores[:, 0] - scores[:, 1]))  # of what the model calls the better reply
right = scores[:, 0] > scores[:, 1]
print("p of the model    pairs   mean p   people agree")
for low, high in ((0.5, 0.65), (0.65, 0.8), (0.8, 0.95), (0.95, 1.0)):
    some = (p >= low) & (p <= high)
    says, agree = p[some].mean(), right[some].mean()
    print(f"{low:.2f} to {high:.2f} {some.sum():11} {says:8.2f} {agree:12.2f}")
    assert abs(says - agree) < 0.05

# %% [markdown]
# The scores are those of the hidden worth, up to a constant. A line through (worth, score) has a
# slope of about 1, because people erred as the formula says. The constant is where the model
# happened to start.

# %%
slope, constant = np.polyfit(hidden.reshape(-1), scores.reshape(-1), 1)
print(f"\nscore = {slope:.2f} worth + {constant:.2f}")
correlation = np.corrcoef(hidden.reshape(-1), scores.reshape(-1))[0, 1]
print(f"correlation {correlation:.3f}")
assert 0.8 < slope < 1.25
assert correlation > 0.97
