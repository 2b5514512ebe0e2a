"""``python -m apiguard.demo.apiserver``: the embedded API server as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click
import uvloop
from cryptography import x509

from apiguard.demo.apiserver import ApiServerOptions, EmbeddedApiServer
from apiguard.demo.authentication import read_tokens
from apiguard.demo.authorization import viewer_rule
from apiguard.demo.capacity import CapacitySpec
from apiguard.demo.certs import server_context
from apiguard.demo.cluster import Cluster, ClusterSpec

CHURN_EVERY = 0.1  # seconds
# Groups that may read everything but secrets; system:masters may do everything.
READERS = ("viewers", "system:serviceaccounts:monitoring")
LISTENING = "listening on"


@dataclass(frozen=True, slots=True)
class Serving:
    """A server and the cluster behind it."""

    server: ApiServerOptions
    cluster: ClusterSpec


async def serve(serving: Serving) -> None:
    """Runs until SIGTERM or SIGINT. Raises OSError when the port is taken."""
    server = EmbeddedApiServer(serving.server)
    server.authorizer.rules.append(viewer_rule(*READERS))
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


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=7445, show_default=True, help="Port; 0 lets the kernel choose.")
@click.option("--cert", type=_FILE, help="PEM certificate; with --key serves TLS.")
@click.option("--key", type=_FILE, help="PEM private key.")
@click.option("--client-ca", type=_FILE, help="PEM authority of client certificates.")
@click.option("--tokens", type=_FILE, help='Static tokens: token,user,uid,"group,group".')
@click.option("--anonymous/--no-anonymous", default=True, help="Accept requests without identity.")
@click.option("--everybody", is_flag=True, help="Allow everything to everybody.")
@click.option("--nodes", default=20, show_default=True)
@click.option("--namespaces", default=8, show_default=True)
@click.option("--pods", default=400, show_default=True)
@click.option("--services", default=40, show_default=True)
@click.option("--pod-bytes", default=4096, show_default=True, help="JSON size of a pod, about.")
@click.option("--updates", default=5.0, show_default=True, help="Pod changes per second.")
@click.option("--seed", default=7, show_default=True, help="Same seed, same cluster.")
@click.option("--history", default=10_000, show_default=True, help="Changes kept per resource.")
@click.option("--bookmark-every", default=60.0, show_default=True, help="Seconds; of each watch.")
@click.option("--cores", default=0.0, show_default=True, help="Virtual cores; 0: unlimited.")
@click.option("--memory-limit", default=4096, show_default=True, help="MiB before it collapses.")
def main(
    host: str,
    port: int,
    cert: Path | None,
    key: Path | None,
    client_ca: Path | None,
    tokens: Path | None,
    anonymous: bool,
    everybody: bool,
    nodes: int,
    namespaces: int,
    pods: int,
    services: int,
    pod_bytes: int,
    updates: float,
    seed: int,
    history: int,
    bookmark_every: float,
    cores: float,
    memory_limit: int,
) -> None:
    """Serve a synthetic Kubernetes cluster to try and to measure apiguard against.

    Prints "listening on URL" once it serves; SIGTERM or Ctrl-C ends it. Faults are set from this
    machine:

    \b
      curl -X POST URL/demo/faults -d '{"faults": [{"verbs": ["list"], "delay": 2.0}]}'
      curl -X POST URL/demo/faults -d '{"failingChecks": ["etcd"]}'
      curl -X POST URL/demo/faults -d '{"actions": ["endWatches", "compact"]}'
      curl -X DELETE URL/demo/faults
    """
    if (cert is None) != (key is None):
        raise click.UsageError("--cert and --key belong together")
    authority = client_ca.read_bytes() if client_ca is not None else b""
    capacity = CapacitySpec(cores=cores, memory_limit=memory_limit << 20) if cores else None
    server = ApiServerOptions(
        host=host,
        port=port,
        tls=server_context(cert, key, client_authorities=authority) if cert and key else None,
        tokens=read_tokens(tokens.read_text()) if tokens is not None else {},
        anonymous=anonymous,
        everybody=everybody,
        clients=tuple(x509.load_pem_x509_certificates(authority)) if authority else (),
        capacity=capacity,
        demo_faults=True,
        history=history,
        seed=seed,
        bookmark_every=bookmark_every,
    )
    cluster = ClusterSpec(
        nodes=nodes,
        namespaces=namespaces,
        pods=pods,
        services=services,
        pod_bytes=pod_bytes,
        pod_updates=updates,
        pod_replacements=updates / 10,
        seed=seed,
    )
    try:
        uvloop.run(serve(Serving(server, cluster)))
    except OSError as error:
        print(f"apiserver: {host}:{port}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
