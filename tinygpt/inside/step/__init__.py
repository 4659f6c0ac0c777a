"""`tinygpt step`: a debugger for the forward and the backward pass of a trained model.

recorded.py    a run and a prompt -> a walk
training.py    a step of training, to the optimiser's update -> a walk; the updates as text
stops.py       the positions where a walk can halt; who made this NaN
walk.py        the stops and a position: next, back, into, out, find; breakpoints
names.py       the names of the positions on an axis
picture.py     one plane of an array as a PNG
plain.py       a walk as text, or one array by its name
screen.py      the full-screen program, with panes.py and dialogs.py
"""
