"""``apiguard serve``: joins supervisor and admin into one process."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import apiguard
from apiguard.admin.app import AdminServer
from apiguard.admin.views import joined
from apiguard.commands.reading import EXIT_CODES, or_exit, read_settings
from apiguard.ctl.parsing import Command, Given
from apiguard.errors import ApiguardError, ConfigError
from apiguard.policy.config import GuardConfig
from apiguard.runtime.keeper import PolicyKeeper
from apiguard.runtime.log import Bridge, StreamLog
from apiguard.runtime.statestore import StateStore
from apiguard.runtime.supervisor import Supervisor


def serve(command: Command) -> None:
    """Run the guard: traffic port, admin port, workers.

    Logs are JSON lines on stderr. SIGTERM or SIGINT drains and exits 0, a second one ends at
    once. SIGHUP reloads the policy file; certificates, tokens and key sets are followed anyway.
    Other settings need a restart.

    Example:
      apiguard serve --config /etc/apiguard/guard.yaml
    """
    command.add_argument("--config", required=True, metavar="FILE", help="GuardConfig to run.")
    command.takes(_run, epilog=EXIT_CODES)


def _run(given: Given) -> None:
    path = str(
        Path(given.config).absolute()
    )  # workers resolve paths in the configuration against it
    text, config = or_exit(lambda: read_settings(path))
    log = StreamLog()
    Bridge(log).install()
    try:
        code = asyncio.run(_serve(config, text, path, log))
    except ConfigError as error:
        for problem in error.problems:
            log.error("cannot start", reason=str(problem))
        code = 1
    except ApiguardError as error:
        log.error("cannot start", reason=str(error))
        code = 1
    finally:
        log.close()
    sys.exit(code)


async def _serve(config: GuardConfig, text: str, path: str, log: StreamLog) -> int:
    """Everything that can be wrong is found before the first worker starts."""
    store = StateStore(config.state_dir)
    try:
        keeper = PolicyKeeper(store, config.policy_file, log)
        keeper.start()
        supervisor = Supervisor(config, text, path, keeper, log)
        admin = AdminServer(config.admin, supervisor, log)
        supervisor.open()
        admin.open()
        _log_settings(config, supervisor, admin, log)
        await admin.start()
        try:
            return await supervisor.run()
        finally:
            await admin.stop()
    finally:
        store.close()


def _log_settings(
    config: GuardConfig, supervisor: Supervisor, admin: AdminServer, log: StreamLog
) -> None:
    """The effective settings, without secrets."""
    if config.listen.tls is None:
        log.warning("listen.tls is absent: plain HTTP, over which kubectl sends no credentials")
    active = supervisor.keeper.active
    log.info(
        "starting",
        version=apiguard.__version__,
        listen=joined(*supervisor.address),
        tls=config.listen.tls is not None,
        admin=joined(*admin.address),
        upstream=", ".join(config.upstream.servers),
        workers=config.workers,
        enforcement=supervisor.enforcement,
        stateDir=config.state_dir,
        policyFile=config.policy_file,
        generation=active.revision.generation,
        digest=active.revision.policy_digest,
        policyWhy=active.why,
        firstStart=supervisor.keeper.first_start,
    )
