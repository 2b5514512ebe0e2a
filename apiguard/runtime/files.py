"""Files of the configuration whose content is followed while the guard runs.

The supervisor reads them, and workers get content, not paths: so all workers change together, a
worker that is replaced while a file is broken still starts with what was good, and a pair that is
half written is never seen twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from apiguard.errors import StartupError
from apiguard.policy.config import GuardConfig

MAX_BYTES: Final = 16 << 20
"""The largest is the file of static tokens, a line each."""

SERVING_CERT: Final = "listen.tls.certFile"
SERVING_KEY: Final = "listen.tls.keyFile"
CLIENT_CA: Final = "listen.tls.clientCAFile"
UPSTREAM_CA: Final = "upstream.caFile"
FRONT_PROXY_CERT: Final = "upstream.frontProxy.certFile"
FRONT_PROXY_KEY: Final = "upstream.frontProxy.keyFile"
OWN_CERT: Final = "upstream.credentials.certFile"
OWN_KEY: Final = "upstream.credentials.keyFile"
OWN_TOKEN: Final = "upstream.credentials.tokenFile"  # noqa: S105  the name of a setting
STATIC_TOKENS: Final = "identity.staticTokensFile"


class File(msgspec.Struct, frozen=True, array_like=True):
    """``path`` is for messages; its content may be newer by now."""

    path: str
    data: bytes

    def __repr__(self) -> str:
        return f"File({self.path!r})"  # keys and tokens stay out of logs


Files = dict[str, File]
"""By the name of the setting; what is not configured is absent."""


def keys_of(issuer: str) -> str:
    """The name under which the JWKS of ``issuer`` is found among files."""
    return f"identity.jwt[{issuer}]"


def configured(config: GuardConfig) -> dict[str, str]:
    """Paths of the files to follow, by the name of their setting."""
    return {name: path for name, path in _settings(config) if path}


def _settings(config: GuardConfig) -> Iterator[tuple[str, str | None]]:
    tls, upstream = config.listen.tls, config.upstream
    if tls is not None:
        yield SERVING_CERT, tls.cert_file
        yield SERVING_KEY, tls.key_file
        yield CLIENT_CA, tls.client_ca_file
    yield UPSTREAM_CA, upstream.ca_file
    if upstream.front_proxy is not None:
        yield FRONT_PROXY_CERT, upstream.front_proxy.cert_file
        yield FRONT_PROXY_KEY, upstream.front_proxy.key_file
    if upstream.credentials is not None:
        yield OWN_CERT, upstream.credentials.cert_file
        yield OWN_KEY, upstream.credentials.key_file
        yield OWN_TOKEN, upstream.credentials.token_file
    yield STATIC_TOKENS, config.identity.static_tokens_file
    for issuer in config.identity.jwt:
        yield keys_of(issuer.issuer), issuer.jwks_file


def read_file(path: str, name: str) -> File:
    """Raises StartupError with one line naming the setting and the path."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise StartupError(f"{name} {path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise StartupError(f"{name} {path}: larger than {MAX_BYTES} bytes")
    return File(path, data)


def text_of(file: File, name: str) -> str:
    """Raises StartupError for what is not UTF-8."""
    try:
        return file.data.decode()
    except UnicodeDecodeError as error:
        raise StartupError(f"{name} {file.path}: not UTF-8 at byte {error.start}") from error
