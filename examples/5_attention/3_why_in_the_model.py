# %% [markdown]
# # Why like this? Three questions about the model, each with a wrong model
#
# Why is the mask -inf and not -10000? Why eval()? Why divide by the square root of the head width?
# Each wrong model below runs, and most of the time nobody sees that it is wrong.

# %%
import numpy as np
from threadpoolctl import threadpool_limits

import tensor
import tinygpt
from tensor import Tensor, optim

threadpool_limits(1, user_api="blas")  # matrix products this small are slower on several threads
rng = np.random.default_rng(0)


def attend(q, k, v, fill=-np.inf, scale=True):
    """Attention in NumPy, with two ways to get it wrong: another `fill` for the future, no `scale`.
    (T, D)
    """
    T, D = q.shape
    scores = q @ k.T / (np.sqrt(D) if scale else 1)
    scores = np.where(np.tri(T, dtype=bool), scores, fill)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights @ v, weights


# %% [markdown]
# ## 1. Why -inf?
#
# -10000 is far below any usual score, so it works, until the allowed scores are lower still. Then
# the masked tokens get the largest weights, and token 0 reads its future. But e^-inf is always 0.

# %%
T, D = 4, 8
q, k, v = (rng.standard_normal((T, D)) for _ in range(3))
for size, what in ((1, "usual queries"), (1e5, "queries 100,000 times as large")):
    opposed = -size * np.abs(q)  # a query that agrees with no key: all its scores are below 0
    right, right_weights = attend(opposed, np.abs(k), v)
    wrong, wrong_weights = attend(opposed, np.abs(k), v, fill=-10000.0)
    engine = tensor.attention(*(Tensor(a) for a in (opposed, np.abs(k), v)), causal=True).numpy()
    print(f"{what}: token 0 takes from itself and its future")
    for fill, seen in (("-inf", right_weights), ("-10000", wrong_weights)):
        print(f"    masked with {fill:6} {seen[0].round(3)}")
    assert np.allclose(engine, right)
    assert right_weights[0].tolist() == [1, 0, 0, 0]
    assert (wrong_weights[0, 1:].sum() > 0.99) == (size > 1)

# %% [markdown]
# To set the weights of the future to zero after softmax is wrong too. The future is still in the
# sum that softmax divides by. So the result depends on the future, and the weights do not add up to
# 1.

# %%
# softmax over everything, the future as it is
_, weights = attend(q, k, v, fill=q @ k.T / np.sqrt(D))
late = weights * np.tri(T)
print("\nzeroed after softmax, rows add up to", late.sum(axis=1).round(3))
assert late.sum(axis=1).min() < 0.9

# %% [markdown]
# ## 2. Why divide by the square root of D?
#
# A score is a sum of D products. If the numbers are around 1, each product is around 1, and the sum
# is around sqrt(D). For scores so far apart, softmax gives nearly all weight to one token, and its
# slope there is nearly 0. So a token that was chosen by chance stays chosen. The table is for the
# last of 16 tokens, with random numbers and a random gradient at the weights:

# %%
T = 16
print("\n    D   spread of scores   largest weight   gradient at the scores")
for D in (4, 64, 1024):
    for scale in (False, True):
        tops, slopes, spread = [], [], []
        for _ in range(200):
            scores = Tensor(
                rng.standard_normal(D)
                @ rng.standard_normal((T, D)).T
                / (np.sqrt(D) if scale else 1),
                requires_grad=True,
            )
            weights = scores.softmax()
            (ds,) = tensor.grad(weights, scores, rng.standard_normal(T))
            spread.append(scores.numpy().std())
            tops.append(weights.numpy().max())
            slopes.append(np.abs(ds.numpy()).sum())
        how = "divided by sqrt(D)" if scale else "as they are"
        print(
            f"{D:5}   {np.mean(spread):16.2f}   {np.mean(tops):14.2f}   {np.mean(slopes):22.3f}   "
            f"{how}"
        )
        assert abs(np.mean(spread) / (1 if scale else np.sqrt(D)) - 1) < 0.25
        assert scale or D < 1024 or (np.mean(tops) > 0.9 and np.mean(slopes) < 0.2)
        assert not scale or (np.mean(tops) < 0.5 and np.mean(slopes) > 0.4)
D = 1024
q, k, v = (rng.standard_normal((T, D)) for _ in range(3))
engine = [
    tensor.attention(*map(Tensor, (q, k, v)), causal=True, **options).numpy()
    for options in ({}, {"scale": 1.0})
]
assert np.allclose(engine[0], attend(q, k, v)[0])
assert np.allclose(engine[1], attend(q, k, v, scale=False)[0]), "the wrong one can be asked for"

# %% [markdown]
# ## 3. Why eval()?
#
# In training, dropout sets some activations to zero, others at each call, so that the model does
# not rely on single numbers. With dropout, a measurement sees another model at each call, and
# nearly always a worse one. eval() switches dropout off, train() switches it on.

# %%
text = tinygpt.story()
tokenizer = tinygpt.CharacterTokenizer(text)
x, y = tinygpt.windows(tokenizer.encode(text), 16)
tensor.manual_seed(0)
model = tinygpt.GPT(
    tinygpt.GPTConfig(
        vocabulary=tokenizer.size, context=16, width=32, heads=2, layers=1, dropout=0.2
    )
)
optimizer, batches = optim.AdamW(model, lr=2e-2), tensor.Generator(0)
for _ in range(120):
    rows = batches.integers(0, len(x), (16,))
    optimizer.zero_grad()
    model.loss(x[rows], y[rows]).backward()
    optimizer.step()

with tensor.no_grad():
    forgotten = [model.loss(x, y).item() for _ in range(4)]
    model.eval()
    measured = [model.loss(x, y).item() for _ in range(4)]
    model.train()
print("\nlosses of one model, eval() forgotten  ", *(f"{loss:.4f}" for loss in forgotten))
print("                     after eval()      ", *(f"{loss:.4f}" for loss in measured))
assert len(set(forgotten)) == 4, "the same model and text, four losses"
assert len(set(measured)) == 1
assert min(forgotten) > measured[0] + 0.05
