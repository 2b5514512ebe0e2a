"""Waiting for something to become true."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_SECONDS = 10.0
"""For what happens in milliseconds on a quiet machine."""


async def eventually(
    condition: Callable[[], object], what: str = "", *, within: float = PATIENCE_SECONDS
) -> None:
    """Returns as soon as ``condition()`` holds; raises AssertionError after ``within`` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not condition():
        if loop.time() > deadline:
            raise AssertionError(f"not within {within:g} s: {what or condition}")
        await asyncio.sleep(0.002)
