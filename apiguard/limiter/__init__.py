"""How much, and how often: token buckets that know nothing of bytes, sockets or clocks.

``flow``     what is asked: Flow, LimitSpec, BucketSpec (values, compiled by ``policy``)
``bucket``   TokenBucket: one level that refills with time
``keys``     which bucket of a limit a request belongs to
``table``    all living buckets: bounded, evicting only what is full again
``limiter``  Limiter.acquire -> Permit | Shed, over all limits of a flow at once
``staging``  on which keys a rule refuses that is rolled out to some percent of them
``replay``   charging with samples that stand for many requests, in virtual time
``shares``   this worker's part of each budget, and how the parts move between workers

Specs belong to the policy and are replaced with it; levels belong to the Limiter and outlast it.
Three promises hold through every operation here (reload, eviction, overflow, restart of a worker,
rebalancing): a bucket never admits more than ``burst + rate * time``; all limits of a flow are
charged together or none is; memory is bounded by the table's capacity and the policy's size,
whatever clients send.
"""
