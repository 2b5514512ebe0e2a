"""Whether upstream can be reached at all, asked without any request of a client.

Every two seconds each server is connected to, TLS included, and left again. It says what a worker
learns only from failing requests: an unreachable server, a certificate that does not fit. It runs
in the supervisor, so that readiness is known while workers are busy or being replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

INTERVAL_SECONDS: Final = 2.0
DEADLINE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Reachability:
    """The last finding about one server; ``detail`` says what failed, "" when nothing did."""

    server: str
    usable: bool
    detail: str


class Prober:
    """Findings in the order of ``servers``; before the first round none is usable."""

    def __init__(
        self, servers: Sequence[str], tls: ssl.SSLContext | None, server_name: str
    ) -> None:
        self._tls = tls
        self._server_name = server_name
        self.findings = [Reachability(server, False, "not probed yet") for server in servers]

    @property
    def any_usable(self) -> bool:
        return any(finding.usable for finding in self.findings)

    async def run(self) -> None:
        """Probes until cancelled."""
        while True:
            await self.round()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def round(self) -> None:
        """Probes every server once."""
        await asyncio.gather(*(self._probe(index) for index in range(len(self.findings))))

    async def _probe(self, index: int) -> None:
        server = self.findings[index].server
        detail = ""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await self._connect(server)
        except TimeoutError:
            detail = f"no answer within {DEADLINE_SECONDS:g} s"
        except ssl.SSLCertVerificationError as error:
            detail = f"certificate: {error.verify_message}"
        except OSError as error:
            detail = error.strerror or str(error)
        self.findings[index] = Reachability(server, not detail, detail)

    async def _connect(self, server: str) -> None:
        url = urlsplit(server)
        tls = self._tls if url.scheme == "https" else None
        _, writer = await asyncio.open_connection(
            url.hostname,
            url.port or (443 if tls else 80),
            ssl=tls,
            server_hostname=(self._server_name or url.hostname) if tls else None,
        )
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
