"""A matcher written the obvious way: rule by rule, field by field. Slow, and easy to believe."""

from __future__ import annotations

import ipaddress
import re

from apiguard.kube.identity import Caller, Standing
from apiguard.kube.requestinfo import ListShape, RequestInfo
from apiguard.limiter.flow import Flow
from apiguard.policy.matcher import shape_accepts
from apiguard.policy.patterns import Kind, Pattern
from apiguard.policy.policy import Policy, Rule
from apiguard.policy.resources import ResourcePattern
from apiguard.policy.schema import Match


def first_match(policy: Policy, info: RequestInfo, caller: Caller) -> Flow:
    for rule in policy.rules:
        if _accepts(rule, info, caller):
            return rule.flow
    return policy.default


def _accepts(rule: Rule, info: RequestInfo, caller: Caller) -> bool:
    if rule.flow.exempt and caller.standing is not Standing.VERIFIED:
        return False
    return _caller(rule.match, caller) and _request(rule.match, info)


def _caller(match: Match, caller: Caller) -> bool:
    user = caller.identity.user if caller.identity else None
    groups = caller.identity.groups if caller.identity else ()
    account = re.fullmatch("system:serviceaccount:([^:]+):([^:]+)", user or "")
    address = ipaddress.ip_address(caller.source)
    return (
        _text(match.user_agents, caller.user_agent)
        and (match.users is None or (user is not None and _text(match.users, user)))
        and (match.groups is None or any(_text(match.groups, group) for group in groups))
        and (
            match.service_accounts is None
            or (account is not None and _text(match.service_accounts, "/".join(account.groups())))
        )
        and (match.sources is None or any(address in network for network in match.sources))
    )


def _request(match: Match, info: RequestInfo) -> bool:
    if match.verbs is not None and not {info.verb, "*"} & set(match.verbs):
        return False
    if not info.is_resource:
        about = (match.resources, match.api_groups, match.namespaces, match.names)
        if any(field is not None for field in about) or match.list_shape is not None:
            return False
        return _text(match.paths, info.path)
    return (
        match.paths is None
        and (match.resources is None or any(_resource(p, info) for p in match.resources))
        and _text(match.api_groups, info.api_group)
        and _text(match.namespaces, info.namespace)
        and _text(match.names, info.name)
        and (
            match.list_shape is None
            or (
                (info.verb == "list" or ListShape.UNPAGED in info.shape)
                and shape_accepts(match.list_shape, info.shape)
            )
        )
    )


def _resource(pattern: ResourcePattern, info: RequestInfo) -> bool:
    if not _one(pattern.resource, info.resource) or not _one(pattern.group, info.api_group):
        return False
    if pattern.subresource is None:
        return True
    if not pattern.subresource.text or not info.subresource:
        return pattern.subresource.text == info.subresource
    return _one(pattern.subresource, info.subresource)


def _text(patterns: tuple[Pattern, ...] | None, value: str) -> bool:
    return patterns is None or any(_one(pattern, value) for pattern in patterns)


def _one(pattern: Pattern, value: str) -> bool:
    if pattern.kind is Kind.EXACT:
        return pattern.text == value
    if pattern.kind is Kind.REGEX:
        return re.fullmatch(pattern.text, value) is not None
    expression = ".*".join(re.escape(part) for part in pattern.text.split("*"))
    return re.fullmatch(expression, value, re.DOTALL) is not None
