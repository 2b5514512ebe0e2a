"""The core: decides one request, and carries it until its outcome. Read ``gateway.py`` first.

``gateway``   Gateway.decide(line, block, peer, now) -> Decision, the one path for live requests
              and for ``explain``
``decision``  Forward | Refuse | Serve, and what a worker knows of the other end (Peer)
``session``   Session: one client connection; counts refusals, starts exchanges
``exchange``  Exchange: one forwarded request until its outcome; owns the rule that nothing is
              ever sent twice
``watchlist`` WatchList: an Exchange that begins as a list and goes on as a watch
``asking``    Wanted, Form: whether a request may be the relay's, and what it asks for
``relaydesk`` RelayDesk: who asks, may they, is there a cache, is it fresh enough, list or watch;
              by stretches: ``eligible``, ``clearance``, ``proving``, ``answering``,
              ``compressing``
``lobby``     Lobby: everybody at the desk, in whose turn they go on, and the ways out
``driver``    what the desk wishes for from whoever has sockets
``feedbook``  FeedBook: the feeds there are, bounded whatever callers ask for
``feeds``     Feed: one cache with everything around it, and who waits for it
``serving``   Serving: the sibling of Exchange for what the relay answers; becomes one if it cannot
``replies``   the guard's own answers, serialised once

Nothing here touches a socket or a clock: forwarding is tested with two in-memory connections.
"""
