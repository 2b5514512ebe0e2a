"""``apiguard`` within this process: what it printed, and its exit code."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import NamedTuple

from apiguard.cli import run


class Result(NamedTuple):
    """``output`` is stdout and stderr as a terminal would show them."""

    exit_code: int
    stdout: str
    stderr: str
    output: str


def invoke(*arguments: str, stdin: str | None = None) -> Result:
    """Whatever it raises beside SystemExit is raised: it would have been a traceback."""
    both, out, err = io.StringIO(), io.StringIO(), io.StringIO()
    with (
        _reading(stdin or ""),
        contextlib.redirect_stdout(_Tee(out, both)),
        contextlib.redirect_stderr(_Tee(err, both)),
    ):
        try:
            code = run(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Result(code, out.getvalue(), err.getvalue(), both.getvalue())


class _Tee(io.StringIO):
    """Writes to several texts."""

    def __init__(self, *texts: io.StringIO) -> None:
        super().__init__()
        self._texts = texts

    def write(self, text: str) -> int:
        for each in self._texts:
            each.write(text)
        return len(text)


@contextlib.contextmanager
def _reading(text: str) -> Iterator[None]:
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")
    try:
        yield
    finally:
        sys.stdin = before
