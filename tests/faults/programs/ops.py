"""All ops that programs are made of, in groups, with the share of each group among the steps."""

from __future__ import annotations

from tests.faults.programs.arithmetic import BINARY, MAKING, REDUCTIONS, UNARY
from tests.faults.programs.graph import GRAPH, WRITES
from tests.faults.programs.layers import FUSED
from tests.faults.programs.views import INDEXING, VIEWS

GROUPS = {
    "making": (MAKING, 1.0),
    "unary": (UNARY, 2.0),
    "binary": (BINARY, 4.5),
    "reductions": (REDUCTIONS, 1.5),
    "views": (VIEWS, 3.5),
    "indexing": (INDEXING, 1.5),
    "fused": (FUSED, 1.5),
    "writes": (WRITES, 2.5),
    "graph": (GRAPH, 3.0),
}
OPS = {name: entry for group, _ in GROUPS.values() for name, entry in group.items()}
