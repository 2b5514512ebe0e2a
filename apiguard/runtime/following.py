"""Files and key sets that change while the guard runs, handed to every worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Final

from apiguard.runtime.control import SetFiles
from apiguard.runtime.drivers import KEYS_PATH, ApiClient
from apiguard.runtime.files import (
    OWN_CERT,
    OWN_KEY,
    OWN_TOKEN,
    UPSTREAM_CA,
    File,
    Files,
    keys_of,
)
from apiguard.runtime.fleet import Acknowledgement, Fleet, Slot
from apiguard.runtime.identities import is_key_set
from apiguard.runtime.log import Log
from apiguard.runtime.rotation import LOOK_SECONDS, Rotation, own_token
from apiguard.runtime.tls import own_context

OWN: Final = frozenset({UPSTREAM_CA, OWN_CERT, OWN_KEY, OWN_TOKEN})
"""Files behind the guard's own calls."""

Spawn = Callable[[Coroutine[None, None, None]], object]


class Following:
    """Puts what changed to use: in ``client`` for the guard's own calls, in ``fleet`` for the rest.

    ``spawn`` runs what nobody awaits.
    """

    def __init__(
        self, rotation: Rotation, client: ApiClient, fleet: Fleet, log: Log, spawn: Spawn
    ) -> None:
        self._rotation = rotation
        self._client = client
        self._fleet = fleet
        self._log = log
        self._spawn = spawn
        self._told_problems: dict[str, str] = {}
        self._fetched: Files = {}

    @property
    def files(self) -> Files:
        """What workers are to know: files of the configuration, and fetched key sets."""
        return {**self._rotation.files, **self._fetched}

    async def run(self) -> None:
        """Looks again and again until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Puts changed files to use on every worker; broken ones are told of once."""
        rotation = self._rotation
        changed = await asyncio.get_running_loop().run_in_executor(None, rotation.look)
        for name, reason in rotation.problems.items():
            if self._told_problems.get(name) != reason:
                self._log.error(
                    "file is broken, what it held before stays", file=name, reason=reason
                )
        self._told_problems = dict(rotation.problems)
        if not changed:
            return
        self._log.warning("files changed", files=", ".join(changed))
        if changed.keys() & OWN:
            files = rotation.files
            await self._client.use(own_context(files), own_token(files))
        await self._to_workers(changed)

    def catch_up(self, slot: Slot) -> None:
        """A worker has just started, perhaps with files that are no longer the last."""
        if slot.files != self.files:
            self._spawn(self._to(slot, self.files))

    def key_sink(self, issuer: str) -> Callable[[bytes], bool]:
        """Takes fetched key sets of ``issuer``; what is none is refused, and the last one stays."""
        name = keys_of(issuer)

        def take(text: bytes) -> bool:
            if not is_key_set(text):
                return False
            known = self._fetched.get(name)
            if known is None or known.data != text:
                self._fetched[name] = File(KEYS_PATH, text)
                self._spawn(self._to_workers({name: self._fetched[name]}))
            return True

        return take

    async def _to(self, slot: Slot, files: Files) -> None:
        await self._fleet.ask(slot, lambda number: SetFiles(number, files))

    async def _to_workers(self, changed: Files) -> None:
        async def apply(slot: Slot) -> Acknowledgement:
            return await self._fleet.ask(slot, lambda number: SetFiles(number, changed))

        await self._fleet.all(apply)
