"""What one model makes of one text, to look at: a page and pictures of what it computes.

    walk.py       one pass through the model: every array on the way from ids to probabilities
    steps.py      what each of them is, in words and as a formula
    learning.py   the same text seen by earlier weights of the run
    gather.py     all of it together
    page.py       the page, of look.html, look.css and the scripts: one file
    pictures.py   pictures

The scripts are plain JavaScript, put into the page as they are; data.js comes first, look.js begins.
"""
