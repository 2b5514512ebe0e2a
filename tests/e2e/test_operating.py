"""What ``docs/operating.md`` tells an operator to type works, in its order, against the demo."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.guard import until
from tests.e2e.newcomer import ROOT, Demo

pytestmark = pytest.mark.e2e

TEXT = (ROOT / "docs" / "operating.md").read_text()
NAME = "7f3a91c2"
AGENT = "careless-agent"


def sections() -> dict[str, list[str]]:
    """Shell blocks by the heading above them."""
    parts = re.split(r"^## (.*)\n", TEXT, flags=re.MULTILINE)[1:]
    return {
        heading: re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


@contextlib.contextmanager
def storm(demo: Demo, script: str) -> Iterator[None]:
    with subprocess.Popen(
        ["bash", "-c", demo.with_ports(script)],
        cwd=demo.folder,
        env=demo.environment,
        start_new_session=True,
    ) as process:
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def commands(block: str) -> list[str]:
    """A block's commands; a backslash at the end of a line continues one."""
    return re.findall(r"^(.+?)(?<!\\)$", block, re.MULTILINE | re.DOTALL)


@pytest.mark.timeout(300)
def test_every_command_works_in_its_order(demo: Demo) -> None:
    blocks = sections()
    start = f'export PATH="{demo.folder}/.venv/bin:$PATH"\n'
    ran: dict[str, str] = {}

    def run(block: str) -> str:
        """What all of the block printed."""
        out = ""
        for command in commands(block):
            ran[command] = demo.bash(start + command.replace(NAME, name))
            out += ran[command]
        return out

    name = NAME
    before = blocks.pop("Before")
    minute = blocks.pop("The minute")
    assert "yes" in run(before[0])
    assert len(minute) == 6
    with storm(demo, minute[0]):
        top = f"{start}apiguard top --over 10s --sort upstreamSeconds -o wide"
        until("the agent leads", lambda: _first(demo.bash(top)).startswith(AGENT))
        assert run(minute[1]).count(AGENT) == 2
        assert AGENT in run(minute[2])
        made = run(minute[3])
        found = re.search(r"^override/(\S+) banned", made)
        assert found is not None, made
        name = found[1]
        assert name in run(minute[4])
        assert name in run(minute[5])
        for heading, several in blocks.items():
            for block in several:
                assert run(block), heading
    typed = re.findall(r"^(?:apiguard|curl) .*", "\n".join(before + minute[1:]), re.MULTILINE)
    assert set(map(_words, typed)) <= set(map(_words, ran))
    assert '"preview"' in ran[commands(blocks["Without the command line"][0])[0]]


def _first(table: str) -> str:
    """The first line below the heading."""
    return "".join(table.splitlines()[1:2])


def _words(command: str) -> str:
    return command.splitlines()[0]
