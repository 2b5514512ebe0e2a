"""The relay's section of a GuardConfig."""

from __future__ import annotations

from apiguard.policy.config import parse_config
from apiguard.policy.relayconfig import RelayAuthorization, RelayConfig, RelayedResource

from .test_config import LEAST, problems

OWN = LEAST.replace('7445"]}', '7445"], credentials: {tokenFile: t}}')


def test_without_the_section_there_is_no_relay() -> None:
    assert parse_config(LEAST, "g.yaml").relay == RelayConfig()
    assert not RelayConfig().resources


def test_every_field_is_read() -> None:
    text = """\
relay:
  resources:
  - {version: v1, resource: pods, memoryBytes: 100000, idleSeconds: 5, relaxedReads: true,
     staleSeconds: 0}
  - {group: apps, version: v1, resource: "*"}
  bodiesBytes: 1000000
  logSeconds: 10
  logBytes: 2000000
  logEvents: 3
  waiting: 4
  authorization: {reviewsPerSecond: 6, staleAllowSeconds: 7, ignoreExtra: true, localTokens: true,
                  anonymous: true}
"""
    pods = RelayedResource("", "v1", "pods", 100_000, 5, relaxed_reads=True, stale_seconds=0)
    apps = RelayedResource("apps", "v1", "*")
    relay = parse_config(OWN + text, "g.yaml").relay
    assert relay == RelayConfig(
        resources=(pods, apps),
        bodies_bytes=1_000_000,
        log_seconds=10,
        log_bytes=2_000_000,
        log_events=3,
        waiting=4,
        authorization=RelayAuthorization(6, 7, True, True, True),
    )
    assert relay.find("", "v1", "pods") == pods
    assert relay.find("apps", "v1", "deployments") == apps
    assert relay.find("apps", "v1beta1", "deployments") is None
    assert relay.find("", "v1", "secrets") is None


def test_problems_have_their_lines() -> None:
    text = """\
relay:
  resources:
  - {version: v1, resource: pods}
  - {version: v1, resource: pods}
  - {group: "*", version: v1, resource: Pods}
  - {resource: nodes}
  surprise: 1
"""
    found = problems(LEAST + text)
    assert len(found) == 6
    for word in ("credentials", "twice", "one group", "no name", "version", "surprise"):
        assert any(word in problem for problem in found), (word, found)
