"""Objectives: what a batch costs, one file each.

    objective(model, x, y, reduction) -> loss, ()

reduction: "mean" over the targets y that count, or "sum".
"""
