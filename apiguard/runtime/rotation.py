"""Certificates, keys, tokens and key sets that change while the guard runs.

Every ``LOOK_SECONDS`` all files are read and compared by content: times of modification say
nothing after a restore, and a mounted Secret changes by a swapped symbolic link. What belongs
together (a certificate and its key) changes together or not at all; a group that is broken keeps
what it had, and says so until it is mended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from apiguard.errors import ApiguardError, StartupError
from apiguard.identity.authenticator import parse_static_tokens
from apiguard.identity.certificate import ClientAuthority
from apiguard.identity.keys import parse_key_set
from apiguard.policy.config import GuardConfig
from apiguard.runtime import tls
from apiguard.runtime.files import (
    CLIENT_CA,
    FRONT_PROXY_CERT,
    FRONT_PROXY_KEY,
    OWN_CERT,
    OWN_KEY,
    OWN_TOKEN,
    SERVING_CERT,
    SERVING_KEY,
    STATIC_TOKENS,
    UPSTREAM_CA,
    Files,
    configured,
    keys_of,
    read_file,
    text_of,
)

LOOK_SECONDS: Final = 4.0
"""A change is in use within 10 s: this, a pause of a busy machine, and a worker's answer."""

Check = Callable[[Files], object]
"""Raises an ApiguardError for files that cannot be used."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """A certificate in use: ``name`` is its setting, ``not_after`` Unix seconds."""

    name: str
    path: str
    subject: str
    not_after: float


class Followed:
    """The files in use. ``problems`` says of each group that is broken on disk why, by its name.

    ``paths`` are by the name of the setting; ``groups`` says what changes together, and how it is
    told whether it can be used.
    """

    def __init__(self, paths: Mapping[str, str], groups: Mapping[tuple[str, ...], Check]) -> None:
        self._paths = paths
        self._groups = groups
        self.files: Files = {}
        self.problems: dict[str, str] = {}
        self.rejected = 0
        self.expiries: tuple[Expiry, ...] = ()

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of what is followed: of each group the first setting."""
        return tuple(names[0] for names in self._groups)

    def load(self) -> None:
        """Reads everything for the first time. Raises StartupError or ConfigError."""
        for names, check in self._groups.items():
            files = {**self.files, **self._read(names)}
            check(files)
            self.files = files
        self.expiries = expiries(self.files)

    def look(self) -> Files:
        """Reads everything again: the files that changed and are good, now in use."""
        changed: Files = {}
        for names, check in self._groups.items():
            changed.update(self._look_at(names, check))
        if changed:
            # A new mapping, not an update: the loop may read the old one at this moment.
            self.files = {**self.files, **changed}
            self.expiries = expiries(self.files)
        return changed

    def _look_at(self, names: tuple[str, ...], check: Check) -> Files:
        group = names[0]
        try:
            found = self._read(names)
            if all(self.files.get(name) == file for name, file in found.items()):
                self.problems.pop(group, None)
                return {}
            check({**self.files, **found})
        except ApiguardError as error:
            reason = str(error)
            if self.problems.get(group) != reason:
                self.rejected += 1
            self.problems[group] = reason
            return {}
        self.problems.pop(group, None)
        return found

    def _read(self, names: tuple[str, ...]) -> Files:
        return {n: read_file(self._paths[n], n) for n in names if n in self._paths}


class Rotation(Followed):
    """Every file that traffic depends on."""

    def __init__(self, config: GuardConfig) -> None:
        super().__init__(configured(config), _groups(config))


def _groups(config: GuardConfig) -> Mapping[tuple[str, ...], Check]:
    """What changes together, and how it is told whether it can be used.

    The serving pair and the client CA are apart: a broken one must not hold up the other.
    """
    groups: dict[tuple[str, ...], Check] = {
        (UPSTREAM_CA,): tls.plain_context,
        (SERVING_CERT, SERVING_KEY): tls.serving_context,
        (CLIENT_CA,): _check_client_ca,
        (FRONT_PROXY_CERT, FRONT_PROXY_KEY): tls.front_proxy_context,
        (OWN_CERT, OWN_KEY): tls.own_context,
        (OWN_TOKEN,): own_token,
        (STATIC_TOKENS,): static_tokens,
    }
    for issuer in config.identity.jwt:
        if issuer.jwks_file:
            groups[(keys_of(issuer.issuer),)] = _key_set_check(keys_of(issuer.issuer))
    paths = configured(config)
    return {names: check for names, check in groups.items() if names[0] in paths}


def _check_client_ca(files: Files) -> None:
    tls.serving_context(files)
    ClientAuthority(files[CLIENT_CA].data, files[CLIENT_CA].path)


def own_token(files: Files) -> str:
    """The guard's own bearer token, "" without one. Raises StartupError."""
    file = files.get(OWN_TOKEN)
    if file is None:
        return ""
    token = text_of(file, OWN_TOKEN).strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise StartupError(f"{OWN_TOKEN} {file.path}: must hold one token")
    return token


def static_tokens(files: Files) -> str:
    """The text of the static tokens, "" without. Raises StartupError or ConfigError."""
    file = files.get(STATIC_TOKENS)
    if file is None:
        return ""
    text = text_of(file, STATIC_TOKENS)
    parse_static_tokens(text, file.path)
    return text


def _key_set_check(name: str) -> Check:
    return lambda files: parse_key_set(text_of(files[name], name), files[name].path)


def expiries(files: Files) -> tuple[Expiry, ...]:
    """Every certificate in ``files``: of a pair the one presented, of a bundle each."""
    found: list[Expiry] = []
    for name, file in files.items():
        if name.endswith(_CERTIFICATES):
            try:
                certificates = x509.load_pem_x509_certificates(file.data)
            except ValueError:
                continue  # OpenSSL took it, so it is used; what it is stays unsaid
            shown = certificates[:1] if name.endswith(_PAIR) else certificates
            found.extend(_expiry(name, file.path, certificate) for certificate in shown)
    return tuple(found)


_PAIR = ".certFile"
_CERTIFICATES = (_PAIR, ".clientCAFile", ".caFile")


def _expiry(name: str, path: str, certificate: x509.Certificate) -> Expiry:
    end = certificate.not_valid_after_utc.timestamp()
    try:
        subject = certificate.subject.rfc4514_string()
    except ValueError:
        subject = ""  # a name nobody can read expires all the same
    return Expiry(name, path, subject, end)
