"""Client models: what real clients of a cluster send, query by query.

``queries``      the targets, parameters sorted as Go sorts them
``credentials``  a kubeconfig -> where to connect, and as whom
``connections``  HTTP/1.1 over TLS: kept-alive connections, streams, deadlines
``rest``         client-go's retries: Retry-After honoured, at most ten times
``backoff``      client-go's backoff of reflectors
``decoding``     lists and watch frames, as far as a reflector looks into them
``reflector``    list and watch, or watch-list; resumes and relists as client-go's does
``recording``    one sample per operation, whatever became of it
``client``       Client: an identity, a user-agent, loops that run until its time is over
``nodes``        kubelet, kube-proxy
``agents``       CoreDNS, CNI agent, careful and careless telemetry, informers of one resource
``control``      controllers and their leader election, kubectl users, a broken client
``catalogue``    name in a scenario -> class

Everything here runs on gevent, beside locust, and never in a process of the guard. What differs
from the real clients: bodies of writes, and the answers to them, are JSON where theirs are
protobuf.
"""
