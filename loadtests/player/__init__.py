"""A process that plays some groups of a scenario on locust and writes samples to stdout.

Imported before anything else of the process, so that sockets, TLS and sleeping are gevent's from
their first use on. Nothing of the guard, and no test, imports this package.
"""

from gevent import monkey

monkey.patch_all()
