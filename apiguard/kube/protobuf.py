"""Kubernetes' binary envelope and the two protobuf wire types its Status needs.

Body: magic, then ``runtime.Unknown`` {1 typeMeta {1 apiVersion, 2 kind}, 2 raw, 3 contentEncoding,
4 contentType}; kube-apiserver's generated code writes empty strings and zeros too. Source:
k8s.io/apimachinery/pkg/runtime/serializer/protobuf/protobuf.go. Written by hand because a protobuf
library, its descriptors and its import time would serve one message.
"""

from __future__ import annotations

MAGIC = b"k8s\x00"

_VARINT = 0
_LENGTH_DELIMITED = 2


def varint(number: int) -> bytes:
    """``number`` (not negative) in base 128, low group first."""
    if number < 0:
        raise ValueError("a negative varint would need ten bytes")
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def integer_field(number: int, value: int) -> bytes:
    """Field ``number`` holding an int32 or int64 that is not negative."""
    return varint(number << 3 | _VARINT) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """Field ``number`` holding bytes or an embedded message."""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(len(value)) + value


def string_field(number: int, value: str) -> bytes:
    """Field ``number`` holding text; lone surrogates, which UTF-8 lacks, become ``?``."""
    return bytes_field(number, value.encode("utf-8", "replace"))


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    """``raw``, one encoded object, as a response body."""
    type_meta = string_field(1, api_version) + string_field(2, kind)
    return b"".join(
        (
            MAGIC,
            bytes_field(1, type_meta),
            bytes_field(2, raw),
            string_field(3, ""),
            string_field(4, ""),
        )
    )
