"""One request on a connection of its own, as HTTP/1.0.

1.0 because its answer is a head and bytes until the end: no chunks, no keep-alive, nothing to keep
in step. http.client would do it too, but its import (the whole of ``email``) takes half as long as
the rest of a command: 20 ms of CPU here, and this runs where there is none to spare.
"""

from __future__ import annotations

import socket
import time

from apiguard.ctl import TYPE_CHECKING
from apiguard.ctl.address import Address
from apiguard.ctl.errors import UnreachableError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

MOST_BYTES = 64 << 20  # of an answer; the largest real one is a few MiB of flows
_CHUNK = 1 << 16


class Tls:
    """Files, "" for none: whom to trust beside the system's authorities, and who we are."""

    __slots__ = ("ca_file", "cert_file", "key_file", "server_name")

    def __init__(
        self, ca_file: str = "", cert_file: str = "", key_file: str = "", server_name: str = ""
    ) -> None:
        self.ca_file = ca_file
        self.cert_file = cert_file
        self.key_file = key_file
        self.server_name = server_name


class Reply:
    """``headers`` by lower-case name."""

    __slots__ = ("body", "code", "headers")

    def __init__(self, code: int, headers: Mapping[str, str], body: bytes) -> None:
        self.code = code
        self.headers = headers
        self.body = body


def exchange(
    address: Address,
    tls: Tls,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes | None,
    seconds: float,
) -> Reply:
    """Sends one request and returns the whole answer within ``seconds``.

    Raises UnreachableError when there is none.
    """
    deadline = time.monotonic() + seconds
    sent = _head(address, method, target, headers, body) + (body or b"")
    try:
        connection = _connect(address, tls, seconds)
        try:
            connection.settimeout(_left(deadline))
            connection.sendall(sent)
            received = _receive(connection, deadline)
        finally:
            connection.close()
        if not received:
            raise ConnectionResetError
    except TimeoutError:
        raise UnreachableError(f"no answer within {seconds:g} s") from None
    except UnicodeError:
        raise UnreachableError("its host is no name") from None
    except OSError as error:
        raise UnreachableError(_reason(error, address, tls)) from None
    return parse_reply(received)


def escaped(text: str, keep: str = "/") -> str:
    """``text`` percent-encoded, unreserved characters and ``keep`` left as they are.

    By hand because ``urllib.parse`` imports ``ipaddress`` and costs 5 ms.
    """
    return "".join(
        c if c.isascii() and (c.isalnum() or c in "-._~" or c in keep) else _encoded(c)
        for c in text
    )


def _encoded(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "replace"))


def _head(
    address: Address, method: str, target: str, headers: Mapping[str, str], body: bytes | None
) -> bytes:
    lines = [f"{method} {target} HTTP/1.0", f"Host: {address.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "replace")


def _connect(address: Address, tls: Tls, seconds: float) -> socket.socket:
    if address.path:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(seconds)
            connection.connect(address.path)
        except BaseException:
            connection.close()
            raise
        return connection
    # As bytes: of a text even an IP address goes through the IDNA codec, 4 ms of import.
    host = address.host.encode() if address.host.isascii() else address.host
    connection = socket.create_connection((host, address.port), timeout=seconds)  # type: ignore[arg-type]  # bytes go to getaddrinfo, which takes them
    if not address.tls:
        return connection
    try:
        return _context(tls).wrap_socket(
            connection, server_hostname=tls.server_name or address.host
        )
    except BaseException:
        connection.close()
        raise


def _context(tls: Tls) -> ssl.SSLContext:
    """Raises OSError with the file that cannot be used as its ``filename``."""
    import ssl  # 15 ms, which plain HTTP and sockets need not pay

    context = ssl.create_default_context()
    try:
        if tls.ca_file:
            context.load_verify_locations(tls.ca_file)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), tls.ca_file) from None
    try:
        if tls.cert_file:
            context.load_cert_chain(tls.cert_file, tls.key_file or None)
    except ssl.SSLError:
        wrong = f"it does not go with {tls.key_file}" if tls.key_file else "it holds no key"
        raise OSError(0, f"{wrong}; name its key with --key", tls.cert_file) from None
    except OSError as error:
        # OpenSSL does not say which of the two is missing.
        why = error.strerror or str(error)
        raise OSError(error.errno, f"{why}, or its key", tls.cert_file) from None
    return context


def _receive(connection: socket.socket, deadline: float) -> bytes:
    received = bytearray()
    while True:
        connection.settimeout(_left(deadline))
        data = connection.recv(_CHUNK)
        if not data:
            return bytes(received)
        received += data
        if len(received) > MOST_BYTES:
            raise UnreachableError(f"the answer is longer than {MOST_BYTES >> 20} MiB")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def parse_reply(received: bytes) -> Reply:
    """The answer that ``received`` holds up to its end. Raises UnreachableError when it is none."""
    head, separator, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    code = rest[:3]
    if not separator or not version.startswith("HTTP/1.") or not code.isdigit():
        raise UnreachableError("what answers there is not HTTP")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    length = headers.get("content-length", "")
    if "transfer-encoding" in headers or (length.isdigit() and len(body) < int(length)):
        raise UnreachableError("the answer is cut off")
    return Reply(int(code), headers, body)


def _perhaps(address: Address, tls: Tls) -> str:
    """Why it may have closed the connection without a word."""
    if address.path:
        return ""
    if not address.tls:
        return "; if it speaks TLS, try https://"
    # With TLS 1.3 a client hears of a refused certificate after its own handshake, if at all.
    return f"; perhaps it does not trust {tls.cert_file}" if tls.cert_file else ""


def _reason(error: OSError, address: Address, tls: Tls) -> str:
    """A few words for what went wrong below HTTP."""
    if error.filename and error.filename in (tls.ca_file, tls.cert_file):
        return f"cannot use {error.filename}: {error.strerror}"
    verification = getattr(error, "verify_message", "")
    if verification:
        return f"its certificate is not trusted: {verification}; name its authority with --ca-file"
    if isinstance(error, FileNotFoundError):
        return "there is no such socket"
    if isinstance(error, PermissionError) and address.path:
        return "this user may not open the socket"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "it closed the connection" + _perhaps(address, tls)
    reason = getattr(error, "reason", "") if address.tls else ""
    if reason == "WRONG_VERSION_NUMBER":
        return "what answers there is no TLS; try http://"
    if reason:
        return f"TLS failed: {str(reason).replace('_', ' ').lower()}"
    return (error.strerror or str(error)).lower()
