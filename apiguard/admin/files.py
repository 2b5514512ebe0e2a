"""The files behind the admin port: tokens, its certificate, authorities of client certificates."""

from __future__ import annotations

from apiguard.admin.credentials import Tokens
from apiguard.admin.tls import AdminTls
from apiguard.policy.adminconfig import AdminConfig
from apiguard.runtime.rotation import Expiry


class AdminFiles:
    """``tls`` is None for plain HTTP."""

    def __init__(self, config: AdminConfig) -> None:
        """Raises StartupError or ConfigError when one cannot be used."""
        self.tokens = Tokens(config.all_tokens)
        self.tls = None if config.tls is None else AdminTls(config.tls)
        if self.tls is not None:
            self.tls.load()

    def look(self) -> tuple[str, ...]:
        """Reads everything again; the settings of the TLS files that changed. Blocks on files.

        A new certificate counts for the next connection, a new authority for the next request.
        Tokens are read again whenever one is presented; here only so that a broken one is told.
        """
        self.tokens.refresh()
        return () if self.tls is None else tuple(self.tls.look())

    @property
    def expiries(self) -> tuple[Expiry, ...]:
        return () if self.tls is None else self.tls.expiries

    @property
    def problems(self) -> dict[str, str]:
        """Files that are broken on disk, and why, by setting."""
        return {**self.tokens.problems, **(self.tls.problems if self.tls else {})}

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of everything that is followed."""
        return (*self.tokens.settings, *(self.tls.groups if self.tls else ()))
