"""Explaining a typed-in request with the live path's own code.

A worker answers from its living buckets; the command line from a gateway of its own whose buckets
are all new. Both give the same plain values, which is what admin serves and the terminal shows.
"""

from __future__ import annotations

import math
import random
import time

from apiguard.errors import WireError
from apiguard.gateway.decision import Peer
from apiguard.gateway.gateway import Explanation, Gateway, caller_of
from apiguard.identity.authenticator import Authentication, Authenticator
from apiguard.kube.identity import ANONYMOUS, AUTHENTICATED_GROUP, Identity, Standing
from apiguard.limiter.limiter import Limiter, Shed
from apiguard.policy.config import Enforcement, GuardConfig
from apiguard.policy.policy import Policy
from apiguard.runtime.control import Question
from apiguard.telemetry.counters import Counters


def explain(gateway: Gateway, question: Question, now: float) -> dict[str, object]:
    """What would become of ``question`` now; charges nothing.

    Raises ValueError when its source is no IP address.
    """
    proof = _proof(question)
    caller = caller_of(proof, question.user_agent, Peer.at(question.source))
    try:
        explanation = gateway.explain(question.method, question.target, caller, now)
    except WireError as error:
        return {
            "decision": "rejected",
            "code": error.code,
            "reason": error.reason,
            "message": error.message,
        }
    return _answer(explanation, gateway)


def offline_gateway(policy: Policy, config: GuardConfig) -> Gateway:
    """A gateway nobody has used: its buckets are full."""
    return Gateway(
        policy=policy,
        limiter=Limiter(),
        authenticator=Authenticator(),
        counters=Counters(),
        random=random.Random(0),  # noqa: S311  jitter of answers nobody gets
        enforcement=config.enforcement,
        config=config,
        wall=time.time,
    )


def _proof(question: Question) -> Authentication:
    if question.user:
        groups = tuple(dict.fromkeys((*question.groups, AUTHENTICATED_GROUP)))
        return Authentication(Standing.VERIFIED, Identity(question.user, groups))
    if question.unverified:
        return Authentication(Standing.UNVERIFIED, None)
    return Authentication(Standing.ANONYMOUS, ANONYMOUS)


def _answer(explanation: Explanation, gateway: Gateway) -> dict[str, object]:
    return {
        "decision": _decision(explanation, gateway),
        "rule": explanation.flow.name,
        "mode": explanation.flow.mode.value,
        "exempt": explanation.flow.exempt,
        "enforcement": gateway.enforcement.value,
        "request": _request(explanation),
        "caller": _caller(explanation),
        "limits": _limits(explanation),
        "relay": explanation.relay,
        **_refusal(explanation),
    }


def _decision(explanation: Explanation, gateway: Gateway) -> str:
    if explanation.refused:
        return "refused"
    peek = explanation.peek
    over = peek is not None and isinstance(peek.verdict, Shed)
    if over and gateway.enforcement is not Enforcement.OFF:
        return "would_refuse"
    return "forwarded"


def _request(explanation: Explanation) -> dict[str, object]:
    info = explanation.info
    if not info.is_resource:
        return {"verb": info.verb, "path": info.path}
    return {
        "verb": info.verb,
        "apiGroup": info.api_group,
        "resource": info.resource,
        "subresource": info.subresource,
        "namespace": info.namespace,
        "name": info.name,
    }


def _caller(explanation: Explanation) -> dict[str, object]:
    caller = explanation.caller
    identity = caller.identity
    return {
        "standing": caller.standing.value,
        "user": identity.user if identity else "",
        "groups": list(identity.groups) if identity else [],
        "userAgent": caller.user_agent,
        "userAgentFamily": caller.family,
        "source": caller.source,
    }


def _limits(explanation: Explanation) -> list[dict[str, object]]:
    peek = explanation.peek
    if peek is None:
        return []
    return [
        {
            "limit": spec.id,
            "per": [per.value for per in spec.per],
            "bucket": bucket.id,
            "key": list(bucket.values),
            "level": round(bucket.level, 3),
            "requestsPerSecond": spec.bucket.rate,
            "burst": spec.bucket.burst,
        }
        for spec, bucket in zip(explanation.flow.limits, peek.buckets, strict=True)
    ]


def _refusal(explanation: Explanation) -> dict[str, object]:
    peek = explanation.peek
    if peek is None or not isinstance(peek.verdict, Shed):
        return {}
    wait = peek.verdict.wait
    return {
        "overLimit": peek.verdict.limit.id,
        "tokenInSeconds": None if math.isinf(wait) else round(wait, 3),
    }
