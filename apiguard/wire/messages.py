"""What a message is, on any HTTP version, and how its parts travel.

A request is a ``RequestLine`` and a ``HeaderBlock``. They are separate because on one connection
the block repeats (same client, same token) while the line changes: whatever is derived from
either is derived once and kept beside it.

A codec calls the sinks; whoever answers or forwards calls the streams. One HTTP/1.1 connection
is one stream at a time and implements the stream protocols itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from apiguard.errors import WireError

CHUNKED = -1
"""``HeaderBlock.length`` of a body whose length is not known in advance."""

UNTIL_CLOSE = -2
"""``ResponseHead.length`` of a body that ends with its connection."""

Field = tuple[bytes, bytes]
"""Header name as spelled by the sender, value without outer blanks."""


@dataclass(frozen=True, slots=True, eq=False)
class RequestLine:
    """Method and target exactly as received (ASCII); compared and hashed by identity.

    ``http1`` is the whole line as HTTP/1.1 sends it, with its CRLF: also what upstream gets.
    """

    method: str
    target: str
    http1: bytes


class HeaderBlock:
    """The validated header block of a request.

    ``fields``      every field in order, as received
    ``forward``     serialised fields that may travel upstream as they are: without hop-by-hop,
                    framing, forwarding and identity fields
    ``length``      body length in bytes, 0 without a body, ``CHUNKED``
    ``declared``    whether a length was declared at all (``Content-Length: 0`` is forwarded)
    ``upgrade``     protocol of an upgrade we would tunnel (``websocket``, ``SPDY/3.1``), as
                    spelled by the client, or b""
    ``close``       the client asked to close after this request
    ``expects``     ``Expect: 100-continue`` was sent
    ``context``     what the layer above derived from this block; None until it has
    """

    __slots__ = (
        "authorization",
        "close",
        "context",
        "declared",
        "expects",
        "fields",
        "forward",
        "length",
        "upgrade",
        "user_agent",
        "websocket_protocols",
    )

    def __init__(
        self,
        *,
        fields: tuple[Field, ...],
        forward: bytes,
        length: int,
        declared: bool,
        upgrade: bytes,
        close: bool,
        expects: bool,
        authorization: bytes,
        user_agent: bytes,
        websocket_protocols: bytes,
    ) -> None:
        self.fields = fields
        self.forward = forward
        self.length = length
        self.declared = declared
        self.upgrade = upgrade
        self.close = close
        self.expects = expects
        self.authorization = authorization
        self.user_agent = user_agent
        self.websocket_protocols = websocket_protocols
        self.context: object | None = None

    def get(self, name: bytes) -> bytes:
        """First value of the field ``name`` (given in lower case), b"" without one."""
        for field, value in self.fields:
            if field.lower() == name:
                return value
        return b""


class ResponseHead:
    """The validated head of a response from upstream.

    ``line``     status line as received, with its CRLF
    ``lines``    serialised end-to-end fields, each with its CRLF, as received
    ``framed``   ``lines`` also hold the one framing field that fits ``length``
    ``length``   body length in bytes, ``CHUNKED`` or ``UNTIL_CLOSE`` when not known in advance;
                 already 0 where method and status allow no body
    ``declared`` the Content-Length upstream declared, or -1; differs from ``length`` for HEAD and
                 304, where it describes a body that is not sent
    ``upgrade``  the protocol of a 101, b"" otherwise
    ``close``    upstream closes after this response
    """

    __slots__ = ("close", "declared", "framed", "length", "line", "lines", "status", "upgrade")

    def __init__(
        self,
        status: int,
        line: bytes,
        lines: bytes,
        framed: bool,
        length: int,
        declared: int,
        upgrade: bytes,
        close: bool,
    ) -> None:
        self.status = status
        self.line = line
        self.lines = lines
        self.framed = framed
        self.length = length
        self.declared = declared
        self.upgrade = upgrade
        self.close = close


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer of our own, serialised once and sent many times.

    ``lines`` are its header fields including Content-Length, each with its CRLF.
    """

    status: int
    reason: bytes
    lines: bytes
    body: bytes


class RequestSink(Protocol):
    """Takes the body of one request, from the stream it arrives on."""

    def request_data(self, data: bytes) -> None: ...

    def request_end(self) -> None: ...

    def request_aborted(self, error: WireError | None) -> None:
        """The client is gone (None) or broke the framing of its body; nothing more will come."""

    def client_writable(self, writable: bool) -> None:
        """The client's transport is full (False) or took its bytes (True)."""


class Shared(Protocol):
    """A piece of a body that many streams send. ``wire`` is None until one of them has put it into
    its framing with ``framed``; a stream without a framing that others share takes ``data``."""

    @property
    def data(self) -> bytes: ...

    @property
    def size(self) -> int: ...

    @property
    def wire(self) -> bytes | None: ...

    def framed(self, before: bytes, after: bytes) -> bytes:
        """``data`` between these, kept as ``wire``."""


class ServerStream(Protocol):
    """One request of a client, to be answered.

    ``body_limit`` is the largest request body accepted, in bytes; -1 for none. Whoever takes the
    request may change it before the first byte of the body is delivered.
    """

    body_limit: int

    @property
    def writable(self) -> bool:
        """The client's transport takes bytes; changes are told to the sink."""

    def send_interim(self, head: ResponseHead) -> None:
        """A 1xx other than 101."""

    def send_head(self, head: ResponseHead, *, close: bool = False) -> None: ...

    def send_data(self, data: bytes) -> None: ...

    def send_shared(self, piece: Shared, *, alone: bool = False) -> None:
        """As ``send_data``, framed once for all streams that send ``piece``. ``alone``: nothing
        follows in this turn of the loop, so that there is no use in waiting for it."""

    def send_end(self) -> None: ...

    def send_reply(self, reply: Reply, *, close: bool = False) -> None:
        """A whole answer in one write."""

    def start_tunnel(self, head: ResponseHead) -> None:
        """Send the 101; from here bytes pass unread in both directions."""

    def abort(self) -> None:
        """Break the response visibly: the client must not take it for complete."""

    def hold_requests(self) -> None:
        """Take no further request from this connection until told otherwise."""

    def pause_body(self) -> None: ...

    def resume_body(self) -> None: ...


class ResponseSink(Protocol):
    """Takes the answer to one request sent upstream."""

    def response_interim(self, head: ResponseHead) -> None: ...

    def response_head(self, head: ResponseHead) -> None: ...

    def response_data(self, data: bytes) -> None: ...

    def response_end(self) -> None: ...

    def response_aborted(self, reason: str) -> None:
        """The connection ended or spoke nonsense before the answer was complete."""

    def upstream_writable(self, writable: bool) -> None:
        """Upstream's transport is full (False) or took its bytes (True)."""


class RequestHandler(Protocol):
    """What a server codec hands requests to."""

    def request_received(
        self, stream: ServerStream, line: RequestLine, block: HeaderBlock
    ) -> RequestSink | None:
        """A valid head arrived. None when it has been answered and its body is of no interest."""

    def request_malformed(self, stream: ServerStream, error: WireError) -> None:
        """No request can be read; must answer with ``send_reply(..., close=True)``."""


class ClientStream(Protocol):
    """One request sent upstream, being answered."""

    def send_data(self, data: bytes) -> None: ...

    def send_end(self) -> None: ...

    def cancel(self) -> None:
        """Give the request up: the connection is closed, since its answer would come late."""

    def pause_body(self) -> None: ...

    def resume_body(self) -> None: ...
