"""``apiguard demo``: everything at once, to try."""

from __future__ import annotations

import click

from apiguard.demo.demo import run


@click.command()
@click.pass_context
def demo(context: click.Context) -> None:
    """Run the guard before an embedded API server with a synthetic cluster.

    Prints addresses and the admin token, writes .demo/kubeconfig and says what to try next.
    Ctrl-C ends all of it.
    """
    context.exit(run())
