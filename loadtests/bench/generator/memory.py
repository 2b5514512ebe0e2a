"""Memory of the proxy once nothing changes it any more."""

from __future__ import annotations

import time

from loadtests.bench import procfs
from loadtests.bench.generator.spec import WrongAnswerError

_SAMPLES = 5
_STEP = 0.2
_DEADLINE = 10.0


def settled(proxy: int) -> int:
    """Resident bytes once they rise no more. Raises ``WrongAnswerError`` if they go on."""
    greatest, still = 0, 0
    deadline = time.monotonic() + _DEADLINE
    while still < _SAMPLES:
        if time.monotonic() > deadline:
            raise WrongAnswerError("the proxy's memory keeps growing")
        time.sleep(_STEP)
        now = procfs.resident_bytes(proxy)
        still = still + 1 if now <= greatest else 0
        greatest = max(greatest, now)
    return greatest
