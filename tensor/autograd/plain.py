"""The backward pass in its plain form: the page to read first, and the oracle of backward.py.

    dL/dx  =  sum over every op that used x   of   dL/dy * dy/dx

The graph holds a node for every result, and a node knows its op's backward function and its
parents, the nodes of the op's inputs. The pass visits the newest node first. Every use of a result
is newer than the result, so a node has its whole gradient when its turn comes.

backward.py does the same, and adds what a training needs: it frees memory on the way, writes
gradients
into their buffers, and checks shapes, hooks and writes. `tensor.checkpoint` is beyond this page.
"""

from __future__ import annotations

from typing import Any

from tensor.graph import Output, reachable
from tensor.memory.devices import Array


def gradients(y: Any, dy: Array) -> dict[Any, Array]:
    """dL/dx for the node of every x behind the tensor y, where dL/dy = dy. Nothing is freed or
    stored.
    """
    total: dict[Any, Any] = {y.node: dy}
    for node in reversed(reachable([y.node])):
        if node not in total or not node.parents:  # a result that nobody used; a leaf
            continue
        # one of several results: the op's node waits for the gradients of all
        if type(node) is Output:
            of_all = total.setdefault(node.parents[0], [None] * node.parents[0].outputs)
            of_all[node.index] = total[node]
            continue
        dys = total[node] if type(total[node]) is list else [total[node]]
        for parent, share in zip(node.parents, node.gradients(*dys), strict=True):
            if parent is not None and share is not None:
                total[parent] = total[parent] + share if parent in total else share
    return total
