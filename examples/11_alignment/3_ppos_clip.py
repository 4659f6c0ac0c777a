# %% [markdown]
# # PPO's clip: how far may a policy move on what it once tried?
#
#     ratio = p(action) now / p(action) when it was drawn
#     objective = min(ratio A, clip(ratio, 1 - e, 1 + e) A)      Schulman et al. 2017, equation 7
#
# Draws are costly: a language model writes a whole reply to get one number. So PPO takes several
# steps on the same replies, a rollout. But the rewards of a rollout say little about a policy that
# has moved far from the one that wrote it. The clip takes the gradient away from actions whose
# probability has already moved by the share e in the wanted direction. This lesson draws the
# objective, and then counts what many steps on one rollout do without the clip. At the end there is
# a picture.
#
#     A advantage: how much better than expected the action was (2_a_policy_gradient.py)

# %%
import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

from tensor import no_grad, optim
from tensor.random import Generator
from tinygpt import GPT, GPTConfig
from tinygpt.config import GPTClassifierConfig
from tinygpt.model.aligned import Aligned
from tinygpt.training.objectives.ppo import PPOLoss, Replies

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads
E = 0.2  # e, PPO's usual value

# %% [markdown]
# ## 1. Six cases on paper
#
#     A > 0   the action was good:   min(ratio, 1 + e) A        flat above 1 + e
#     A < 0   the action was bad:    max(ratio, 1 - e) A        flat below 1 - e
#
# The clip is on one side only. A good action that has become less likely (ratio 0.5) still has a
# slope: the policy moved the wrong way, and may come back.


# %%
def objective(ratio, A):
    return np.minimum(ratio * A, np.clip(ratio, 1 - E, 1 + E) * A)


def slope(ratio, A):
    """dobjective/dratio, by the two conditions above."""
    flat = (A > 0) & (ratio > 1 + E) | (A < 0) & (ratio < 1 - E)
    return np.where(flat, 0.0, A)


print("   A   ratio   objective   slope")
for A in (1.0, -1.0):
    for ratio in (0.5, 1.0, 1.5):
        print(f"{A:4.0f} {ratio:7} {objective(ratio, A):11.2f} {slope(ratio, A):7.0f}")

# %% [markdown]
# ## 2. The same curve from tinygpt's loss
#
# The policy is a GPT that reads one token and writes one: 20 replies of one token each. `PPOLoss`
# gets the probabilities when the replies were drawn. If you change these, you set the ratio. The
# objective of reply 3 and the gradient of all weights are then measured, not derived.

# %%
V = 20  # replies


def fresh():
    """A policy, with the value head that PPO needs beside it."""
    policy = GPT(GPTConfig(V, 1, width=16, heads=2, layers=1), generator=Generator(0))
    return Aligned(policy, GPTClassifierConfig(V, 1, 16, 2, 1, labels=("reward",)))


def probabilities(model):
    with no_grad():
        logits = model.policy(np.zeros((1, 1), int)).numpy()[0, 0].astype(np.float64)
    p = np.exp(logits - logits.max())
    return p / p.sum()


def rollout(actions, old, advantages):
    """Replies of one token, as PPOLoss takes them.   all (N,)"""
    prompts, nothing = np.zeros((len(actions), 1), int), np.zeros((len(actions), 1))
    return Replies(prompts, actions[:, None], np.log(old)[:, None], advantages[:, None], nothing)


def measured(model, ratio, A):
    """The objective at this ratio, and the length of its gradient."""
    now = probabilities(model)[3:4]
    x = rollout(np.array([3]), now / ratio, np.array([A]))
    model.policy.zero_grad()
    loss = PPOLoss(E, value_weight=0.0)(model, x, x.targets, "mean")
    loss.backward()
    squares = [(w.grad.numpy() ** 2).sum() for w in model.policy.parameters() if w.grad is not None]
    return -loss.item(), np.sqrt(sum(squares))


model = fresh()
ratios = np.array([0.1, 0.3, 0.5, 0.7, 0.79, 0.81, 0.9, 1.0, 1.1, 1.19, 1.21, 1.3, 1.5, 1.7, 1.9])
found = {A: np.array([measured(model, ratio, A) for ratio in ratios]) for A in (1.0, -1.0)}
for A, (objectives, lengths) in ((A, rows.T) for A, rows in found.items()):
    assert np.allclose(objectives, objective(ratios, A), atol=1e-5)
    assert np.array_equal(lengths == 0, slope(ratios, A) == 0), "no gradient where it is flat"
    print(f"A {A:2.0f}: no gradient at the ratios {ratios[lengths == 0].tolist()}")

# %% [markdown]
# The gradient of a ratio is ratio dln p. At the first step on a rollout each ratio is 1, so the
# gradient is A dln p, that of REINFORCE. The clip changes only the steps after the first.
#
# ## 3. Many steps on one rollout
#
# The 20 replies have a true worth, hidden from the policy. A rollout draws 64 replies, and each
# gets its worth with noise as its reward. Then there are many steps on this one rollout. Since
# there are only 20 replies, four numbers are known exactly after each step:
#
#     promised   mean of ratio A: what the rollout says of the new policy
#     worth      sum p worth: how good the new policy is
#     KL         KL(new, old) in nats
#     ratio      the largest of the rollout

# %%
WORTH = np.random.default_rng(1).normal(size=V)
REPLIES, NO_CLIP = 64, 1e9


def drawn(p, draws):
    """A rollout of the policy: rewards are standardised, as PPO does with advantages."""
    actions = draws.choice(V, REPLIES, p=p)
    rewards = WORTH[actions] + draws.normal(size=REPLIES)
    return rollout(actions, p[actions], (rewards - rewards.mean()) / rewards.std())


def steps(model, x, count, clip, optimizer):
    """So many steps on one rollout."""
    objective = PPOLoss(clip, value_weight=0.0)
    for _ in range(count):
        optimizer.zero_grad()
        objective(model, x, x.targets, "mean").backward()
        optimizer.step()


def adam(model):
    return optim.AdamW(model.policy, lr=0.01, weight_decay=0.0)


def on_one_rollout(clip, counts=(0, 1, 4, 16, 64)):
    """A row of the table after each of these counts of steps."""
    model = fresh()
    optimizer, old, rows = adam(model), probabilities(model), []
    x = drawn(old, np.random.default_rng(0))
    actions, advantages = x.targets[:, 0], x.advantages[:, 0]
    for before, count in zip((0, *counts), counts, strict=False):
        steps(model, x, count - before, clip, optimizer)
        p = probabilities(model)
        ratio = (p / old)[actions]
        promised, kl = (ratio * advantages).mean(), (p * np.log(p / old)).sum()
        rows.append(np.round((promised, p @ WORTH, kl, ratio.max()), 9) + 0.0)
        print("{:5} {:12.3f} {:8.3f} {:8.3f} {:7.2f}".format(count, *rows[-1]))
    return np.array(rows)


after = {}
for clip, name in ((NO_CLIP, "no clip"), (E, f"clip {E}")):
    print(f"\n{name}\nsteps     promised    worth       KL   ratio")
    after[clip] = on_one_rollout(clip)
assert np.allclose(after[NO_CLIP][:2], after[E][:2]), "the first step is the same"
promised, worth, kl, ratio = after[NO_CLIP][-1]
assert ratio > 10
assert kl > 2
assert promised > worth + 0.3, "the rollout promises what is not true"
assert after[E][-1][2] < 0.15
assert after[E][-1][3] < 2.5

# %% [markdown]
# Without the clip the policy puts nearly all on the reply that was luckiest in this rollout. The
# rollout promises ever more. The worth follows for some steps, and then falls: nothing in the
# rollout says when to stop. With the clip the policy stops early. The clip is no wall: a ratio can
# pass 1.2, because replies share weights and Adam has momentum. But nothing pushes further.
#
# ## 4. Rollout after rollout
#
# A policy that writes one reply alone tries nothing new, and learns nothing more. So the harm shows
# later. Three ways to use 12 rollouts, four policies each:

# %%
best, ROLLOUTS = WORTH.max(), 12


def trained(clip, count, seed):
    """The worth of a policy after all rollouts, and its entropy in nats."""
    model, draws = fresh(), np.random.default_rng(seed)
    optimizer = adam(model)
    for _ in range(ROLLOUTS):
        steps(model, drawn(probabilities(model), draws), count, clip, optimizer)
    p = probabilities(model)
    return p @ WORTH, -(p * np.log(p + 1e-300)).sum()


ways = {
    "1 step, no clip": (NO_CLIP, 1),
    "20 steps, no clip": (NO_CLIP, 20),
    f"20 steps, clip {E}": (E, 20),
}
print("\nsteps on each rollout    worth of four policies        entropy")
ends = {}
for name, (clip, count) in ways.items():
    ends[name] = np.array([trained(clip, count, seed) for seed in range(4)])
    worths, entropies = ends[name].T
    print(f"{name:24} {' '.join(f'{w:6.2f}' for w in sorted(worths))} {entropies.mean():12.2f}")
print(f"the best reply is worth {best:.2f}, all replies equally likely {WORTH.mean():.2f}")
one, many, clipped = (ends[name][:, 0] for name in ways)
assert clipped.min() > many.min(), "without the clip a policy can end on a reply by luck"
assert np.median(clipped) > np.median(one), "more is learned from the same rollouts"
assert ends["20 steps, no clip"][:, 1].mean() < 0.1, "one reply, and nothing new is tried"

# %% [markdown]
# One step on each rollout is safe, and slow. Twenty steps without the clip are a lottery: each
# policy ends on one reply, good or not. With the clip all four are good, and still try others.
#
# ## 5. The picture
#
# Left, a good action: the objective is flat above 1.2. Right, a bad action: it is flat below 0.8.
# Dots are measured with `PPOLoss`, hollow where the gradient is 0.

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
curve = np.linspace(0, 2, 401)
for ax, (A, rows) in zip(axes, found.items(), strict=True):
    flat = rows[:, 1] == 0
    ax.plot(curve, curve * A, color="gray", linestyle=":", label="ratio A, no clip")
    ax.plot(curve, objective(curve, A), color="tab:blue", linewidth=2, label="PPO's objective")
    ax.plot(ratios[~flat], rows[~flat, 0], "o", color="tab:blue", label="has a gradient")
    ax.plot(ratios[flat], rows[flat, 0], "o", color="tab:blue", mfc="white", label="gradient 0")
    ax.axvspan(1 - E, 1 + E, color="tab:green", alpha=0.12)
    ax.axvline(1, color="gray", linewidth=0.8)
    what = "a good action, A = 1" if A > 0 else "a bad action, A = -1"
    ax.set(title=what, xlabel="ratio: p now / p when drawn", ylabel="objective", xlim=(0, 2))
    ax.legend(loc="best", fontsize=8)
if plt.get_backend().lower() != "agg":  # agg: no screen, nothing to show
    plt.show()
