"""The core: decides one request, and carries it until its outcome. Read ``gateway.py`` first.

``gateway``   Gateway.decide(line, block, peer, now) -> Decision, the one path for live requests
              and for ``explain``
``decision``  Forward | Refuse, and what a worker knows of the other end (Peer)
``session``   Session: one client connection; counts refusals, starts exchanges
``exchange``  Exchange: one forwarded request until its outcome; owns the rule that nothing is
              ever sent twice
``replies``   the guard's own answers, serialised once

Nothing here touches a socket or a clock: forwarding is tested with two in-memory connections.
"""
