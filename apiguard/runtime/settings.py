"""A GuardConfig whose file paths mean something: resolved against the directory of its file.

So a configuration works from whatever directory the guard is started in.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from apiguard.policy.config import GuardConfig, parse_config
from apiguard.policy.tlsconfig import TlsConfig


def parse_settings(text: str, name: str) -> GuardConfig:
    """The configuration in ``text``; ``name`` is its path. Raises errors.ConfigError."""
    config = parse_config(text, name)
    base = Path(name).absolute().parent

    def at(path: str) -> str:
        return str(base / path)

    def maybe(path: str | None) -> str | None:
        return None if path is None else at(path)

    def pair(tls: TlsConfig | None) -> TlsConfig | None:
        return tls and replace(
            tls,
            cert_file=at(tls.cert_file),
            key_file=at(tls.key_file),
            client_ca_file=maybe(tls.client_ca_file),
        )

    upstream, identity, admin = config.upstream, config.identity, config.admin
    front_proxy, credentials = upstream.front_proxy, upstream.credentials
    if front_proxy is not None:
        front_proxy = replace(
            front_proxy, cert_file=at(front_proxy.cert_file), key_file=at(front_proxy.key_file)
        )
    if credentials is not None:
        credentials = replace(
            credentials,
            cert_file=maybe(credentials.cert_file),
            key_file=maybe(credentials.key_file),
            token_file=maybe(credentials.token_file),
        )
    return replace(
        config,
        listen=replace(config.listen, tls=pair(config.listen.tls)),
        upstream=replace(
            upstream,
            ca_file=maybe(upstream.ca_file),
            front_proxy=front_proxy,
            credentials=credentials,
        ),
        identity=replace(
            identity,
            static_tokens_file=maybe(identity.static_tokens_file),
            jwt=tuple(replace(one, jwks_file=maybe(one.jwks_file)) for one in identity.jwt),
        ),
        admin=replace(
            admin,
            token_file=maybe(admin.token_file),
            tokens=tuple(replace(one, file=at(one.file)) for one in admin.tokens),
            tls=pair(admin.tls),
            socket=admin.socket and replace(admin.socket, path=at(admin.socket.path)),
        ),
        state_dir=at(config.state_dir),
        policy_file=at(config.policy_file),
    )
