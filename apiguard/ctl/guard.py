"""One guard: credentials and JSON out, JSON in; a refusal becomes one line that says what to do."""

from __future__ import annotations

import json

from apiguard.ctl import TYPE_CHECKING
from apiguard.ctl.address import Address
from apiguard.ctl.errors import CtlError, RefusedError, UnreachableError
from apiguard.ctl.wire import Reply, Tls, escaped, exchange

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MOST_TOKEN_BYTES = 4_096


class Guard:
    """``name`` is what lines about it are prefixed with; ``seconds`` bounds each request."""

    __slots__ = ("address", "name", "seconds", "tls", "token_file")

    def __init__(
        self, name: str, address: Address, tls: Tls, token_file: str, seconds: float
    ) -> None:
        self.name = name
        self.address = address
        self.tls = tls
        self.token_file = token_file
        self.seconds = seconds

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The JSON at a path. Raises CtlError."""
        return self._json(self._ask("GET", path, query))

    def text(self, path: str) -> tuple[str, str]:
        """A policy's text and its ETag. Raises CtlError."""
        reply = self._ask("GET", path, accept="application/yaml")
        return reply.body.decode("utf-8", "replace"), reply.headers.get("etag", "")

    def send(
        self, method: str, path: str, body: object, query: Mapping[str, str] | None = None
    ) -> Any:
        """Sends a value as JSON, returns the JSON answered. Raises CtlError."""
        return self._json(self._ask(method, path, query, json.dumps(body).encode()))

    def put_text(self, path: str, text: str, query: Mapping[str, str]) -> Any:
        """Sends a file as it is. Raises CtlError."""
        return self._json(
            self._ask("PUT", path, query, text.encode(), content_type="application/yaml")
        )

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        accept: str = "application/json",
        content_type: str = "application/json",
    ) -> Reply:
        headers = {"Accept": accept, "User-Agent": "apiguard-ctl"}
        if body is not None or method != "GET":
            headers["Content-Type"] = content_type
            body = body or b""
        token = self._token()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        pairs = [f"{k}={escaped(v, ',')}" for k, v in (query or {}).items() if v]
        target = escaped(path, "/:") + ("?" + "&".join(pairs) if pairs else "")
        try:
            reply = exchange(self.address, self.tls, method, target, headers, body, self.seconds)
        except UnreachableError as error:
            raise UnreachableError(self._unreachable(str(error))) from None
        if reply.code >= 300 or reply.code < 200:
            raise RefusedError(reply.code, self._refusal(reply, path))
        return reply

    def _token(self) -> str:
        if not self.token_file:
            return ""
        try:
            with open(self.token_file, "rb") as file:
                token = file.read(MOST_TOKEN_BYTES).strip().decode("ascii", "replace")
        except OSError as error:
            raise CtlError(
                f"cannot read the token file {self.token_file}: {error.strerror}"
                "; name another with --token-file"
            ) from None
        if not token or not token.isprintable() or " " in token:
            raise CtlError(f"the token file {self.token_file} holds no token")
        return token

    def _json(self, reply: Reply) -> Any:
        if not reply.body.strip():
            return {}
        try:
            return json.loads(reply.body)
        except ValueError:
            raise UnreachableError(
                f"{self.address.text} answers with something that is not JSON"
                "; is this a guard's admin port?"
            ) from None

    def _unreachable(self, reason: str) -> str:
        advice = "is the guard running?"
        if not self.address.path:
            advice = "on the guard's own host try --server unix:PATH of its admin.socket"
        return f"cannot reach {self.address.text}: {reason}; {advice}"

    def _refusal(self, reply: Reply, path: str) -> str:
        status = _status(reply.body)
        said = said_by(status)
        server = self.address.text
        match reply.code:
            case 401 if self.token_file:
                return (
                    f"{server} does not accept the token of {self.token_file}"
                    "; put its admin token there, or name another file with --token-file"
                )
            case 401 if self.tls.cert_file:
                return (
                    f"{server} does not accept the certificate {self.tls.cert_file}: {said}"
                    "; use another, or a token with --token-file"
                )
            case 401:
                return f"{server} wants a token; name its file with --token-file"
            case 403:
                return f"{said or 'forbidden'}; apiguard whoami shows your role"
            case 404 if not status:
                return f"{server} knows no {path}; is it an older guard?"
            case 421:
                return f"{server} does not go by this name; list it in the guard's admin.hosts"
            case _ if said:
                return said
            case code:
                return f"{server} answers HTTP {code}; is this a guard's admin port?"


def _status(body: bytes) -> dict[str, Any]:
    """The Status object of a refusal, {} when it is something else."""
    try:
        status = json.loads(body)
    except ValueError:
        return {}
    return status if isinstance(status, dict) and status.get("kind") == "Status" else {}


def said_by(status: Mapping[str, Any]) -> str:
    """A Status in one line: its causes with their fields if it has some, else its message."""
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    if isinstance(causes, list) and causes:
        return "; ".join(_cause(cause) for cause in causes if isinstance(cause, dict))
    message = status.get("message")
    return " ".join(message.split()) if isinstance(message, str) else ""


def _cause(cause: Mapping[str, Any]) -> str:
    field, message = cause.get("field"), cause.get("message")
    return f"{field}: {message}" if field else str(message)
