"""The virtual CPU: shares, totals, collapse and recovery."""

from __future__ import annotations

import random

import pytest

from apiguard.demo.capacity import CapacitySpec, Job, VirtualCpu

SPEC = CapacitySpec(cores=2.0)


def submit(cpu: VirtualCpu, now: float, work: float, size: int = 0) -> Job:
    job = cpu.submit(now, work, size)
    assert job is not None
    return job


def run_to_end(cpu: VirtualCpu) -> dict[Job, float]:
    """When each job ended."""
    ended: dict[Job, float] = {}
    while (when := cpu.next_end()) is not None:
        for job in cpu.advance(when + 1e-9):
            ended[job] = when
    return ended


def test_jobs_up_to_the_number_of_cores_do_not_slow_each_other() -> None:
    cpu = VirtualCpu(SPEC)
    jobs = [submit(cpu, 0.0, 1.0), submit(cpu, 0.0, 2.0)]
    ended = run_to_end(cpu)
    assert [ended[job] for job in jobs] == pytest.approx([1.0, 2.0], abs=1e-6)


def test_more_jobs_than_cores_share_them() -> None:
    """Four jobs of one second on two cores take two seconds; a short one leaves early."""
    cpu = VirtualCpu(SPEC)
    long = [submit(cpu, 0.0, 1.0) for _ in range(3)]
    short = submit(cpu, 0.0, 0.25)
    ended = run_to_end(cpu)
    assert ended[short] == pytest.approx(0.5, abs=1e-6)
    assert [ended[job] for job in long] == pytest.approx([1.625] * 3, abs=1e-6)


def test_a_cancelled_job_gives_its_share_back() -> None:
    cpu = VirtualCpu(CapacitySpec(cores=1.0))
    kept, left = submit(cpu, 0.0, 1.0), submit(cpu, 0.0, 1.0)
    cpu.cancel(1.0, left)
    assert run_to_end(cpu)[kept] == pytest.approx(1.5, abs=1e-6)
    assert cpu.load(2.0).inflight == 0


@pytest.mark.parametrize("seed", range(5))
def test_no_more_work_is_done_than_the_cores_can_do(seed: int) -> None:
    rng = random.Random(seed)
    cpu = VirtualCpu(SPEC)
    now, total = 0.0, 0.0
    for _ in range(200):
        now += rng.expovariate(50.0)
        work = rng.expovariate(20.0)
        total += work
        submit(cpu, now, work)
    last = max(run_to_end(cpu).values())
    assert last >= total / SPEC.cores - 1e-6, f"seed {seed}"
    assert cpu.cpu_seconds == pytest.approx(total)


def test_a_40_mb_list_costs_what_was_measured() -> None:
    """0.56 to 0.67 CPU-seconds as JSON, 0.37 compressed."""
    cpu = VirtualCpu(SPEC)
    assert 0.56 <= cpu.list_cost(40_000_000, gzip=False) <= 0.67
    assert cpu.list_cost(40_000_000, gzip=True) == pytest.approx(0.37, abs=0.01)


def test_too_many_lists_at_once_collapse_the_server_and_it_recovers_slowly() -> None:
    cpu = VirtualCpu(CapacitySpec(cores=2.0, memory_limit=1 << 30, restart=5.0, recovery=30.0))
    lists = 0
    while cpu.submit(0.0, 0.6, 40_000_000) is not None:
        lists += 1
    assert 1 <= lists <= 3
    assert cpu.collapses == 1
    assert cpu.down(4.9)
    assert not cpu.down(5.1)
    cpu.advance(5.0)
    job = submit(cpu, 5.0, 1.0)
    cold = run_to_end(cpu)[job] - 5.0
    assert 2.5 < cold < 5.0
    cpu.advance(60.0)
    job = submit(cpu, 60.0, 1.0)
    assert run_to_end(cpu)[job] == pytest.approx(61.0, abs=1e-6)


def test_memory_is_given_back() -> None:
    cpu = VirtualCpu(SPEC)
    before = cpu.load(0.0).memory
    submit(cpu, 0.0, 0.1, 10_000_000)
    assert cpu.load(0.0).memory == before + 50_000_000
    run_to_end(cpu)
    assert cpu.load(1.0).memory == before


def test_requests_beyond_the_inflight_limit_are_refused() -> None:
    cpu = VirtualCpu(CapacitySpec(max_inflight=2))
    submit(cpu, 0.0, 1.0)
    assert not cpu.overloaded()
    submit(cpu, 0.0, 1.0)
    assert cpu.overloaded()
