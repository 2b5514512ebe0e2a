"""The memory limit is found wherever the kernel says it, and shared out with room to spare."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from apiguard.runtime.cgroup import (
    LEAST_WORKER_BYTES,
    SUPERVISOR_BYTES,
    memory_limit,
    worker_limit,
)

MIB = 1 << 20
V1_NONE = "9223372036854771712\n"


def limit(files: Mapping[str, str]) -> int | None:
    return memory_limit(files.get)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, None),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "max\n"}, None),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "2147483648\n"}, 2048 * MIB),
        (
            {
                "/proc/self/cgroup": "0::/kubepods/pod1/guard\n",
                "/sys/fs/cgroup/kubepods/pod1/guard/memory.max": "max\n",
                "/sys/fs/cgroup/kubepods/pod1/memory.max": "536870912\n",
                "/sys/fs/cgroup/kubepods/memory.max": "8589934592\n",
            },
            512 * MIB,
        ),
        (
            {
                "/proc/self/cgroup": "0::/guard.service\n",
                "/sys/fs/cgroup/guard.service/memory.max": "1073741824\n",
                "/sys/fs/cgroup/guard.service/memory.high": "805306368\n",
            },
            768 * MIB,
        ),
        (
            {"/proc/self/cgroup": "0::/../../other\n", "/sys/fs/cgroup/memory.max": "268435456\n"},
            256 * MIB,
        ),
        (
            {
                "/proc/self/cgroup": "5:devices:/x\n4:memory:/docker/abc\n0::/\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n",
            },
            512 * MIB,
        ),
        (
            {
                "/proc/self/cgroup": "4:cpu,memory:/docker/abc\n",
                "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "268435456\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": V1_NONE,
            },
            256 * MIB,
        ),
        (
            {
                "/proc/self/cgroup": "4:memory:/\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": V1_NONE,
            },
            None,
        ),
        ({"/proc/self/cgroup": "garbage\n\n1:\n", "/sys/fs/cgroup/memory.max": "x"}, None),
    ],
)
def test_the_least_limit_on_the_way_up_counts(files: Mapping[str, str], found: int | None) -> None:
    assert limit(files) == found


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("mib", [512, 2048, 65_536])
def test_all_processes_together_stay_below_the_limit(mib: int, workers: int) -> None:
    each = worker_limit(mib * MIB, workers)
    assert each * workers + SUPERVISOR_BYTES <= 0.8 * mib * MIB
    assert each == 0 or each >= LEAST_WORKER_BYTES


def test_too_little_for_a_worker_is_no_limit_to_shed_by() -> None:
    assert worker_limit(128 * MIB, 1) == 0
    assert worker_limit(512 * MIB, 8) == 0
