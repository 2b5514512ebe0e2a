"""The overrides of a worker, laid over whatever policy it has.

Parsing and laying over take milliseconds for hundreds of overrides, so both run off the loop;
what was parsed before is not parsed again, and matchers of it are kept.
"""

from __future__ import annotations

import asyncio

from apiguard.policy.overrides import Override, lay_over, parse_override
from apiguard.policy.policy import Policy
from apiguard.runtime.statestore import StoredOverride


class Layering:
    """``overrides`` are in force here, in the order they were added."""

    def __init__(self, break_glass_users: tuple[str, ...]) -> None:
        self.break_glass_users = break_glass_users
        self.overrides: tuple[Override, ...] = ()
        self._parsed: dict[str, tuple[str, Override]] = {}

    def find(self, id_: str) -> Override | None:
        """The override with this id, when it is in force."""
        return next((override for override in self.overrides if override.id == id_), None)

    async def set(self, stored: tuple[StoredOverride, ...], policy: Policy) -> Policy:
        """``policy`` under ``stored``, which are in force from now on. Raises ConfigError, with
        nothing changed, for an override that cannot be read."""
        loop = asyncio.get_running_loop()
        overrides, laid = await loop.run_in_executor(None, self.lay, stored, policy)
        self.overrides = overrides
        return laid

    async def under(self, policy: Policy) -> Policy:
        """``policy`` under the overrides in force."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            None, lay_over, policy, self.overrides, self.break_glass_users
        )

    def lay(
        self, stored: tuple[StoredOverride, ...], policy: Policy
    ) -> tuple[tuple[Override, ...], Policy]:
        """The blocking part of ``set``."""
        parsed: dict[str, tuple[str, Override]] = {}
        for one in stored:
            known = self._parsed.get(one.id)
            if known is None or known[0] != one.document:
                known = (one.document, parse_override(one.document, one.id))
            parsed[one.id] = known
        self._parsed = parsed
        overrides = tuple(override for _, override in parsed.values())
        return overrides, lay_over(policy, overrides, self.break_glass_users)
