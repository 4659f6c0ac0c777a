"""What one model makes of one text, as a page and as pictures. Of an encoder-decoder the text is a
source and the target that the model writes.

steps.py      every array from the ids to the probabilities, with words and a formula (steps.toml,
              cross.toml)
learning.py   the same text seen by earlier weights of the run
gather.py     all facts and arrays together
page.py       the page: one file, from look.html, look.css and the scripts
pictures.py   pictures

The scripts are plain JavaScript. The page holds them unchanged. data.js comes first; look.js, the
last one, begins.
"""
