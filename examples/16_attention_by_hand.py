"""Attention: each token asks, the tokens up to it answer.

    y = softmax(q k^T / sqrt(D), the future masked) v

q is the question of a token, k what each token offers to be found by, v what it gives if it is. Written out here line by line on
the way a GPT does it, with heads, then compared with the engine's one op, `tensor.attention`.

B batch   T time   C width   H heads   D head width, C / H
"""

import numpy as np

import tensor
from tensor import nn
from tensor.errors import ViewError

B, T, C, H = 2, 5, 12, 3
D = C // H
tensor.manual_seed(0)
x = tensor.randn(B, T, C, requires_grad=True)
project = nn.Linear(C, 3 * C)

print("1. Questions, keys and values: one product, cut in three, each cut in heads\n")
q, k, v = project(x).split(C, axis=-1)  # 3 x (B, T, C), all views
q = q.view(B, T, H, D).transpose(1, 2)  # (B, H, T, D): each head is a batch of its own
k = k.view(B, T, H, D).transpose(1, 2)
v = v.view(B, T, H, D).transpose(1, 2)
print(f"q {q.shape}, strides {q.strides}: still the memory of the product, {3 * C} numbers a token; nothing has been copied")

print("\n2. Scores, the mask, softmax\n")
wei = q @ k.transpose(-2, -1) * D**-0.5  # (B, H, T, T): how well query t fits key s
tril = tensor.tril(tensor.ones(T, T))
wei = wei.masked_fill(tril == 0, float("-inf"))
wei = wei.softmax(-1)
print("weights of the first head: row t, column s, how much token t takes from token s\n")
print(wei[0, 0].detach().numpy().round(3))
future = wei.numpy()[..., np.triu(np.ones((T, T), bool), 1)]
print(f"\nEach row sums to 1. e^-inf is 0, so the future's weight is exactly 0: {(future == 0).all()}")

print("\n3. Not with a large number in place of -inf: with scores of -20000 all that is allowed looks worse than what is masked\n")
scores = tensor.full((2, 2), -20000.0)
for fill in (-10000.0, float("-inf")):
    row = scores.masked_fill(tensor.tril(tensor.ones(2, 2)) == 0, fill).softmax(-1)[0]
    print(f"mask filled with {fill:8}: token 0 takes {row[0].item():.0f} from itself, {row[1].item():.0f} from its future")

print("\n4. Sum the values by weight, put the heads side by side again\n")
ctx = wei @ v  # (B, H, T, D)
try:
    ctx.transpose(1, 2).view(B, T, C)
except ViewError as error:
    print("without contiguous():", error)
y = ctx.transpose(1, 2).contiguous().view(B, T, C)
print(f"\nA token's heads lie T * D = {T * D} numbers apart; to become one axis they must be neighbours: hence the copy.")

print("\n5. The same as one op\n")
fused = tensor.attention(q, k, v, causal=True).transpose(1, 2).reshape(B, T, C)
dy = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
by_hand, by_op = (tensor.grad(out, x, dy, retain_graph=True)[0].numpy() for out in (y, fused))
print(f"values:    largest difference {np.abs(y.numpy() - fused.numpy()).max():.0e}")
print(f"gradients: largest difference {np.abs(by_hand - by_op).max():.0e}")
assert np.allclose(y.numpy(), fused.numpy(), atol=1e-5)
assert np.allclose(by_hand, by_op, atol=1e-5)

print("\n6. No token can learn from its future: the gradient of y[t] at x[s], s > t, is exactly 0 as well\n")
print("rows t, columns s, largest |dy[t]/dx[s]|:\n")
reach = np.zeros((T, T))
for t in range(T):
    (dx,) = tensor.grad(y[:, t].sum(), x, retain_graph=True)
    reach[t] = np.abs(dx.numpy()).max(axis=(0, 2))
print(reach.round(3))
assert (reach[np.triu(np.ones((T, T), bool), 1)] == 0).all()
