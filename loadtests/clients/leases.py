"""Renewing a lease, as nodes and leaders do.

Sources: component-helpers/apimachinery/lease/controller.go (nodes), client-go/tools/leaderelection
(leaders). Both write what they last saw with a new time, and look again only after a conflict.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from .connections import Answer, BrokenError, LateError
from .queries import JSON_ACCEPT, LEASES
from .recording import BROKEN, LATE, Operation, Recorder
from .rest import Rest

MOST_UPDATES = 5  # attempts per renewal
NOT_FOUND, CONFLICT = 404, 409
_HEADERS = {"Accept": JSON_ACCEPT, "Content-Type": "application/json"}


class Lease:
    """One lease and what its holder last saw of it.

    ``seconds`` is the client's deadline for each attempt, ``duration`` what the lease says.
    """

    def __init__(
        self,
        rest: Rest,
        recorder: Recorder,
        namespace: str,
        name: str,
        *,
        seconds: float,
        duration: int,
    ) -> None:
        self._rest = rest
        self._recorder = recorder
        self._collection = LEASES.format(namespace=namespace)
        self._name = name
        self._seconds = seconds
        self._duration = duration
        self._held: dict[str, Any] | None = None

    def renew(self) -> None:
        """Until it is renewed or was tried five times: one operation ``lease``."""
        running = self._recorder.begin("lease")
        code, size = BROKEN, 0
        for _ in range(MOST_UPDATES):
            try:
                answer = self._try(running)
            except BrokenError:
                code = BROKEN
            except LateError:
                code = LATE
            else:
                code, size = answer.code, answer.size
            if code in (200, 201):
                break
        running.end(code, size)

    def _try(self, running: Operation) -> Answer:
        path = f"{self._collection}/{self._name}"
        if self._held is None:
            answer = self._send(running, "GET", path)
            if answer.code == NOT_FOUND:
                answer = self._send(running, "POST", self._collection, self._renewed({}))
        else:
            answer = self._send(running, "PUT", path, self._renewed(self._held))
        if answer.code in (200, 201):
            self._held = json.loads(answer.body)
        elif answer.code in (NOT_FOUND, CONFLICT):
            self._held = None
        return answer

    def _send(
        self, running: Operation, method: str, target: str, document: dict[str, Any] | None = None
    ) -> Answer:
        body = json.dumps(document).encode() if document is not None else None
        return self._rest.attempt(running, method, target, _HEADERS, body, seconds=self._seconds)

    def _renewed(self, held: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": self._name,
            "leaseDurationSeconds": self._duration,
            "renewTime": now,
        }
        metadata = held.get("metadata") or {"name": self._name}
        return {
            "kind": "Lease",
            "apiVersion": "coordination.k8s.io/v1",
            "metadata": metadata,
            "spec": {**held.get("spec", {}), **spec},
        }
