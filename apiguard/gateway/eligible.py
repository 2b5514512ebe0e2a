"""Eligible: which requests may be the relay's at all, told from line and headers alone."""

from __future__ import annotations

from collections import Counter

from apiguard.gateway.asking import Wanted, read_accept, read_line, unservable
from apiguard.gateway.decision import Decision, Forward, Serve
from apiguard.identity.proof import Proof
from apiguard.kube.groups import BUILT_IN_GROUPS
from apiguard.kube.requestinfo import RequestInfo
from apiguard.memo import Memo
from apiguard.policy.relayconfig import RelayConfig, RelayedResource
from apiguard.wire.messages import HeaderBlock, RequestLine

LINES_REMEMBERED = 4_096


class Eligible:
    """``bypasses`` counts why lists and watches of relayed resources are not."""

    def __init__(self, config: RelayConfig, bypasses: Counter[str]) -> None:
        self._config = config
        self._bypasses = bypasses
        self._settings: Memo[tuple[str, str, str], RelayedResource | bool] = Memo(1_024)
        self._lines: Memo[RequestLine, Wanted | str] = Memo(LINES_REMEMBERED)

    def consider(
        self, forward: Forward, line: RequestLine, block: HeaderBlock, proof: Proof
    ) -> Decision:
        """``forward``, or the same with the relay before it."""
        info = forward.info
        if self.settings_of(info) is None:
            return forward
        wanted = self._lines.get(line)
        if wanted is None:
            wanted = read_line(line, info)
            self._lines.put(line, wanted)
        if isinstance(wanted, str):
            if info.verb in ("list", "watch"):
                self._bypasses[wanted] += 1
            return forward
        why = "impersonation" if forward.caller.impersonated is not None else unservable(block)
        if not why:
            accept = block.get(b"accept").decode("latin-1")
            custom = info.api_group not in BUILT_IN_GROUPS
            form = read_accept(accept, watch=wanted.watch, custom=custom)
            if not isinstance(form, str):
                return Serve(forward, wanted, form, proof)
            why = form
        self._bypasses[why] += 1
        return forward

    def settings_of(self, info: RequestInfo) -> RelayedResource | None:
        """What is configured for the resource asked for; None: it is not relayed."""
        key = info.api_group, info.api_version, info.resource
        found = self._settings.get(key)
        if found is None:
            found = self._config.find(*key) or False
            self._settings.put(key, found)
        return found if isinstance(found, RelayedResource) else None
