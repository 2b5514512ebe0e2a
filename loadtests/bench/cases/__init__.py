"""The questions. Each case names its peers, its traffic, and what a window of it measures.

A case is data (``case.py``); the table of all of them is ``catalogue.py``. How windows are taken
in turn is ``interleave.py``'s business, whether the answers are good enough that of
``loadtests/targets.yaml``.
"""
