"""Pages lead where they say, and no command stands in one that nobody runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("deploy/**/*.md"))]

RUN_BY = {
    "README.md": "tests/e2e/test_first_steps.py",
    "docs/operating.md": "tests/e2e/test_operating.py",
    "docs/cookbook.md": "tests/docs/test_cookbook.py",
    "deploy/static-pod/README.md": "tests/e2e/test_static_pod.py",
    "deploy/sidecar/README.md": "tests/deploy/test_manifests.py",
}
"""Pages with shell blocks, and the test that takes its commands from the page."""

SECTIONS_RUN = {
    "First throttle", "First relay", "The operator's minute",
    "Two commands",  # by name: its targets are what CI and these tests run
    "Developing",  # downloads; says what it is for
}  # fmt: skip
"""Of the README; its test takes them one by one."""


def relative(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        leads = (page.parent / path).resolve() if path else page
        assert leads.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", leads.read_text(), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings
            }


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_whoever_shows_commands_has_them_run(page: Path) -> None:
    name, text = relative(page), page.read_text()
    if "```sh\n" not in text:
        assert name not in RUN_BY
        return
    runner = (ROOT / RUN_BY[name]).read_text()
    assert page.name in runner
    if name == "README.md":
        parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)[1:]
        shown = {
            head for head, part in zip(parts[::2], parts[1::2], strict=True) if "```sh" in part
        }
        assert shown == SECTIONS_RUN
        for section in ("First throttle", "First relay", "The operator's minute"):
            assert f'blocks("{section}")' in runner


def test_every_page_can_be_found() -> None:
    """From the README, by way of the pages it leads to."""
    found, look = set(), [ROOT / "README.md"]
    while look:
        page = look.pop()
        if page in found or page.suffix != ".md":
            continue
        found.add(page)
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target and (page.parent / target).exists():
                leads = (page.parent / target).resolve()
                look.append(leads / "README.md" if (leads / "README.md").exists() else leads)
    assert set(PAGES) <= found
