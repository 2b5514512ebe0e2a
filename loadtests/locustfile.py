"""Any scenario in locust's own web UI, or headless with locust's own report.

    locust -f loadtests/locustfile.py --scenario large-cluster --kubeconfig .demo/kubeconfig
    locust -f loadtests/locustfile.py --headless --html report.html --json-file report ...

The kubeconfig says which cluster, through the guard or past it. ``--scale`` multiplies clients.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser, parse_options

from loadtests import users
from loadtests.clients.credentials import Kubeconfig
from loadtests.scenario import load, shipped


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # locust's
def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--scenario", default="large-cluster", env_var="LOADTEST_SCENARIO",
        help=f"a YAML file, or one of {', '.join(shipped())}",
    )  # fmt: skip
    parser.add_argument(
        "--kubeconfig", default=".demo/kubeconfig", env_var="LOADTEST_KUBECONFIG",
        help="where to connect; users by the names of the clients, else its current one",
    )  # fmt: skip
    parser.add_argument("--scale", type=float, default=1.0, help="times as many clients")


def _classes() -> dict[str, Any]:
    """What locust looks for in a locustfile: user classes and a shape, by any name."""
    options = parse_options()
    scenario = load(options.scenario).scaled(options.scale)
    playing = users.Playing(scenario, Kubeconfig(Path(options.kubeconfig)))

    @events.test_start.add_listener  # type: ignore[untyped-decorator]  # locust's
    def _begin(**_: Any) -> None:
        playing.origin = time.monotonic()

    classes = users.user_classes(playing, scenario.clients)
    shape = users.shape_of(playing, sum(group.count for group in scenario.clients))
    return {made.__name__: made for made in [*classes, shape]}


globals().update(_classes())
