"""How a connection to an API server proves who sends on it.

The guard's front-proxy certificate never rides along with a caller's own credential, so the two
never share a connection, only the ceilings of the server they go to.
"""

from __future__ import annotations

import enum


class Kind(enum.IntEnum):
    """What the guard presents when it opens the connection."""

    PLAIN = 0  # no certificate: the caller's token speaks for itself, or nothing does (anonymous)
    FRONT_PROXY = 1  # upstream.frontProxy: identity headers set by the guard are believed
