"""What one model makes of one text, as a page and as pictures.

walk.py       one pass through the model: every array from the ids to the probabilities
steps.py      what each of these arrays is, in words and as a formula
learning.py   the same text seen by earlier weights of the run
gather.py     all of it together
page.py       the page, of look.html, look.css and the scripts: one file
pictures.py   pictures

The scripts are plain JavaScript. The page holds them unchanged: data.js comes first, look.js
begins.
"""
