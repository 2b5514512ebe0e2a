"""apiguard: a rate-limiting reverse proxy in front of kube-apiserver.

Decisions are values; bytes are calls. The package is built in floors, and a module imports
lower floors and its own package only (checked by import-linter, see ``pyproject.toml``):

====  ==============================================  ==========================================
floor  packages                                        what it may touch
====  ==============================================  ==========================================
7     ``cli``, ``commands``, ``demo``                 everything
      ``ctl``                                         the admin port; ``errors``, ``ages``
6     ``admin``                                       aiohttp, prometheus-client
5     ``runtime``                                     asyncio, sockets, processes, clocks
4     ``gateway``                                     nothing outside: decides one request
3     ``policy``                                      PyYAML: file -> immutable snapshot
2     ``limiter``, ``identity``, ``upstream``,        values and plain calls; time is an argument
      ``telemetry``, ``relay``
1     ``wire``, ``kube``                              httptools: bytes <-> messages; vocabulary
0     ``errors``, ``memo``, ``ages``                  nothing
====  ==============================================  ==========================================

First reads: ``gateway/gateway.py``, ``wire/messages.py``, ``policy/policy.py``,
``runtime/worker.py``.
"""

__version__ = "0.1.0"
