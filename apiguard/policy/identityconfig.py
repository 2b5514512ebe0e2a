"""The parts of a GuardConfig that say how identities are proven and passed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from apiguard.identity.claims import LEGACY_ISSUER, ClaimMappings
from apiguard.identity.jwt import Issuer
from apiguard.wire.frontproxy import FrontProxyNames
from apiguard.wire.headers import IdentityNames, may_carry_identity

from .fields import Section

MAX_ISSUERS = 32
MAX_AUDIENCES = 32
MAX_NAMES = 8
MAX_REVIEWS_PER_SECOND = 10_000


@dataclass(frozen=True, slots=True)
class FrontProxyConfig:
    """How the guard tells upstream about callers with client certificates.

    The names are those of ``--requestheader-*``; the guard writes the first of each list and lets
    no client send any of them.
    """

    cert_file: str
    """PEM certificate that ``--requestheader-client-ca-file`` signs, used for nothing else."""

    key_file: str
    """PEM private key of that certificate."""

    user_headers: tuple[str, ...] = ("X-Remote-User",)
    group_headers: tuple[str, ...] = ("X-Remote-Group",)
    uid_headers: tuple[str, ...] = ("X-Remote-Uid",)
    """Upstream must be told to read it (``--requestheader-uid-headers``), or UIDs are lost."""

    extra_header_prefixes: tuple[str, ...] = ("X-Remote-Extra-",)

    def names(self) -> FrontProxyNames:
        """What the guard writes."""
        return FrontProxyNames(
            self.user_headers[0].encode(),
            self.group_headers[0].encode(),
            self.uid_headers[0].encode(),
            self.extra_header_prefixes[0].encode(),
        )


def identity_names(front_proxy: FrontProxyConfig | None) -> IdentityNames:
    """The names no client may send: the configured ones, and the usual ones all the same."""
    usual = IdentityNames()
    if front_proxy is None:
        return usual
    return IdentityNames(
        user=_lower(front_proxy.user_headers, usual.user),
        uid=_lower(front_proxy.uid_headers, usual.uid),
        group=_lower(front_proxy.group_headers, usual.group),
        extra_prefix=_lower(front_proxy.extra_header_prefixes, usual.extra_prefix),
    )


def _lower(names: tuple[str, ...], usual: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys([*(name.lower().encode() for name in names), *usual]))


@dataclass(frozen=True, slots=True)
class CredentialsConfig:
    """Who the guard itself is to upstream: for reviews, key sets and health, never for traffic.

    Either a certificate with its key, or a file with a bearer token.
    """

    cert_file: str | None = None
    key_file: str | None = None
    token_file: str | None = None


@dataclass(frozen=True, slots=True)
class JwtConfig:
    """An issuer whose tokens the guard verifies itself."""

    issuer: str
    """Its name, as tokens spell it in ``iss``."""

    audiences: frozenset[str]
    """Tokens must be for one of these."""

    mappings: ClaimMappings | None = None
    """For OpenID Connect; None: these are the cluster's own service account tokens."""

    jwks_file: str | None = None
    """The issuer's key set; None: upstream's ``/openid/v1/jwks``, fetched with own credentials."""

    def trusted(self) -> Issuer:
        """What a JwtVerifier is told."""
        return Issuer(self.issuer, self.audiences, self.mappings)


@dataclass(frozen=True, slots=True)
class TokenReviewConfig:
    """Asking upstream about tokens that cannot be verified here."""

    enabled: bool = False
    reviews_per_second: int = 20
    """Of the whole guard; each worker has its part."""


@dataclass(frozen=True, slots=True)
class IdentityConfig:
    """Where verified users come from."""

    static_tokens_file: str | None = None
    """kube-apiserver's CSV: token,user,uid[,"group1,group2"]."""

    jwt: tuple[JwtConfig, ...] = ()
    """Issuers whose tokens are verified here, working while upstream is down."""

    token_review: TokenReviewConfig = TokenReviewConfig()
    """For tokens that are neither."""

    @property
    def asks_upstream(self) -> bool:
        """Whether anything here needs ``upstream.credentials``."""
        return self.token_review.enabled or any(one.jwks_file is None for one in self.jwt)


# -- reading


def read_front_proxy(section: Section) -> FrontProxyConfig:
    usual = FrontProxyConfig("", "")
    config = FrontProxyConfig(
        cert_file=section.text("certFile"),
        key_file=section.text("keyFile"),
        user_headers=_names(section, "userHeaders", usual.user_headers),
        group_headers=_names(section, "groupHeaders", usual.group_headers),
        uid_headers=_names(section, "uidHeaders", usual.uid_headers),
        extra_header_prefixes=_names(section, "extraHeaderPrefixes", usual.extra_header_prefixes),
    )
    _check_overlaps(section, config)
    section.close()
    return config


def _names(section: Section, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    texts = section.texts(key, most=MAX_NAMES, empty="must hold at least one header name")
    for text in texts or ():
        if not may_carry_identity(text.value.encode()):
            reason = "is no header name, or one that means something else"
            section.findings.add(text.line, text.field, reason)
    return tuple(text.value for text in texts) if texts else default


def _check_overlaps(section: Section, config: FrontProxyConfig) -> None:
    """Upstream would read one header twice, as two things."""
    lists = {
        "userHeaders": config.user_headers,
        "groupHeaders": config.group_headers,
        "uidHeaders": config.uid_headers,
    }
    seen: set[str] = set()
    prefixes = tuple(prefix.lower() for prefix in config.extra_header_prefixes)
    for key, names in lists.items():
        for name in names:
            if name.lower() in seen:
                section.complain(key, f"names {name} a second time")
            elif name.lower().startswith(prefixes):
                section.complain(key, f"names {name}, which begins with an extra prefix")
            seen.add(name.lower())


def read_credentials(section: Section) -> CredentialsConfig:
    config = CredentialsConfig(
        cert_file=section.optional_text("certFile"),
        key_file=section.optional_text("keyFile"),
        token_file=section.optional_text("tokenFile"),
    )
    pair = (config.cert_file is None, config.key_file is None)
    if pair[0] != pair[1]:
        section.complain("certFile", "certFile and keyFile go together")
    elif pair[0] == (config.token_file is None):
        section.complain("tokenFile", "give either certFile and keyFile or tokenFile")
    section.close()
    return config


def read_identity(section: Section) -> IdentityConfig:
    reviews = section.section("tokenReview")
    config = IdentityConfig(
        static_tokens_file=section.optional_text("staticTokensFile"),
        jwt=tuple(_jwt(entry) for entry in section.sections("jwt", most=MAX_ISSUERS)),
        token_review=_token_review(reviews) if reviews else TokenReviewConfig(),
    )
    _check_issuers(section, config)
    section.close()
    return config


def _token_review(section: Section) -> TokenReviewConfig:
    config = TokenReviewConfig(
        enabled=section.boolean("enabled") or False,
        reviews_per_second=section.integer(
            "reviewsPerSecond",
            least=1,
            most=MAX_REVIEWS_PER_SECOND,
            default=TokenReviewConfig().reviews_per_second,
        ),
    )
    section.close()
    return config


def _jwt(section: Section) -> JwtConfig:
    mappings = section.section("claimMappings")
    name = section.text("issuer")
    texts = section.texts("audiences", most=MAX_AUDIENCES, empty="must name at least one audience")
    if mappings is not None and texts is None:
        section.complain("audiences", "is required for OpenID Connect tokens")
    if name == LEGACY_ISSUER:
        section.complain("issuer", "is implied by the cluster's own issuer")
    # As kube-apiserver's --api-audiences, whose default is its issuer.
    audiences = frozenset(text.value for text in texts) if texts else frozenset({name})
    config = JwtConfig(
        issuer=name,
        audiences=audiences,
        mappings=_claim_mappings(mappings) if mappings else None,
        jwks_file=section.optional_text("jwksFile"),
    )
    from_upstream = section.boolean("jwksFromUpstream") or False
    if from_upstream == (config.jwks_file is not None):
        section.complain("jwksFile", "give either jwksFile or jwksFromUpstream: true")
    elif from_upstream and mappings is not None:
        section.complain("jwksFromUpstream", "upstream holds service account keys only")
    section.close()
    return config


def _claim_mappings(section: Section) -> ClaimMappings:
    """As in AuthenticationConfiguration: a mapped username must say its prefix, even if ""."""
    username, groups = section.section("username", required=True), section.section("groups")
    uid = section.section("uid")
    mappings = ClaimMappings(
        username_claim=_read(username, lambda s: s.text("claim")),
        username_prefix=_read(username, lambda s: s.text("prefix")),
        groups_claim=_read(groups, lambda s: s.text("claim")),
        groups_prefix=_read(groups, lambda s: s.text("prefix")),
        uid_claim=_read(uid, lambda s: s.text("claim")),
    )
    for part in (username, groups, uid, section):
        if part is not None:
            part.close()
    return mappings


def _read(section: Section | None, read: Callable[[Section], str]) -> str:
    return read(section) if section is not None else ""


def _check_issuers(section: Section, config: IdentityConfig) -> None:
    names = [one.issuer for one in config.jwt]
    if len(set(names)) < len(names):
        section.complain("jwt", "names an issuer twice")
    if sum(one.mappings is None for one in config.jwt) > 1:
        section.complain("jwt", "has more than one issuer of service account tokens")
