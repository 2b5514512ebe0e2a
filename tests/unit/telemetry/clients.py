"""Callers, requests and rows for the tests of telemetry."""

from __future__ import annotations

from apiguard.kube.identity import Caller, Identity, Standing, user_agent_family
from apiguard.kube.requestinfo import RequestInfo, parse_request
from apiguard.telemetry.activity import ActivityRow

PODS = parse_request("GET", "/api/v1/pods?limit=500&resourceVersion=0")
ALL_PODS = parse_request("GET", "/api/v1/pods")


def caller(
    user: str | None = "alice",
    user_agent: str = "kubectl/v1.36",
    source: str = "192.0.2.1",
    groups: tuple[str, ...] = ("devs",),
) -> Caller:
    """``user`` None is one whose credential nobody could verify."""
    return Caller(
        standing=Standing.VERIFIED if user is not None else Standing.UNVERIFIED,
        identity=Identity(user, groups) if user is not None else None,
        user_agent=user_agent,
        family=user_agent_family(user_agent),
        source=source,
        source_key=source,
    )


def get(path: str) -> RequestInfo:
    return parse_request("GET", path)


def row(
    user_agent: str = "kubectl",
    user: str = "alice",
    source: str = "192.0.2.1",
    *,
    verb: str = "list",
    resource: str = "pods",
    requests: int = 1,
    bytes_out: int = 0,
    seconds: float = 0.0,
    folded: bool = False,
) -> ActivityRow:
    return ActivityRow(
        user_agent,
        user,
        source,
        verb,
        resource,
        requests=requests,
        bytes_out=bytes_out,
        upstream_seconds=seconds,
        folded=folded,
    )
