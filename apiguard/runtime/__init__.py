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
``upstream``    transports towards API servers, opened as the pool asks
``tls``         contexts for both sides
``defects``     exceptions nobody expected: one request or connection pays, the log says why

Control, in the supervisor:

``supervisor``  starts, watches and replaces workers; applies changes to all of them
``control``     the messages between the two, typed and bounded
``channel``     a socketpair that carries them
``keeper``      which policy is active, and why
``statestore``  what survives a restart, checksummed
``reload``      policy file or stored policy: which wins
``mirror``      bucket levels, so that a successor goes on where its predecessor stopped
``probe``       whether upstream can be reached
``sockets``     listening sockets and their errors
``settings``    a configuration file with its paths resolved
``explaining``  a question from the admin port, put to the gateway
``process``     starting and measuring a process
``log``         JSON lines on stderr

One worker is the case N = 1 of the same code.
"""
