"""The files behind a port that speaks TLS; the same shape for clients and for the admin port."""

from __future__ import annotations

from dataclasses import dataclass

from .fields import Section


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """TLS towards whoever connects."""

    cert_file: str
    """PEM certificate chain, the server's own certificate first."""

    key_file: str
    """PEM private key of that certificate."""

    client_ca_file: str | None = None
    """PEM authorities of client certificates; absent: none is asked for."""


def read_tls(section: Section) -> TlsConfig:
    """Problems go to the section's findings."""
    config = TlsConfig(
        cert_file=section.text("certFile"),
        key_file=section.text("keyFile"),
        client_ca_file=section.optional_text("clientCAFile"),
    )
    section.close()
    return config
