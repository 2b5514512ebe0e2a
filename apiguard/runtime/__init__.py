"""Processes, sockets and clocks: everything the floors below decide is performed here.

Two kinds of process. The *supervisor* opens the listening sockets, keeps the policy, answers on
the admin port and never touches a request; *workers* carry the traffic and know nothing of each
other. They speak over one socketpair each, so that a worker which hangs or dies takes nothing
with it but its own requests.

Traffic, in a worker:

``worker``      composition root: one ``Start`` message -> a serving process
``traffic``     TrafficServer: what connections share; the tick; draining
``listener``    accepts, within every bound of that edge
``downstream``  the transport of one client connection
``reading``     one buffer for the reads of all of them
``malloc``      where the C library puts what is large, and when it gives it back
``alive``       connections to upstream whose other end is gone without a word
``upstream``    transports towards API servers, opened as the pool asks
``relaying``    what the relay wishes for: lists, watches, proofs, reviews; turns of its readers
``relayviews``  what operators see of it, for a report or when they ask
``relayclient`` collections, read from API servers piece by piece; ``relaydiscovery``: what
              they are, and what custom ones may be selected by
``tls``         contexts for both sides
``shedding``    what a worker gives up near its memory limit; ``cgroup`` finds that
``defects``     exceptions nobody expected: one request or connection pays, the log says why

Control, in the supervisor:

``supervisor``  puts the parts together; life from start to exit
``fleet``       starts, watches and replaces workers; asks all of them
``operations``  what operators change and ask; ``results`` is what that answers
``following``   files and fetched key sets, handed to every worker
``servers``     upstream servers as probes and operators judge them
``rebalancing`` parts of budgets, moved to the workers that are asked
``observing``   what workers report of requests, put where operators look for it
``relaytotals`` what all relays counted, workers that are gone included
``control``     the messages between the two, typed and bounded; ``relayreport`` is a part of them
``channel``     a socketpair that carries them
``tasks``       tasks nobody awaits, whose failure ends the guard
``mirror``      bucket levels, so that a successor goes on where its predecessor stopped
``probe``       whether upstream can be reached
``sockets``     listening sockets and their errors
``settings``    a configuration file with its paths resolved
``explaining``  a question from the admin port, put to the gateway
``process``     starting and measuring a process
``log``         JSON lines on stderr

What is in force and what survives a restart:

``state``       the one way to change it: durable and on record first
``keeper``      which policy is active, and why; history and rollback
``overriding``  overrides, and when they end
``layering``    overrides in a worker, laid over its policy; ``ending`` ends streams they match
``record``      what operators did and tried, by ``actor``
``memory``      who was seen, and what shadow rules would have refused
``statestore``  revisions on disk, checksummed, and how a change and its record stay together
``linefile``    an append-only file of lines with rotation
``disk``        the one thread that writes
``reload``      policy file or stored policy: which wins

One worker is the case N = 1 of the same code.
"""
