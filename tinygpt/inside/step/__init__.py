"""`tinygpt step`: a debugger for the forward and the backward pass of a trained GPT.

recorded.py    a run and a prompt -> a walk
training.py    a step of training, to the optimiser's update -> a walk
stops.py       the positions where a walk can halt
walk.py        the stops and a position: next, back, into, out, find
conditions.py  breakpoints; who made this NaN
names.py       the names of the positions on an axis
show.py        one array, by its name
updates.py     what the optimiser did, as text
picture.py     one plane of an array as a PNG
plain.py       a walk as text
screen.py      the full-screen program, with panes.py and dialogs.py
"""
