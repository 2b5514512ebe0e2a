"""The parts of a GuardConfig about what operators lay over the policy and what they see."""

from __future__ import annotations

from dataclasses import dataclass

from .fields import Section

MAX_BREAK_GLASS = 8
MAX_SECONDS = 604_800
MAX_OVERRIDES = 1_000


@dataclass(frozen=True, slots=True)
class OverridesConfig:
    """Bounds of overrides, and who is above them."""

    break_glass_users: tuple[str, ...] = ()
    """Verified users no override and no limit holds: the way in when an override was a mistake.
    Only this file names them, so that no admin token can."""

    default_seconds: int = 1_800
    """Life of an override that names none: long enough to look into what it stopped."""

    maximum_seconds: int = 86_400
    """Longest life an operator may ask for at once; what should hold longer belongs in the
    policy."""

    most: int = 200
    """Overrides in force at a time; more are refused. Each costs every request that is new to the
    policy's memory a look."""


@dataclass(frozen=True, slots=True)
class ObservabilityConfig:
    """What is recorded about requests; off means absent from their path."""

    top_talkers: bool = True
    """Who asks for what, over the last ten minutes, and who is new."""

    samples: bool = True
    """A bounded sample of requests with their decisions: what previews replay."""

    audit: bool = True
    """Sampled requests in ``requests.jsonl``. What operators do is always in ``audit.jsonl``."""


def read_overrides(section: Section) -> OverridesConfig:
    """Problems go to the section's findings."""
    defaults = OverridesConfig()
    users = section.texts("breakGlassUsers", most=MAX_BREAK_GLASS) or ()
    for text in users:
        if not text.value or text.value == "system:anonymous":
            section.findings.add(text.line, text.field, "must be the name of a verified user")
    maximum = section.integer(
        "maximumSeconds", least=1, most=MAX_SECONDS, default=defaults.maximum_seconds
    )
    config = OverridesConfig(
        break_glass_users=tuple(dict.fromkeys(text.value for text in users)),
        default_seconds=section.integer(
            "defaultSeconds",
            least=1,
            most=maximum,
            default=min(defaults.default_seconds, maximum),
        ),
        maximum_seconds=maximum,
        most=section.integer("most", least=1, most=MAX_OVERRIDES, default=defaults.most),
    )
    section.close()
    return config


def read_observability(section: Section) -> ObservabilityConfig:
    """Problems go to the section's findings."""
    config = ObservabilityConfig(
        top_talkers=section.boolean("topTalkers") is not False,
        samples=section.boolean("samples") is not False,
        audit=section.boolean("audit") is not False,
    )
    section.close()
    return config
