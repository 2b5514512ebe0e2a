"""A GuardConfig whose file paths mean something: resolved against the directory of its file.

So a configuration works from whatever directory the guard is started in.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from apiguard.policy.config import GuardConfig, parse_config


def parse_settings(text: str, name: str) -> GuardConfig:
    """The configuration in ``text``; ``name`` is its path. Raises errors.ConfigError."""
    config = parse_config(text, name)
    base = Path(name).absolute().parent

    def at(path: str) -> str:
        return str(base / path)

    def maybe(path: str | None) -> str | None:
        return None if path is None else at(path)

    tls = config.listen.tls
    if tls is not None:
        tls = replace(
            tls,
            cert_file=at(tls.cert_file),
            key_file=at(tls.key_file),
            client_ca_file=maybe(tls.client_ca_file),
        )
    return replace(
        config,
        listen=replace(config.listen, tls=tls),
        upstream=replace(config.upstream, ca_file=maybe(config.upstream.ca_file)),
        identity=replace(
            config.identity, static_tokens_file=maybe(config.identity.static_tokens_file)
        ),
        admin=replace(config.admin, token_file=at(config.admin.token_file)),
        state_dir=at(config.state_dir),
        policy_file=at(config.policy_file),
    )
