"""Any scenario in locust's own web UI, or headless with locust's own report.

    locust -f loadtests/locustfile.py --scenario large-cluster --kubeconfig .demo/kubeconfig
    locust -f loadtests/locustfile.py --headless --html report.html --json-file report ...

The kubeconfig says which cluster, through the guard or past it. ``--scale`` multiplies clients. The
web UI listens on loopback unless ``--web-host`` says otherwise: whoever opens it can send load.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser, get_parser

from loadtests import users
from loadtests.clients.credentials import Kubeconfig
from loadtests.scenario import Scenario, ScenarioError, load, shipped

log = logging.getLogger("scenario")


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # locust's
def _add_options(parser: LocustArgumentParser) -> None:
    """None is shown in the web UI: when that is opened the clients are there already."""
    parser.set_defaults(web_host="127.0.0.1")
    parser.add_argument(
        "--scenario", default="large-cluster", env_var="LOADTEST_SCENARIO",
        help=f"a YAML file, or one of {', '.join(shipped())}", include_in_web_ui=False,
    )  # fmt: skip
    parser.add_argument(
        "--kubeconfig", default=".demo/kubeconfig", env_var="LOADTEST_KUBECONFIG",
        help="where to connect; users by the names of the clients, else its current one",
        include_in_web_ui=False,
    )  # fmt: skip
    parser.add_argument(
        "--scale", type=float, default=1.0, help="times as many clients", include_in_web_ui=False
    )


def _classes() -> dict[str, Any]:
    """What locust looks for in a locustfile: user classes and a shape, by any name."""
    options = get_parser().parse_args()
    scenario = load(options.scenario).scaled(options.scale)
    kubeconfig = _kubeconfig(Path(options.kubeconfig))
    playing = users.Playing(scenario, kubeconfig)
    number = sum(group.count for group in scenario.clients)

    @events.test_start.add_listener  # type: ignore[untyped-decorator]  # locust's
    def _begin(**_: Any) -> None:
        playing.origin = time.monotonic()
        log.info(_told(scenario, number, kubeconfig.server))

    classes = users.user_classes(playing, scenario.clients)
    shape = users.shape_of(playing, number)
    return {made.__name__: made for made in [*classes, shape]}


def _kubeconfig(path: Path) -> Kubeconfig:
    try:
        return Kubeconfig(path)
    except OSError as error:
        raise ScenarioError(
            f"{path}: {error.strerror}; start `make demo` first, or name one with --kubeconfig"
        ) from error
    except (KeyError, StopIteration) as error:
        raise ScenarioError(
            f"{path}: lacks {error.args[0] if error.args else 'what it names'}"
        ) from error


def _told(scenario: Scenario, number: int, server: str) -> str:
    return (
        f"{scenario.name}: {number} clients of {server} for {scenario.seconds:g} s. "
        f"{scenario.about}"
    )


try:
    globals().update(_classes())
except ScenarioError as problem:
    sys.exit(f"locust: {problem}")
