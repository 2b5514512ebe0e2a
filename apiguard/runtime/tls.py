"""TLS contexts of both sides, from contents of files. Whatever is wrong is one clear line.

The supervisor builds them once at start and at each change, to refuse bad files before anybody
relies on them; each worker builds its own. A context is never changed after it is in use: new
files make a new one, and sessions that were to be resumed end with the old one, whose tickets only
it can read. So no resumed session outlives a change of the client CA.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator

from apiguard.errors import StartupError
from apiguard.runtime.files import (
    CLIENT_CA,
    FRONT_PROXY_CERT,
    FRONT_PROXY_KEY,
    OWN_CERT,
    OWN_KEY,
    SERVING_CERT,
    SERVING_KEY,
    UPSTREAM_CA,
    File,
    Files,
    read_file,
)
from apiguard.upstream.kind import Kind

ALPN = ("http/1.1",)


def serving_context(files: Files, section: str = "listen.tls") -> ssl.SSLContext | None:
    """For a listening side, from the files of ``section``; None without a certificate. Raises
    StartupError.

    With a client CA a client may present a certificate. One that does not chain ends the
    handshake: Python's TLS cannot merely request one, as kube-apiserver does.
    """
    cert, key, authority = (f"{section}.{name}" for name in ("certFile", "keyFile", "clientCAFile"))
    if cert not in files:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(ALPN))
    # Renegotiation lets a client make the server work; compression leaks secrets by length.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    _present(context, files, cert, key)
    if authority in files:
        _trust(context, files[authority], authority)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def plain_context(files: Files) -> ssl.SSLContext:
    """For connections to API servers that prove nothing. Raises StartupError."""
    return _towards_upstream(files)


def front_proxy_context(files: Files) -> ssl.SSLContext | None:
    """For connections that carry identity headers; None without upstream.frontProxy.

    Raises StartupError.
    """
    if FRONT_PROXY_CERT not in files:
        return None
    context = _towards_upstream(files)
    _present(context, files, FRONT_PROXY_CERT, FRONT_PROXY_KEY)
    return context


def upstream_contexts(files: Files) -> dict[Kind, ssl.SSLContext]:
    """By what a connection proves. Raises StartupError."""
    contexts = {Kind.PLAIN: plain_context(files)}
    front_proxy = front_proxy_context(files)
    if front_proxy is not None:
        contexts[Kind.FRONT_PROXY] = front_proxy
    return contexts


def own_context(files: Files) -> ssl.SSLContext:
    """For the guard's own calls; never with the front-proxy certificate. Raises StartupError."""
    context = _towards_upstream(files)
    if OWN_CERT in files:
        _present(context, files, OWN_CERT, OWN_KEY)
    return context


def server_context(cert_file: str, key_file: str, client_ca_file: str | None) -> ssl.SSLContext:
    """``serving_context`` from paths. Raises StartupError."""
    paths = {SERVING_CERT: cert_file, SERVING_KEY: key_file}
    if client_ca_file:
        paths[CLIENT_CA] = client_ca_file
    context = serving_context({name: read_file(path, name) for name, path in paths.items()})
    assert context is not None
    return context


def _towards_upstream(files: Files) -> ssl.SSLContext:
    """Verifies API servers, by upstream.caFile or the system's authorities."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(ALPN))
    if UPSTREAM_CA in files:
        _trust(context, files[UPSTREAM_CA], UPSTREAM_CA)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def _trust(context: ssl.SSLContext, file: File, name: str) -> None:
    try:
        with _in_memory(file.data) as path:
            context.load_verify_locations(path)
    except OSError as error:
        raise StartupError(f"{name} {file.path}: {_reason(error, 'no certificate')}") from error


def _present(context: ssl.SSLContext, files: Files, cert: str, key: str) -> None:
    try:
        with _in_memory(files[cert].data) as chain, _in_memory(files[key].data) as secret:
            context.load_cert_chain(chain, secret, password=_no_password)
    except OSError as error:
        reason = _reason(error, "not a certificate and its key in PEM")
        section = cert.rpartition(".")[0]
        paths = f"certFile {files[cert].path}, keyFile {files[key].path}"
        raise StartupError(f"{section} {paths}: {reason}") from error


def sent_chain(tls: ssl.SSLObject) -> tuple[bytes, ...]:
    """What the client sent besides its own certificate, in DER; nothing on a resumed session.

    Without it a certificate of an intermediate authority could not be verified again when the
    client CA changes. The ssl module offers it from Python 3.13 on only; before, it is there on
    the object that does the work.
    """
    chain = getattr(tls, "get_unverified_chain", None)
    if chain is not None:
        return tuple(chain()[1:])
    certificates = getattr(getattr(tls, "_sslobj", None), "get_unverified_chain", lambda: None)()
    return tuple(ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in (certificates or ())[1:])


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path to ``data`` that no disk sees: OpenSSL, as Python offers it, loads keys from paths."""
    descriptor = os.memfd_create("apiguard", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _reason(error: OSError, otherwise: str) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key does not belong to the certificate"
        return otherwise
    return error.strerror or str(error)


def _no_password() -> str:
    """An encrypted key fails instead of asking a terminal nobody watches."""
    return ""
