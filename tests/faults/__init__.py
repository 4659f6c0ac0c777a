"""Damaged files in great number: a command must refuse each of them, or go on with it.

    python -m tests.faults --minutes 30            the table; what failed is kept under .faults/ as
    files
    python -m tests.faults --again FILE ...        tries kept inputs once more
    python -m tests.faults --inputs 20000          as many and no more: the same ones each time

mutations.py    bytes -> damaged bytes, by the kind of file
workplace.py    a folder with small runs, token folders and GPT-2s, put back after each input
readers.py      which commands read which file, and one input tried inside this process
commands.py     whole commands as processes of their own; odd files: a FIFO, a folder, a link to
/dev/zero
watch.py        time, memory and the place of a traceback
table.py        what was counted and found, on disk between two starts
"""
