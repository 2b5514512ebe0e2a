"""``apiguard demo``: everything at once, to try."""

from __future__ import annotations

import sys

from apiguard.ctl.parsing import Command
from apiguard.demo.demo import run


def demo(command: Command) -> None:
    """Run the guard before an embedded API server with a synthetic cluster.

    Prints addresses and the admin token, writes .demo/kubeconfig and says what to try next.
    Ctrl-C ends all of it.
    """
    command.takes(lambda given: sys.exit(run()))
