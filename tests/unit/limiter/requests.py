"""Callers, requests and limits for tests of the limiter."""

from __future__ import annotations

from apiguard.kube.identity import (
    ANONYMOUS,
    Caller,
    Identity,
    Standing,
    user_agent_family,
)
from apiguard.kube.requestinfo import RequestInfo, parse_request
from apiguard.limiter.flow import BucketSpec, Flow, LimitSpec, Per

LIST_PODS = parse_request("GET", "/api/v1/namespaces/default/pods")


def verified(user: str, agent: str = "kubectl/v1", source: str = "10.0.0.1") -> Caller:
    family = user_agent_family(agent)
    return Caller(Standing.VERIFIED, Identity(user), agent, family, source, source)


def unverified(source: str, agent: str = "kubectl/v1") -> Caller:
    return Caller(Standing.UNVERIFIED, None, agent, user_agent_family(agent), source, source)


def anonymous(source: str, agent: str = "kubectl/v1") -> Caller:
    family = user_agent_family(agent)
    return Caller(Standing.ANONYMOUS, ANONYMOUS, agent, family, source, source)


def limit(rate: float, burst: float, *per: Per, id_: str = "rule/all") -> LimitSpec:
    return LimitSpec(id_, BucketSpec(rate, burst), per)


def flow(*limits: LimitSpec) -> Flow:
    return Flow("rule", limits)


def in_namespace(name: str) -> RequestInfo:
    return parse_request("GET", f"/api/v1/namespaces/{name}/pods")
