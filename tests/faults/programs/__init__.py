"""Random programs, run here and in PyTorch, and compared after every step.

    python -m tests.faults.programs --programs 2000 --seed 0     the table; programs that differ,
    shrunk

step.py         a step as data, and as a line of Python for either library
drawing.py      what a step is drawn from: the values of the program so far
arithmetic.py, views.py, layers.py, graph.py
                the ops: how each is written here and in PyTorch, and what draws its inputs
ops.py          all of them, in groups
namespaces.py   the names that a program may use, in either library
running.py      one program in both libraries side by side
comparing.py    values, shapes, flags, memory and gradients of both
rounding.py     whether rounding alone can make two results differ
explained.py    where the two libraries differ by rule, each with its reason
shrinking.py    the shortest program that still differs, as runnable Python
"""
