"""No proxy: the upstream itself, what added latency is added to."""

from __future__ import annotations

import os

from loadtests.bench.peers.peer import Peer, Running, Setting


def start(setting: Setting) -> Running:
    """The CPU read for it is the harness's own: meaningless, and never reported."""
    return Running("direct", setting.upstream_port, os.getpid())


DIRECT = Peer("direct", start)
