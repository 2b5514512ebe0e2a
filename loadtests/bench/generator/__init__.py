"""The client side of every measurement: one process, one epoll loop, no library in between.

``python -m loadtests.bench.generator SPEC`` takes a ``Spec`` as JSON, opens its connections, warms
up, measures one window and prints one JSON object: numbers, or an ``error`` with its reason. Given
several, all of closed loops, it has their proxies take turns.

``spec.py`` what to do · ``connection.py`` sockets and answers · ``closed_loop.py`` as fast as the
proxy goes · ``waves.py`` bursts that stay below a per-connection rate · ``open_loop.py`` at a
constant rate, omission-safe · ``streams.py`` watches, lists and stalled readers ·
``handshakes.py`` connections that live for one request · ``relayed.py`` lists and watches of a
collection that changes when told to · ``memory.py`` when the proxy's memory has settled.
"""
