# %% [markdown]
# # A policy gradient by hand: learn from what you tried
#
#     J = E[r] = sum_a p_a r_a                 p = softmax(z): the policy   r: the rewards
#     dJ/dz = E[r_A dln p_A/dz]                A: an action drawn from p
#     dln p_A/dz = e_A - p                     e_A: 1 at A, else 0
#
# In supervised learning somebody says which answer is right. Here nobody does. The policy tries an
# action, and gets a number for it. REINFORCE (Williams 1992) makes the tried action likelier, the
# more so the higher its reward. This lesson computes what REINFORCE does on average, how much it
# varies, and why a baseline helps. The world is a bandit: three actions, one draw, one reward.

# %%
import numpy as np

from tensor import Tensor
from tinygpt.training.objectives.ppo import advantages_of

# %% [markdown]
# ## 1. The gradient, if all rewards are known
#
# Three replies to one question have the rewards 1, 0.5 and 0. The derivative of the sum is
#
#     dJ/dz_a = p_a (r_a - J)
#
# A reply that is better than the mean J gets likelier, and a reply that is worse gets less likely.

# %%
r = np.array([1.0, 0.5, 0.0])
z = np.array([0.0, 0.5, 1.0])  # at first the worst reply is the likeliest


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


p = softmax(z)
J = p @ r
exact = p * (r - J)
leaf = Tensor(z, requires_grad=True)
(leaf.softmax(-1) * r).sum().backward()
print("p        ", p.round(4), f"  J = {J:.4f}")
print("gradient ", exact.round(4), "by the engine", leaf.grad.numpy().round(4))
assert np.allclose(leaf.grad.numpy(), exact)

# %% [markdown]
# ## 2. The same gradient, from draws
#
# A policy does not know the rewards of what it did not try. REINFORCE draws A from p, and takes the
# vector r_A (e_A - p). With three actions there are only three such vectors, so the mean is a short
# sum:
#
#     sum_a p_a r_a (e_a - p) = p r - p J      which is dJ/dz
#
# So one draw is right on average, although each single draw is wrong.

# %%
directions = np.eye(3) - p  # row a: dln p_a/dz
estimates = r[:, None] * directions  # row a: the estimate when a is drawn
mean = p @ estimates
print("\ndrawn   with p    estimate")
for a in range(3):
    print(f"{a:5} {p[a]:9.3f}    {estimates[a].round(4)}")
print("mean               ", mean.round(4))
assert np.allclose(mean, exact, atol=1e-15)

draws = np.random.default_rng(0)
print("draws     mean of the estimates        error")
for count in (10, 1000, 100_000):
    sampled = estimates[draws.choice(3, count, p=p)].mean(axis=0)
    error = np.linalg.norm(sampled - exact)
    print(f"{count:7,}   {sampled.round(4)!s:26} {error:.4f}")
assert error < 0.01

# %% [markdown]
# The loss -r_A ln p_A has this estimate as its gradient, with the sign turned. So the engine can
# train any policy, a GPT too: the reward is a constant, and the gradient goes through ln p.

# %%
leaf = Tensor(z, requires_grad=True)
(-r[1] * leaf.log_softmax(-1)[1]).backward()
assert np.allclose(-leaf.grad.numpy(), estimates[1])

# %% [markdown]
# ## 3. The variance, and a baseline
#
#     estimate with a baseline b:   (r_A - b) (e_A - p)
#     variance:                     E[|estimate|^2] - |E[estimate]|^2
#
# The mean of e_A - p is 0. So subtracting any number b from the reward leaves the mean as it is.
# The variance changes. Without a baseline, rewards near 10 make every drawn reply likelier, good or
# bad, and only the small differences between the pushes say which was good.


# %%
def mean_and_variance(r, p, b):
    """Of the estimate, computed from all actions: no draw is needed."""
    each = (r - b)[:, None] * (np.eye(len(p)) - p)
    mean = p @ each
    return mean, p @ (each**2).sum(axis=1) - mean @ mean


def best_baseline(r, p):
    """Where the variance is lowest: the mean reward, weighted by |e_a - p|^2."""
    weights = p * ((np.eye(len(p)) - p) ** 2).sum(axis=1)
    return weights @ r / weights.sum()


variances = {}
print("\nrewards                baseline       variance")
for shift in (0.0, 10.0):
    shifted = r + shift
    baselines = {"none": 0.0, "mean J": p @ shifted, "best": best_baseline(shifted, p)}
    for name, b in baselines.items():
        mean, variances[shift, name] = mean_and_variance(shifted, p, b)
        print(f"{shifted!s:18} {name:>8} {b:7.3f} {variances[shift, name]:14.4f}")
        assert np.allclose(mean, exact), "no baseline changes the mean"
assert variances[10.0, "none"] > 100 * variances[0.0, "none"]
for name in ("mean J", "best"):
    assert np.isclose(variances[10.0, name], variances[0.0, name])
    assert variances[0.0, name] < variances[0.0, "none"]

# %% [markdown]
# The mean of n draws has a variance n times smaller. So with rewards near 10, a thousand draws
# without a baseline are worth as much as one draw with the mean J as a baseline:

# %%
draws_needed = variances[10.0, "none"] / variances[10.0, "mean J"]
print(f"one draw with the baseline J is worth {draws_needed:,.0f} without")
assert draws_needed > 500
counted = []
for b in (0.0, p @ (r + 10)):
    each = (r + 10 - b)[:, None] * directions
    means = each[draws.choice(3, (2000, 16), p=p)].mean(axis=1)  # 2,000 times 16 draws
    counted.append(means.var(axis=0).sum() * 16)
print(f"counted in draws: {counted[0]:.2f} and {counted[1]:.4f}")
assert np.allclose(counted, [variances[10.0, "none"], variances[10.0, "mean J"]], rtol=0.15)

# %% [markdown]
# ## 4. It learns
#
# Each step draws one reply. The baseline is the mean of the rewards so far: the policy knows J no
# better. The table shows the probability of the best reply, for 50 policies with other draws.


# %%
def learn(with_baseline, seed, steps=400, rate=0.2):
    """p(best reply) before each step."""
    draws, z, shares = np.random.default_rng(seed), np.array([0.0, 0.5, 1.0]), []
    baseline = 10 + r[draws.choice(3, p=softmax(z))] if with_baseline else 0.0  # a first draw
    for step in range(steps):
        p = softmax(z)
        shares.append(p[0])
        a = draws.choice(3, p=p)
        reward = 10 + r[a]
        z = z + rate * (reward - baseline) * (np.eye(3)[a] - p)
        if with_baseline:
            baseline += (reward - baseline) / (step + 2)  # the mean of step + 2 rewards
    return shares


print("\n             p(best reply) at step")
print("baseline      0     100    399   policies that end on a reply that is not the best")
stuck = {}
for with_baseline in (False, True):
    shares = np.array([learn(with_baseline, seed) for seed in range(50)])
    first, middle, last = np.median(shares, axis=0)[[0, 100, 399]]
    stuck[with_baseline] = (shares[:, -1] < 0.5).sum()
    name = "mean reward" if with_baseline else "none"
    print(f"{name:12} {first:.3f}  {middle:.3f}  {last:.3f}   {stuck[with_baseline]}")
assert stuck[False] > 25
assert stuck[True] < 5

# %% [markdown]
# Without a baseline the first reply that is drawn gets likelier, is drawn again, and gets likelier
# still. Most policies end there. With the baseline a reply must be better than the mean.
#
# ## 5. The advantage: a baseline for each token
#
#     d_t = r_t + V_t+1 - V_t          A_t = d_t + lambda A_t+1         Schulman et al. 2016
#
# A reply has several tokens, and one reward at its end. Which token earned it? The value V_t is the
# reward to expect from the tokens so far: J, where the question is all there is. d_t is how much
# token t changed this expectation. The advantage A_t adds up the later changes too, each with one
# more factor lambda. With lambda = 1 the values between cancel, and A_t is the reward minus V_t:
# the baseline of section 3. With lambda = 0, A_t = d_t: token t gets the credit for its own change.
#
# The reply "Tom. So what." is right, and then rude. Before it, 0.6 is to be expected; after "Tom",
# 0.9; after "So", 0.5. The reward at the end is 0.5.

# %%
tokens = "Tom.", "So", "what."
rewards, values = np.array([0.0, 0.0, 0.5]), np.array([0.6, 0.9, 0.5])
print("\nlambda  ", *(f"{token:>7}" for token in tokens))
for lambda_ in (0.0, 0.5, 1.0):
    advantages, following, next_value = np.zeros(3), 0.0, 0.0
    for t in (2, 1, 0):
        following = rewards[t] + next_value - values[t] + lambda_ * following
        advantages[t], next_value = following, values[t]
    print(f"{lambda_:7} ", *(f"{advantage:7.2f}" for advantage in advantages + 0.0))
    of_tinygpt = advantages_of(rewards[None], values[None], np.ones((1, 3), int), 1.0, lambda_)
    assert np.allclose(of_tinygpt[0], advantages)
    if lambda_ == 0:
        assert np.allclose(advantages, [0.3, -0.4, 0.0]), "the name was good, the word So was not"
    if lambda_ == 1:
        assert np.allclose(advantages, rewards.sum() - values)

# %% [markdown]
# With lambda = 1 the name gets the blame for the word after it. That is right on average, and
# varies much. With lambda = 0 each token is judged by itself. That varies less, but is only as
# right as the values are. PPO takes a lambda between, by default 0.95 (`tinygpt align --gae`).
