"""The traffic path over real sockets: client, guard and upstream in one process and loop.

``guard``      Guard: a TrafficServer with its policy and bounds, on a port of the kernel's choice
``client``     Client: raw bytes out, strictly read responses in
``upstreams``  API servers as small as a test needs: scripted, echoing, streaming, upgrading
``faults``     FaultProxy: a TCP proxy that delays, cuts, resets or swallows
"""
