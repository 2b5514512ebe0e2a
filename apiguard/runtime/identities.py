"""The Authenticator of a worker, put together from configuration and contents of files.

What a file changes makes a new Authenticator, so that whoever kept an answer of the old one sees
that it is out of date; what issuers and reviews have learnt goes on.
"""

from __future__ import annotations

import secrets

from apiguard.errors import ConfigError
from apiguard.identity.authenticator import Authenticator, parse_static_tokens
from apiguard.identity.budget import Budget
from apiguard.identity.certificate import ClientAuthority
from apiguard.identity.jwt import JwtVerifier
from apiguard.identity.keys import parse_key_set
from apiguard.identity.reviews import Reviews
from apiguard.kube.identity import Identity
from apiguard.policy.config import GuardConfig
from apiguard.runtime.files import CLIENT_CA, STATIC_TOKENS, Files, keys_of, text_of


def make_authenticator(
    config: GuardConfig, files: Files, workers: int, now: float
) -> Authenticator:
    """For one of ``workers``, which share the guard's budget of reviews.

    Raises ConfigError or StartupError.
    """
    bounds, settings = config.bounds.identity, config.identity
    verifier = reviews = None
    if settings.jwt:
        verifier = JwtVerifier(
            [one.trusted() for one in settings.jwt],
            secret=secrets.token_bytes(32),
            budget=Budget(bounds.signature_checks_per_second, now),
            remembered=bounds.remembered_tokens,
        )
        _set_keys(config, verifier, files)
    if settings.token_review.enabled:
        reviews = Reviews(
            secret=secrets.token_bytes(32),
            budget=Budget(settings.token_review.reviews_per_second / workers, now),
            remembered=bounds.remembered_tokens,
        )
    return Authenticator(
        _tokens(files) if STATIC_TOKENS in files else None,
        verifier=verifier,
        reviews=reviews,
        authority=_authority(files) if CLIENT_CA in files else None,
    )


def renew(
    authenticator: Authenticator, config: GuardConfig, files: Files, changed: Files
) -> Authenticator | None:
    """What follows from ``changed`` among ``files``; None for nothing.

    Raises ConfigError or StartupError, with nothing changed.
    """
    names = {keys_of(one.issuer) for one in config.identity.jwt}
    names |= {STATIC_TOKENS, CLIENT_CA}
    if not names & changed.keys():
        return None
    new = authenticator.replace(
        tokens=_tokens(files) if STATIC_TOKENS in changed else None,
        authority=_authority(files) if CLIENT_CA in changed else None,
    )
    if new.verifier is not None:
        _set_keys(config, new.verifier, changed)
    return new


def _set_keys(config: GuardConfig, verifier: JwtVerifier, files: Files) -> None:
    sets = {}
    for one in config.identity.jwt:
        name = keys_of(one.issuer)
        if name in files:
            sets[one.issuer] = parse_key_set(text_of(files[name], name), files[name].path)
    for issuer, keys in sets.items():
        verifier.set_keys(issuer, keys)


def _tokens(files: Files) -> dict[str, Identity]:
    file = files[STATIC_TOKENS]
    return parse_static_tokens(text_of(file, STATIC_TOKENS), file.path)


def _authority(files: Files) -> ClientAuthority:
    return ClientAuthority(files[CLIENT_CA].data, files[CLIENT_CA].path)


def is_key_set(text: bytes) -> bool:
    """Whether ``text`` is a key set with a key that can be used."""
    try:
        parse_key_set(text.decode())
    except (ConfigError, UnicodeDecodeError):
        return False
    return True
