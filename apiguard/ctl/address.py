"""Where a guard's admin port answers."""

from __future__ import annotations


class Address:
    """``path`` of a Unix socket, or host and port. ``text`` is what the operator wrote."""

    __slots__ = ("host", "path", "port", "text", "tls")

    def __init__(self, text: str, host: str, port: int, tls: bool, path: str) -> None:
        self.text = text
        self.host = host
        self.port = port
        self.tls = tls
        self.path = path

    @property
    def authority(self) -> str:
        """The Host header. A socket in the file system is this host itself."""
        if self.path:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """``https://host:port``, ``http://host:port`` or ``unix:/path``. Raises ValueError."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = "/" + path.lstrip("/") if path.startswith("//") else path
        if not path or "\x00" in path:
            raise ValueError(_wrong(text))
        return Address(text, "", 0, False, path)
    scheme, separator, rest = text.partition("://")
    if scheme not in ("http", "https") or not separator or not text.isprintable():
        raise ValueError(_wrong(text))
    host, port = _split(rest.rstrip("/"))
    if not host or port is None or not set(host).isdisjoint("/?#@ \\"):
        raise ValueError(_wrong(text))
    return Address(text, host, port, scheme == "https", "")


def _split(authority: str) -> tuple[str, int | None]:
    """Host without brackets, and port; port None when there is none that can be one."""
    host, _, port = authority.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return "", None
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65_536):
        return host, None
    return host, int(port)


def _wrong(text: str) -> str:
    return f"{text[:200]!r} is no address, write https://HOST:PORT, http://HOST:PORT or unix:/PATH"
