"""``python -m apiguard.demo.apiserver``: the embedded API server as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop
from cryptography import x509

from apiguard.demo.apiserver import ApiServerOptions, EmbeddedApiServer
from apiguard.demo.authentication import read_tokens
from apiguard.demo.authorization import reviewer_rule, viewer_rule
from apiguard.demo.capacity import CapacitySpec
from apiguard.demo.certs import server_context
from apiguard.demo.cluster import Cluster, ClusterSpec

CHURN_EVERY = 0.1  # seconds
# Groups that may read everything but secrets; system:masters may do everything.
READERS = ("viewers", "system:serviceaccounts:monitoring", "apiguard")
LISTENING = "listening on"


@dataclass(frozen=True, slots=True)
class Serving:
    """A server and the cluster behind it."""

    server: ApiServerOptions
    cluster: ClusterSpec


async def serve(serving: Serving) -> None:
    """Runs until SIGTERM or SIGINT. Raises OSError when the port is taken."""
    server = EmbeddedApiServer(serving.server)
    server.authorizer.rules += [viewer_rule(*READERS), reviewer_rule("apiguard")]
    cluster = Cluster(server.store, serving.cluster)
    cluster.populate(time.time())
    await server.start()
    print(f"{LISTENING} {server.url}", flush=True)
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    try:
        await keep_changing(cluster, ending)
    finally:
        await server.stop()


async def keep_changing(cluster: Cluster, ending: asyncio.Event) -> None:
    """Churns the cluster until ``ending`` is set."""
    while not ending.is_set():
        cluster.churn(time.time())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), CHURN_EVERY)


DESCRIPTION = """\
Serve a synthetic Kubernetes cluster to try and to measure apiguard against.

Prints "listening on URL" once it serves; SIGTERM or Ctrl-C ends it. Faults are set from this
machine:

  curl -X POST URL/demo/faults -d '{"faults": [{"verbs": ["list"], "delay": 2.0}]}'
  curl -X POST URL/demo/faults -d '{"failingChecks": ["etcd"]}'
  curl -X POST URL/demo/faults -d '{"actions": ["endWatches", "compact"]}'
  curl -X DELETE URL/demo/faults
"""
NUMBERS = {
    "--port": (7445, "port; 0 lets the kernel choose"),
    "--nodes": (20, "of the cluster"),
    "--namespaces": (8, "of the cluster"),
    "--pods": (400, "of the cluster"),
    "--services": (40, "of the cluster"),
    "--pod-bytes": (4096, "JSON size of a pod, about"),
    "--updates": (5.0, "pod changes per second"),
    "--seed": (7, "same seed, same cluster"),
    "--history": (10_000, "changes kept per resource"),
    "--bookmark-every": (60.0, "seconds; of each watch"),
    "--cores": (0.0, "virtual cores; 0: unlimited"),
    "--memory-limit": (4096, "MiB before it collapses"),
}
FILES = {
    "--cert": "PEM certificate; with --key serves TLS",
    "--key": "PEM private key",
    "--client-ca": "PEM authority of client certificates",
    "--tokens": 'static tokens: token,user,uid,"group,group"',
}


def main() -> None:
    parser = _parser()
    given = parser.parse_args()
    if (given.cert is None) != (given.key is None):
        parser.error("--cert and --key belong together")
    try:
        uvloop.run(serve(Serving(_server(given), _cluster(given))))
    except OSError as error:
        place = f"{given.host}:{given.port}"
        print(f"apiserver: {place}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m apiguard.demo.apiserver",
        description=DESCRIPTION,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    for flag, (number, said) in NUMBERS.items():
        parser.add_argument(flag, type=type(number), default=number, metavar="N", help=said)
    for flag, said in FILES.items():
        parser.add_argument(flag, type=_file, metavar="FILE", help=said)
    parser.add_argument(
        "--anonymous",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="accept requests without identity",
    )
    parser.add_argument("--everybody", action="store_true", help="allow everything to everybody")
    return parser


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    return path


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


def _server(given: argparse.Namespace) -> ApiServerOptions:
    authority = given.client_ca.read_bytes() if given.client_ca else b""
    memory = given.memory_limit << 20
    return ApiServerOptions(
        host=given.host,
        port=given.port,
        tls=server_context(given.cert, given.key, client_authorities=authority)
        if given.cert
        else None,
        tokens=read_tokens(given.tokens.read_text()) if given.tokens else {},
        anonymous=given.anonymous,
        everybody=given.everybody,
        clients=tuple(x509.load_pem_x509_certificates(authority)) if authority else (),
        capacity=CapacitySpec(cores=given.cores, memory_limit=memory) if given.cores else None,
        demo_faults=True,
        history=given.history,
        seed=given.seed,
        bookmark_every=given.bookmark_every,
    )


def _cluster(given: argparse.Namespace) -> ClusterSpec:
    return ClusterSpec(
        nodes=given.nodes,
        namespaces=given.namespaces,
        pods=given.pods,
        services=given.services,
        pod_bytes=given.pod_bytes,
        pod_updates=given.updates,
        pod_replacements=given.updates / 10,
        seed=given.seed,
    )
