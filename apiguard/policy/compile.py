"""compile_policy: a policy file's text -> Policy, a pure function: every worker's is the same."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

from apiguard.limiter.flow import Flow, LimitSpec

from .cover import suspicions
from .policy import Policy, Rule
from .relayrule import USUAL
from .schema import LimitDocument, RuleDocument, parse_policy


def compile_policy(text: str, name: str = "policy") -> Policy:
    """The policy that ``text`` writes; ``name`` is what errors call the file.

    Raises ConfigError with every problem, each with its line and field.
    """
    document = parse_policy(text, name)
    digest = hashlib.sha256(text.encode()).hexdigest()
    rules = [Rule(_flow(rule), rule.match, rule.line) for rule in document.rules]
    default = _flow(document.default)
    flows = [*(rule.flow for rule in rules), default]
    documents = [*document.rules, document.default]
    relays = {
        flow: written.relay
        for flow, written in zip(flows, documents, strict=True)
        if written.relay != USUAL
    }
    return Policy(rules, default, digest, relays)


def warnings(policy: Policy) -> list[str]:
    """What is valid but cannot be meant: one sentence each, in the order of the rules."""
    return [f"line {rule.line}: rule {rule.name!r} {why}" for rule, why in suspicions(policy.rules)]


def _flow(rule: RuleDocument) -> Flow:
    limits = tuple(limit_specs(rule.name, rule.limits))
    return Flow(rule.name, limits, rule.mode, rule.exempt, rule.percent)


def limit_specs(rule: str, limits: Iterable[LimitDocument]) -> Iterable[LimitSpec]:
    """Ids as ``rule/user+verb``, with ``#2`` for the second of equals.

    Rates are no part of an id, nor is the order of ``per`` (the schema has sorted it): re-rating
    or reordering limits keeps living buckets, changing what a bucket is kept per opens new ones.
    """
    seen: Counter[str] = Counter()
    for limit in limits:
        id_ = f"{rule}/{'+'.join(field.value for field in limit.per) or 'all'}"
        seen[id_] += 1
        ordinal = f"#{seen[id_]}" if seen[id_] > 1 else ""
        yield LimitSpec(id_ + ordinal, limit.bucket, limit.per)
