"""Text that clients chose, made harmless for the operator's terminal.

A user-agent may hold escape sequences that move the cursor, rename the window or repaint another
row, and characters that reorder what stands beside them. Every such character is shown as its
code. What is printed goes through here, whoever sent it: the guard escapes too, but a command line
must not rest on the version of the guard it asks.
"""

from __future__ import annotations


def printable(text: str) -> str:
    r"""``text`` with everything that is not a visible character or a blank as ``\x1b``, ``\u202e``.

    Visible is what Unicode calls printable: no control, format, surrogate or private character,
    no line or paragraph separator.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _code(ord(c)) for c in text)


def printable_lines(text: str) -> str:
    """As ``printable``, keeping line feeds and tabs: for files shown as they are."""
    return "\n".join(
        "\t".join(printable(part) for part in line.split("\t")) for line in text.split("\n")
    )


def _code(point: int) -> str:
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
