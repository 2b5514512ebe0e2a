from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from apiguard.policy.adminconfig import AdminConfig
from tests.net.admin.doors import Admin, serving, token_configs


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    """A plain port with a token for each role."""
    config = AdminConfig("127.0.0.1:0", tokens=token_configs(tmp_path), hosts=("ops.example",))
    async with serving(tmp_path, config) as running:
        yield running
