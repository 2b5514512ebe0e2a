"""The part of a GuardConfig that says what the relay may answer, and on which conditions."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .fields import Section

MAX_RESOURCES = 200
MAX_BYTES = 1 << 36
MAX_SECONDS = 86_400
MAX_WAIT_SECONDS = 60
MAX_REVIEWS_PER_SECOND = 10_000
EVERY = "*"

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class RelayedResource:
    """One resource, or all of a group's version, whose LIST and WATCH the relay may answer."""

    group: str
    """"" is the core group."""

    version: str
    resource: str
    """Plural name; ``*`` for every one of the group's version that is not named itself."""

    memory_bytes: int = 512 << 20
    """Bytes of objects per representation; a resource that has more goes upstream."""

    idle_seconds: int = 600
    """Seconds without a reader after which a cache is dropped, its watch with it."""

    relaxed_reads: bool = False
    """Whether reads without resourceVersion may be answered as they are held. Such a reader may
    not see what it wrote itself a moment ago; the resourceVersion it gets is the real one."""

    stale_seconds: int = 900
    """Oldest answer, in seconds since upstream was last heard, while upstream is away."""


@dataclass(frozen=True, slots=True)
class RelayAuthorization:
    """How callers are judged before they get a cached byte."""

    reviews_per_second: int = 50
    """SubjectAccessReviews of the whole guard; each worker has its part."""

    stale_allow_seconds: int = 900
    """How long a yes, and what upstream said of a token, hold while upstream gives no answer.
    Whoever it has answered neither of goes upstream."""

    ignore_extra: bool = False
    """Leaves ``extra`` out of reviews: right where the authorizers are Node and RBAC only."""

    local_tokens: bool = False
    """Whether a token verified here alone suffices while upstream cannot be asked; one that was
    revoked is then good until upstream is back."""

    anonymous: bool = False
    """Whether callers without a credential are served; upstream may not know that user."""


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """The relay of every worker. Without resources there is none."""

    resources: tuple[RelayedResource, ...] = ()
    bodies_bytes: int = 128 << 20
    """Bytes of built answers kept for the next reader, of all caches together."""

    log_seconds: int = 300
    """History per cache: how long a client may be away and resume here."""

    log_bytes: int = 64 << 20
    log_events: int = 1_000
    """Events kept however old they are."""

    waiting: int = 10_000
    """Requests waiting for a cache to fill or for proof that it is fresh; more are answered 429."""

    wait_seconds: int = 10
    """How long each of them waits for either; then it is answered 429 too."""

    authorization: RelayAuthorization = RelayAuthorization()

    def find(self, group: str, version: str, resource: str) -> RelayedResource | None:
        """What is said of one resource; by its own name first."""
        for name in (resource, EVERY):
            for one in self.resources:
                if (one.group, one.version, one.resource) == (group, version, name):
                    return one
        return None


def read_relay(section: Section) -> RelayConfig:
    """Problems go to the section's findings."""
    defaults = RelayConfig()
    authorization = section.section("authorization")
    resources = tuple(_resource(one) for one in section.sections("resources", most=MAX_RESOURCES))
    named = [(one.group, one.version, one.resource) for one in resources]
    if len(set(named)) < len(named):
        section.complain("resources", "names a resource twice")
    config = RelayConfig(
        resources=resources,
        bodies_bytes=_bytes(section, "bodiesBytes", defaults.bodies_bytes),
        log_seconds=_seconds(section, "logSeconds", defaults.log_seconds),
        log_bytes=_bytes(section, "logBytes", defaults.log_bytes),
        log_events=section.integer(
            "logEvents", least=0, most=1_000_000, default=defaults.log_events
        ),
        waiting=section.integer("waiting", least=1, most=1_000_000, default=defaults.waiting),
        wait_seconds=section.integer(
            "waitSeconds", least=1, most=MAX_WAIT_SECONDS, default=defaults.wait_seconds
        ),
        authorization=_authorization(authorization) if authorization else RelayAuthorization(),
    )
    section.close()
    return config


def _resource(section: Section) -> RelayedResource:
    defaults = RelayedResource("", "", "")
    group = section.text("group", "")
    resource = section.text("resource")
    for key, value in (("group", group), ("resource", resource)):
        if value and value != EVERY and not _NAME.fullmatch(value):
            section.complain(key, "is no name of an API group or resource")
    if group == EVERY:
        section.complain("group", "must be one group; only resource may be *")
    config = RelayedResource(
        group=group,
        version=section.text("version"),
        resource=resource,
        memory_bytes=_bytes(section, "memoryBytes", defaults.memory_bytes),
        idle_seconds=_seconds(section, "idleSeconds", defaults.idle_seconds),
        relaxed_reads=section.boolean("relaxedReads") or False,
        stale_seconds=section.integer(
            "staleSeconds", least=0, most=MAX_SECONDS, default=defaults.stale_seconds
        ),
    )
    section.close()
    return config


def _authorization(section: Section) -> RelayAuthorization:
    defaults = RelayAuthorization()
    config = RelayAuthorization(
        reviews_per_second=section.integer(
            "reviewsPerSecond",
            least=1,
            most=MAX_REVIEWS_PER_SECOND,
            default=defaults.reviews_per_second,
        ),
        stale_allow_seconds=_seconds(section, "staleAllowSeconds", defaults.stale_allow_seconds),
        ignore_extra=section.boolean("ignoreExtra") or False,
        local_tokens=section.boolean("localTokens") or False,
        anonymous=section.boolean("anonymous") or False,
    )
    section.close()
    return config


def _bytes(section: Section, key: str, default: int) -> int:
    return section.integer(key, least=1 << 16, most=MAX_BYTES, default=default)


def _seconds(section: Section, key: str, default: int) -> int:
    return section.integer(key, least=1, most=MAX_SECONDS, default=default)
