"""The operator's side of the admin port: what ``apiguard top``, ``ban`` and the rest are made of.

It runs while everything else is on fire, on the machine that is on fire, so it is small: no event
loop, nothing of the guard, and every import that one command needs is made by that command.

``address``   where a guard answers: URL or Unix socket
``wire``      one request, one connection, HTTP/1.0
``contexts``  the file that names guards, and how flags and environment override it
``guard``     one guard: credentials, JSON in and out, refusals as one line that says what to do
``fleet``     the guards of a context: asked side by side, answers in the file's order
``printable`` what clients sent, made harmless for a terminal
``durations`` 1h30m <-> seconds
``output``    tables as kubectl prints them, JSON, YAML
``views``     which columns show what; ``relayviews`` of the relay
``matching``  flags -> the ``match`` of an override
``preview``   what a change would have done, in words
``acting``    runs a command on every guard; asks again and prints what changed
``parsing``   what a command is: a function that declares it, over argparse
``options``   flags many commands share, and the guards and output they choose
``completing``  what a shell asks while somebody types
``commands``  one file per family of commands
``live``      ``apiguard top`` in a terminal

The package imports ``apiguard.errors`` and ``apiguard.ages`` and nothing else of apiguard: what it
knows of the guard is the HTTP API, like any other client.

What only annotations name is imported under ``TYPE_CHECKING``. That is this package's own, because
importing ``typing`` for it, and a dozen of its NamedTuples, cost a fifth of ``apiguard status``;
type checkers know the constant by its name. Values are classes with ``__slots__`` for that reason.
"""

TYPE_CHECKING = False
