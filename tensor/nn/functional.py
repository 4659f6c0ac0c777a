"""The answer to `import torch.nn.functional as F`: the functions of `tensor.nn` are `tensor`'s."""

raise ImportError("tensor.nn has no functional. Write `import tensor as F`, and F.relu(x)")
