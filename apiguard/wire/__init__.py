"""Bytes <-> messages, sans-IO: no socket, loop or clock.

``messages``       what a message is on any HTTP version: RequestLine, HeaderBlock, ResponseHead,
                   and the sinks and streams through which its parts travel
``headers``        which headers travel: hop-by-hop, forwarding, identity, credentials
``heads``          message heads: request lines, header blocks, response heads
``chunked``        the chunked transfer coding
``http1_server``,
``http1_client``   the two ends of HTTP/1.1: ``receive_data`` in, calls on a sink out, bytes to
                   send collected for the runtime (``http1`` is what they share)
``frontproxy``     identities as an authenticating proxy's headers
``proxyprotocol``  who is behind a load balancer

The codec owns framing. llhttp (through httptools) vets header blocks, strictly; where a message
ends, when the next may start and how many bytes a body has is decided here, because httptools
delivers pipelined requests in one call and cannot pause, cannot be told that a response answers
HEAD, skips a declared body when Upgrade is present, reports trailers as headers and announces no
end for bodies delimited by the end of the connection.

Everything a peer is told is built anew from what was parsed: bytes of a message pass from one side
to the other unread only inside an accepted upgrade.
"""
