"""What the guard costs beside what people would use instead.

``make bench`` (``python -m loadtests.bench``) is a benchmark, never a test: it passes or fails
nothing by the clock. It measures **CPU of the proxy's process tree per completed unit of work**,
because that figure survives a busy machine, and states **ratios** between proxies measured in
turn on the same machine, because only ratios carry over to another one.

How a figure comes about::

    responder.py     upstream: fixed bytes, lists, watches; its own epoll loop, on the first CPU
    podserver.py     upstream of relays: 10,000 pods (pods.py), changed when a client says so
    generator/       clients: closed loop, open loop, watchers, handshakes; on the first CPU too
    peers/           the proxies under test, each alone on the last CPU
    cases/           one file per question: which peers, which traffic, what must hold
    interleave.py    A B C A B C ...: one window each per round, so that drift hits all alike;
                     closed loops take turns of a tenth of a second within it
    figures.py       median and spread of rounds; ratios are taken within a round, then medians
    targets.py       loadtests/targets.yaml: gates and goals, and whether they are met
    report.py        the table;  results.py  the JSON under .bench/;  comparison.py  two of them
    profiling.py     where the CPU of the guard's worker goes

The generator reads the CPU of the proxy itself, at the edges of its window, so that no message
between processes blurs the window. It also checks status and bytes of what it counts: a proxy
that answers wrongly fails its case instead of being fast.

Everything listens on loopback, on ports from the kernel, and ends with the harness.
"""
