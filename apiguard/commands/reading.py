"""What the guard's own commands share: exit codes, and files read or one clear line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from apiguard.ctl.output import complain
from apiguard.errors import ConfigError, StartupError
from apiguard.policy.config import GuardConfig
from apiguard.runtime.reload import read_text
from apiguard.runtime.settings import parse_settings

T = TypeVar("T")

EXIT_CODES = """\
Exit codes:
  0  success
  1  configuration, policy or environment is wrong; stderr says what
  2  the command line is wrong"""


def read_settings(path: str) -> tuple[str, GuardConfig]:
    text = read_text(path, "config")
    return text, parse_settings(text, path)


def or_exit(read: Callable[[], T]) -> T:
    """What ``read`` returns, or exit 1 with what it found wrong on stderr."""
    try:
        return read()
    except ConfigError as error:
        _exit_with([str(problem) for problem in error.problems])
    except StartupError as error:
        _exit_with([str(error)])


def _exit_with(lines: list[str]) -> NoReturn:
    for line in lines:
        complain(line)
    sys.exit(1)
