"""Eligible: which requests may be the relay's at all, by line, headers and policy."""

from __future__ import annotations

from collections import Counter

from apiguard.gateway.asking import Form, Wanted, read_accept, read_line, unservable
from apiguard.gateway.decision import Decision, Forward, Serve
from apiguard.identity.proof import Proof
from apiguard.kube.groups import BUILT_IN_GROUPS
from apiguard.kube.identity import Caller
from apiguard.kube.requestinfo import RequestInfo
from apiguard.memo import Memo
from apiguard.policy.policy import Policy
from apiguard.policy.relayconfig import RelayConfig, RelayedResource
from apiguard.policy.relayrule import RelayRule, RelayUse
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
        self,
        forward: Forward,
        line: RequestLine,
        block: HeaderBlock,
        proof: Proof,
        policy: Policy,
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
            rule = policy.relaying(info, forward.caller)
            form = _form_of(wanted, block) if rule.use is RelayUse.USE else "rule"
            if not isinstance(form, str):
                return Serve(forward, wanted, form, proof, policy)
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


def allows_relaxed(rule: RelayRule, settings: RelayedResource) -> bool:
    """The rule knows the clients, so its word goes before the resource's."""
    return settings.relaxed_reads if rule.relaxed_reads is None else rule.relaxed_reads


def _form_of(wanted: Wanted, block: HeaderBlock) -> Form | str:
    accept = block.get(b"accept").decode("latin-1")
    return read_accept(accept, watch=wanted.watch, custom=wanted.group not in BUILT_IN_GROUPS)


def explain_relay(config: RelayConfig, policy: Policy, info: RequestInfo, caller: Caller) -> str:
    """What the relay would do with such a request, for ``explain``: its headers are not known."""
    settings = config.find(info.api_group, info.api_version, info.resource)
    if settings is None or info.verb not in ("list", "watch") or info.subresource:
        return "none"
    rule = policy.relaying(info, caller)
    if caller.impersonated is not None or rule.use is RelayUse.BYPASS:
        return "bypass"
    return "relaxed" if allows_relaxed(rule, settings) else "consistent"
