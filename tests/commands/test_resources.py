"""What a process may use, from fake trees of cgroups."""

import os

import pytest

from repro import resources

GB = 2**30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function: the lines of /proc/self/cgroup and files of /sys/fs/cgroup -> cores and free megabytes.

    The machine itself has 64 cores and 200 GB.
    """
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)

    def ask(membership, files, affinity=None):
        if affinity:
            monkeypatch.setattr(os, "sched_getaffinity", lambda pid: affinity)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        (tmp_path / "membership").write_text(membership)
        (tmp_path / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {200 * 2**20} kB\n")
        where = (tmp_path / "cgroup", tmp_path / "membership")
        return resources.cores(*where), resources.free_memory(*where, tmp_path / "meminfo")

    return ask


def test_without_limits_it_is_the_machine(machine):
    assert machine("", {}) == (64, 200 * 1024)
    assert machine("0::/\n", {"cpu.max": "max 100000", "memory.max": "max", "memory.current": GB}) == (
        64,
        200 * 1024,
    )
    unlimited = {"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100_000,
                 "memory/memory.limit_in_bytes": 9223372036854771712, "memory/memory.usage_in_bytes": GB}  # fmt: skip
    assert machine("2:cpu:/\n4:memory:/\n", unlimited) == (64, 200 * 1024)


def test_cpusets_are_in_the_affinity(machine):
    assert machine("", {}, affinity={3, 5})[0] == 2


@pytest.mark.parametrize(("quota", "cores"), [(50_000, 1), (100_000, 1), (150_000, 2), (800_000, 8), (10**9, 64)])
def test_a_quota_is_rounded_up_to_whole_cores(machine, quota, cores):
    assert machine("0::/\n", {"cpu.max": f"{quota} 100000"})[0] == cores
    assert machine("0::/\n", {"cpu.max": f"{quota} 100000"}, affinity={1, 2})[0] == min(cores, 2)


def test_version_2_is_limited_at_every_level(machine):
    job = {"slurm/job1/cpu.max": "300000 100000", "slurm/job1/memory.max": 3 * GB, "slurm/job1/memory.current": GB}
    step = {"slurm/job1/step0/cpu.max": "max 100000", "slurm/job1/step0/memory.max": "max"}
    assert machine("0::/slurm/job1/step0\n", {**job, **step}) == (3, 2 * 1024)
    high = {"slurm/job1/step0/memory.high": 2 * GB, "slurm/job1/step0/memory.current": GB}
    assert machine("0::/slurm/job1/step0\n", high)[1] == 1024


def test_version_1_has_a_tree_a_controller(machine):
    files = {
        "cpu,cpuacct/docker/a/cpu.cfs_quota_us": 250_000,
        "cpu,cpuacct/docker/a/cpu.cfs_period_us": 100_000,
        "memory/docker/a/memory.limit_in_bytes": 3 * GB,
        "memory/docker/a/memory.usage_in_bytes": 2 * GB,
    }
    assert machine("5:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n1:name=systemd:/docker/a\n", files) == (3, 1024)


def test_in_a_container_the_root_is_its_own(machine):
    """Version 1 tells the host's path, which is not there."""
    files = {"cpu/cpu.cfs_quota_us": 200_000, "cpu/cpu.cfs_period_us": 100_000,
             "memory/memory.limit_in_bytes": 4 * GB, "memory/memory.usage_in_bytes": GB}  # fmt: skip
    assert machine("5:memory:/docker/8f\n3:cpu:/docker/8f\n0::/\n", files) == (2, 3 * 1024)


def test_pages_of_files_give_way(machine):
    pages = f"anon 5\ninactive_file {GB // 2}\nactive_file {GB // 2}\n"
    files = {"memory.max": 3 * GB, "memory.current": 3 * GB, "memory.stat": pages}
    assert machine("0::/\n", files)[1] == 1024
    assert machine("0::/\n", {**files, "memory.current": 5 * GB})[1] == 0.0  # over its limit: none is free


def test_threads_wait_for_each_other_shortly_unless_the_environment_says_how():
    assert resources.waiting({}) == {"GOMP_SPINCOUNT": resources.SPINS}
    assert resources.waiting({}, crowded=True) == {"OMP_WAIT_POLICY": "passive"}
    for own in ({"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "infinity"}):
        assert resources.waiting(own) == resources.waiting(own, crowded=True) == {}
