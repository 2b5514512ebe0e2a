"""What the guard counts.

``counters``  integers and fixed histograms a worker increments; deltas; their sum
``bounds``    the name of every bound and what a hit of it means
``names``     every metric: name, type, labels and help text

Nothing here knows Prometheus or a clock: ``admin.exporter`` turns totals into metrics when they
are asked for, so that counting a request costs one dictionary update.
"""
