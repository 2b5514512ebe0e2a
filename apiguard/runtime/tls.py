"""TLS contexts of both sides, from files. Whatever is wrong with a file is one clear line.

The supervisor builds them once at start to refuse bad files before anything listens; each worker
builds its own.
"""

from __future__ import annotations

import ssl

from apiguard.errors import StartupError

ALPN = ("http/1.1",)


def server_context(cert_file: str, key_file: str, client_ca_file: str | None) -> ssl.SSLContext:
    """For the listening side. With ``client_ca_file`` a client may present a certificate.

    Raises StartupError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(ALPN))
    # Renegotiation lets a client make the server work; compression leaks secrets by length.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.load_cert_chain(cert_file, key_file, password=_no_password)
    except OSError as error:
        raise StartupError(_pair_problem(cert_file, key_file, error)) from error
    if client_ca_file:
        _trust(context, client_ca_file, "listen.tls.clientCAFile")
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def upstream_context(ca_file: str | None) -> ssl.SSLContext:
    """For connections to API servers: verified, by ``ca_file`` or the system's authorities.

    Raises StartupError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(ALPN))
    if ca_file:
        _trust(context, ca_file, "upstream.caFile")
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def _trust(context: ssl.SSLContext, path: str, field: str) -> None:
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise StartupError(f"{field} {path}: {_reason(error, 'no certificate')}") from error


def _pair_problem(cert_file: str, key_file: str, error: OSError) -> str:
    for path, field in ((cert_file, "certFile"), (key_file, "keyFile")):
        try:
            with open(path, "rb"):
                pass
        except OSError as missing:
            return f"listen.tls.{field} {path}: {missing.strerror}"
    reason = _reason(error, "not a certificate and its key in PEM")
    return f"listen.tls certFile {cert_file}, keyFile {key_file}: {reason}"


def _reason(error: OSError, otherwise: str) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key does not belong to the certificate"
        return otherwise
    return error.strerror or str(error)


def _no_password() -> str:
    """An encrypted key fails instead of asking a terminal nobody watches."""
    return ""
