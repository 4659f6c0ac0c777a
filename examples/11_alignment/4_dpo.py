# %% [markdown]
# # DPO: the same optimum, without a reward model and without rollouts
#
#     J(p) = E_p[r] - beta KL(p, q)         what PPO maximises. p: the policy, q: the reference
#     p*   = q e^(r / beta) / Z             where J is largest, and Z = sum q e^(r / beta)
#     r    = beta ln(p* / q) + beta ln Z    solved for r: a policy says what it was best at
#     DPO  = mean of -ln sigmoid(beta ln(p_a / q_a) - beta ln(p_b / q_b))     a was called better
#
# PPO learns scores from comparisons, and then a policy from scores. Direct preference optimisation
# leaves out the middle: it puts the r of the third line into the loss of Bradley and Terry
# (Rafailov et al. 2023). ln Z cancels, because only a difference of two scores is needed. This
# lesson has five replies to one prompt, so everything can be computed. Both ways end at the same
# policy.
#
#     a, b replies   r score of a reply   KL(p, q) = sum p ln(p / q), in nats

# %%
import numpy as np
from threadpoolctl import threadpool_limits

from tensor import no_grad
from tensor.random import Generator
from tinygpt import GPT, CharacterTokenizer, GPTConfig, SpecialTokenizer
from tinygpt.config import AlignConfig, FinetuneConfig
from tinygpt.data.instructions import Example, Instructions
from tinygpt.data.preferences import Preference, Preferences, after_prompts
from tinygpt.ids import CHAT_TOKENS
from tinygpt.model.aligned import Aligned
from tinygpt.training.objectives.preferences import dpo_loss, reply_log_p
from tinygpt.training.step import optimizer_of, train

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads

# %% [markdown]
# ## 1. The best policy, computed
#
# The reference q gives five replies. The score r says how good each is. With beta = 1, the best
# policy multiplies each q by e^r, and divides by the sum Z.

# %%
q = np.array([0.40, 0.25, 0.20, 0.10, 0.05])
r = np.array([0.0, 1.0, -1.0, 2.0, 0.5])
beta = 1.0


def kl(p, q):
    return (p * np.log(p / q)).sum()


def J(p):
    return p @ r - beta * kl(p, q)


products = q * np.exp(r / beta)
Z = products.sum()
best = products / Z
print("reply     q      r   q e^r      p*")
for a in range(5):
    print(f"{a:5} {q[a]:6.2f} {r[a]:6.1f} {products[a]:7.3f} {best[a]:7.3f}")
print(f"Z = {Z:.4f}")

# %% [markdown]
# Why is p* the best? Put r = beta ln(p* / q) + beta ln Z into J. Then for any policy p
#
#     J(p) = beta ln Z - beta KL(p, p*)
#
# A KL is at least 0, and it is 0 for equal policies only. So p* is the one best policy.

# %%
draws = np.random.default_rng(0)
for p in (q, best, *draws.dirichlet(np.ones(5), 1000)):
    assert np.isclose(J(p), beta * np.log(Z) - beta * kl(p, best))
print(f"\nJ(q) = {J(q):.4f}, J(p*) = {J(best):.4f}, beta ln Z = {beta * np.log(Z):.4f}")
assert np.isclose(J(best), beta * np.log(Z))
print("the highest J of 1,000 drawn policies:", end=" ")
print(f"{max(J(p) for p in draws.dirichlet(np.ones(5), 1000)):.4f}")

# %% [markdown]
# beta says how far the policy goes. A large beta leaves q as it is. With a beta near 0 the policy
# writes the one reply with the highest score, however unlikely that reply was.

# %%
print("\nbeta       p*                               E[r]      KL")
gains = []
for each in (100.0, 2.0, 1.0, 0.5, 0.05):
    p = q * np.exp((r - r.max()) / each)
    p /= p.sum()
    gains.append((p @ r, kl(p + 1e-300, q)))
    print(f"{each:6} {p.round(3)!s:36} {gains[-1][0]:7.3f} {gains[-1][1]:7.3f}")
assert (np.diff(gains, axis=0) > 0).all(), "each smaller beta buys a higher score for more KL"

# %% [markdown]
# ## 2. The first way: gradient ascent on J
#
#     dJ/dz_a = p_a (r_a - beta ln(p_a / q_a) - J)          p = softmax(z)
#
# This is the policy gradient of 2_a_policy_gradient.py, for the reward r - beta ln(p / q). The KL
# is a part of the reward, and PPO pays it so, token by token. The policy starts at q.


# %%
def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


z = np.log(q)
for _ in range(2000):
    p = softmax(z)
    z += p * (r - beta * np.log(p / q) - J(p))
ascended = softmax(z)
print("\nby ascent ", ascended.round(6))
print("p*        ", best.round(6))
assert np.abs(ascended - best).max() < 1e-9

# %% [markdown]
# ## 3. The scores back from the policy
#
# Take the best policy, and forget r. beta ln(p* / q) gives each score less beta ln Z, the same
# number for all. Bradley and Terry's scores are known up to a constant anyway
# (1_bradley_and_terry.py). So a policy and its reference are a reward model.

# %%
implied = beta * np.log(best / q)
print("\nbeta ln(p*/q) ", implied.round(4))
print("r - beta ln Z ", (r - beta * np.log(Z)).round(4))
assert np.allclose(implied, r - beta * np.log(Z))
assert np.allclose(implied - implied[0], r - r[0])

# %% [markdown]
# ## 4. The second way: DPO
#
# People compare replies, and call a better than b with probability sigmoid(r_a - r_b). DPO sees the
# comparisons, and never r. Here all pairs of replies are compared infinitely often: each pair
# counts with its probability. Gradient descent changes z, and pulls ln p_a up and ln p_b down:
#
#     dloss/d(ln p_a) = -beta (1 - p(a is better))          and + for b


# %%
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dpo_step(z, says, rate):
    """One step of gradient descent. says[a, b]: the share of people who call a better than b."""
    implied = beta * np.log(softmax(z) / q)
    surprise = says * (1 - sigmoid(implied[:, None] - implied[None, :]))
    pull = beta * (surprise.sum(axis=1) - surprise.sum(axis=0))  # on each ln p
    return z + rate * (pull - softmax(z) * pull.sum())


says = sigmoid(r[:, None] - r[None, :])
z = np.log(q)
for _ in range(300):
    z = dpo_step(z, says, rate=0.5)
by_dpo = softmax(z)
print("\nreply      q      p*   by ascent   by DPO")
for a in range(5):
    print(f"{a:5} {q[a]:6.2f} {best[a]:7.4f} {ascended[a]:11.4f} {by_dpo[a]:8.4f}")
assert np.abs(by_dpo - best).max() < 1e-9

# %% [markdown]
# ## 5. The same with a GPT
#
# A GPT is fine-tuned on replies as q has them: this is the reference. Then 4,000 comparisons are
# drawn, and `dpo_loss` trains a copy. `tinygpt align --method dpo` does the same. No reply is drawn
# from the policy while it learns.

# %%
REPLIES = "abcde"
tokenizer = SpecialTokenizer(CharacterTokenizer(REPLIES), CHAT_TOKENS)
CONTEXT = 5  # <|user|> a <|assistant|>, a letter, <|end|>
asked = [Example("a", reply) for reply in draws.choice(list(REPLIES), 2000, p=q)]
model = GPT(GPTConfig(tokenizer.size, CONTEXT, 16, 2, 1), generator=Generator(0))
answers = Instructions(asked, tokenizer, CONTEXT)
for _ in train(model, answers, FinetuneConfig(steps=200, batch=64, lr=1e-2)):
    pass
prompt = answers.prompts[0]


def five(model):
    """The probability of each of the five replies, and of all five together."""
    replies = [[*tokenizer.encode(reply), answers.end] for reply in REPLIES]
    with no_grad():
        log_p = reply_log_p(model, *after_prompts([(prompt, reply) for reply in replies])).numpy()
    p = np.exp(log_p.astype(np.float64))
    return p / p.sum(), p.sum()


pairs = []
while len(pairs) < 4000:
    a, b = draws.choice(5, 2, replace=False)
    if draws.random() > says[a, b]:
        a, b = b, a
    pairs.append(Preference("a", better=REPLIES[a], worse=REPLIES[b]))

aligned = Aligned(model)  # the policy, and a copy of it that stays: the reference
reference, _ = five(aligned.reference)
choices = AlignConfig(method="dpo", kl=beta, steps=125, batch=64, lr=3e-3)
preferences, optimizer = Preferences(pairs, tokenizer, CONTEXT), optimizer_of(aligned, choices)
learning = train(aligned, preferences, choices, optimizer, objective=dpo_loss(beta))
losses = [record.loss for record in learning]
policy, together = five(model)
wanted = reference * np.exp(r / beta)
wanted /= wanted.sum()
print("\nreply   reference   q e^r / Z   by dpo_loss")
for a in range(5):
    print(f"{REPLIES[a]:5} {reference[a]:11.3f} {wanted[a]:11.3f} {policy[a]:13.3f}")
print(f"loss {losses[0]:.4f} at first: ln 2, for p = q; {np.mean(losses[-20:]):.4f} at the end")
print(f"all five together: {together:.3f}")
assert np.isclose(losses[0], np.log(2), atol=1e-5)
assert np.abs(five(aligned.reference)[0] - reference).max() == 0, "the reference stays"
assert np.abs(policy - wanted).max() < 0.06
assert kl(policy, wanted) < 0.1 * kl(reference, wanted)

# %% [markdown]
# ## 6. Where the two ways differ
#
# If nobody ever calls a worse reply better, the scores have no end (1_bradley_and_terry.py). DPO
# follows them: the KL grows step by step, and beta does not stop it (Azar et al. 2023). A reward
# model that stopped somewhere gives scores that are finite, and PPO's KL with them. So DPO needs
# few epochs, or a low learning rate.

# %%
sure = (r[:, None] > r[None, :]).astype(float)
print("\nsteps     KL     p(best reply)")
grown, z = [], np.log(q)
for step in range(1, 3001):
    z = dpo_step(z, sure, rate=0.5)
    if step in (3, 30, 300, 3000):
        grown.append(kl(softmax(z), q))
        print(f"{step:5} {grown[-1]:6.3f} {softmax(z)[3]:13.3f}")
assert (np.diff(grown) > 0).all()
assert grown[-1] > 3 * kl(best, q)
