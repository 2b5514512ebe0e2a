"""Client: one identity with its connections, and loops that run until its time is over."""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.pool import Group as Greenlets

from .connections import Connections
from .credentials import Access
from .queries import Collection
from .recording import Recorder
from .reflector import Reflector
from .rest import MOST_RETRIES, Rest


@dataclass(frozen=True, slots=True)
class Setting:
    """What a client is made of. ``number`` is its place in its group; ``options`` are the
    scenario's, ``agent`` its user-agent, "" for the one its model has."""

    number: int
    agent: str
    options: Mapping[str, Any]
    recorder: Recorder
    access: Callable[[str], Access]


class Client:
    """Subclasses say who they are and what they do: ``user``, ``agent`` and ``live``.

    ``options`` names those a scenario may give, with their defaults.
    """

    agent = "client/v1"
    options: Mapping[str, Any] = {}

    def __init__(self, setting: Setting) -> None:
        self.number = setting.number
        self.given = {**self.options, **setting.options}
        self.recorder = setting.recorder
        # The same client is as jittery in every run, whatever process it is in.
        seed = zlib.crc32(f"{setting.recorder.group}/{setting.number}".encode())
        self.rng = random.Random(seed)  # noqa: S311 - jitter, not secrets
        self._headers = {"User-Agent": setting.agent or self.agent}
        self._access = setting.access(self.user)
        self._loops = Greenlets()
        self._open: list[Connections] = []

    @property
    def user(self) -> str:
        """The name in the kubeconfig; kubeadm's, where kubeadm makes the client."""
        raise NotImplementedError

    def live(self) -> None:
        """Spawns loops with ``spawn``; returns at once."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends all loops; what they were waiting for is an operation without an end."""
        self._loops.kill()
        self.recorder.close()
        for connections in self._open:
            connections.close()

    def restart(self, agent: str) -> None:
        """As when its process is replaced, by one of another version if ``agent`` is given."""
        self._loops.kill()
        for connections in self._open:
            connections.close()
        self._open.clear()
        if agent:
            self._headers = {"User-Agent": agent}
        self.live()

    # -- for subclasses

    def spawn(self, loop: Callable[..., None], *arguments: Any) -> None:
        self._loops.spawn(loop, *arguments)

    def rest(self, *, retries: int = MOST_RETRIES) -> Rest:
        """On connections of its own, as each client-go clientset has them."""
        made = Connections(self._access, self._headers)
        self._open.append(made)
        return Rest(made, self.recorder, retries=retries)

    def follow(self, rest: Rest, *collections: Collection, **options: Any) -> None:
        """A reflector for each."""
        for collection in collections:
            reflector = Reflector(rest, self.recorder, collection, self.rng, **options)
            self.spawn(reflector.run)

    def every(
        self,
        seconds: float,
        act: Callable[[], object],
        *,
        jitter: float = 0.0,
        at_once: bool = False,
    ) -> None:
        """First after a part of the period, as clients that started at different times, unless
        ``at_once``; a period that was missed is not made up for."""
        due = time.monotonic() + (0.0 if at_once else self.rng.random() * seconds)
        while True:
            gevent.sleep(max(0.0, due - time.monotonic()))
            act()
            due = max(due + seconds * (1.0 + jitter * self.rng.random()), time.monotonic())
