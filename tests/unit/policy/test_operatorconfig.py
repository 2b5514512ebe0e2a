"""Settings of overrides and of what is recorded."""

from __future__ import annotations

import pytest

from apiguard.errors import ConfigError
from apiguard.policy.config import GuardConfig, parse_config
from apiguard.policy.operatorconfig import ObservabilityConfig, OverridesConfig

GUARD = """\
apiVersion: apiguard.io/v1alpha1
kind: GuardConfig
listen: {address: "127.0.0.1:0"}
upstream: {servers: ["http://127.0.0.1:1"]}
admin: {address: "127.0.0.1:0", tokenFile: token}
stateDir: state
policyFile: policy.yaml
"""


def parse(more: str) -> GuardConfig:
    return parse_config(GUARD + more, "guard.yaml")


def problems(more: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(more)
    return [problem.field for problem in caught.value.problems]


def test_absent_sections_have_the_documented_defaults() -> None:
    config = parse("")
    assert config.overrides == OverridesConfig((), 1_800, 86_400, 200)
    assert config.observability == ObservabilityConfig(True, True, True)


def test_every_setting_is_read() -> None:
    config = parse(
        "overrides: {breakGlassUsers: [oncall], defaultSeconds: 60, maximumSeconds: 600, most: 5}\n"
        "observability: {topTalkers: false, samples: false, audit: false}\n"
    )
    assert config.overrides == OverridesConfig(("oncall",), 60, 600, 5)
    assert config.observability == ObservabilityConfig(False, False, False)


def test_a_maximum_below_the_usual_default_lowers_the_default() -> None:
    assert parse("overrides: {maximumSeconds: 600}\n").overrides.default_seconds == 600


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ("overrides: {defaultSeconds: 700, maximumSeconds: 600}\n", "overrides.defaultSeconds"),
        ("overrides: {maximumSeconds: 604801}\n", "overrides.maximumSeconds"),
        ("overrides: {most: 0}\n", "overrides.most"),
        ("overrides: {breakGlassUser: [a]}\n", "overrides.breakGlassUser"),
        ("overrides: {breakGlassUsers: ['']}\n", "overrides.breakGlassUsers[0]"),
        ("overrides: {breakGlassUsers: ['system:anonymous']}\n", "overrides.breakGlassUsers[0]"),
        ("observability: {topTalkers: 1}\n", "observability.topTalkers"),
        ("observability: {sample: true}\n", "observability.sample"),
    ],
)
def test_what_cannot_be_meant_is_named(more: str, field: str) -> None:
    assert problems(more) == [field]
