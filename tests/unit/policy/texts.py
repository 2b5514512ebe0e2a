"""Policy texts for tests."""

from __future__ import annotations

import textwrap

from apiguard.policy.compile import compile_policy
from apiguard.policy.policy import Policy

HEAD = "apiVersion: apiguard.io/v1alpha1\nkind: ThrottlePolicy\n"
DEFAULT = "default: {limits: [{requestsPerSecond: 200}]}\n"


def policy_text(rules: str) -> str:
    """A policy of these rules, given as YAML list items; they begin at line 4."""
    return HEAD + "rules:\n" + textwrap.dedent(rules).strip("\n") + "\n" + DEFAULT


def policy(*matches: str, exempt: tuple[int, ...] = ()) -> Policy:
    """One rule per flow mapping in ``matches``, named r0, r1, …"""
    rules = [
        f"- {{name: r{i}, match: {match}, "
        + ("exempt: true}" if i in exempt else "limits: [{requestsPerSecond: 1}]}")
        for i, match in enumerate(matches)
    ]
    return compile_policy(policy_text("\n".join(rules)), "policy.yaml")
