"""Incidents, replayed without the guard and with it.

``make incident-S1`` (``python -m loadtests.incidents S1``) plays a scenario twice and states what
became of leases, writes, the API server and the guard. How a run comes about::

    cluster.py     certificates, tokens, kubeconfig: who everybody is
    server.py      the embedded API server as a process, with its capacity model and its accidents
    apiservers.py  that one, or a real kube-apiserver, behind one interface
    guarding.py    the guard as a process, with the shipped policy unless told otherwise
    stage.py       all of these and the players of one run; samples, load, memory, marks
    operator.py    the operator, who has nothing but the command line
    catalogue.py   the incidents: scenario, capacity, what happens when, what must hold
    figures.py     samples -> percentiles, time to contain, time to recover
    report.py      terminal, JSON, HTML;  plots.py  SVG without a library

The capacity model stands in for a control plane 25 times as large with 50 times as many objects:
two virtual cores and 4 GiB for fifty cores and 100 GiB, a client for 25, and an object that costs
the server what 50 do. So each LIST is as dear, for its server, as at full size. Absolute figures
are a model's; what carries over is who survives, and the ratio between both runs.
"""
