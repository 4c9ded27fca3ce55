"""The Python API: what ``import stylemill`` offers to scripts and notebooks (docs/python-api.md).

``stylemill.StyleModel`` paints single images, ``stylemill.train`` and ``stylemill.stylize`` run the same jobs as the
command line, ``stylemill.Manifest`` reads what they wrote, and ``stylemill.Stylizer`` paints in a Ray Data pipeline.
"""
