"""The app that `tinyddpm app` opens in a browser; it needs the extra `app`.

page      a marimo notebook, of which each cell is a part of the page
controls  what the page asks
tabs      what the tabs compute, with a few calls of the library each
views     what the page shows
training  a training run in the background
server    the notebook as a local web page
"""
