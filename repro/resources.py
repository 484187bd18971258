"""The cores and the memory that this process may use, and how its threads wait for each other.

Imports the standard library alone. The results hold in a container too, whose cgroup may allow less than the
machine has: cgroup versions 1 and 2, at any level between the process and the root.
"""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
MEMORY = Path("/proc/meminfo")
SPINS = "10000"  # of a waiting OpenMP thread before it sleeps; libgomp's default is 300,000


def cores(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """The number of CPU cores that this process may use, by its affinity (which includes cpusets) and its quota.

    A fraction of a core counts as one.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _folders("cpu", cgroups, membership):
        version_1 = [_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        quota, period = _words(folder / "cpu.max") or version_1
        if quota and period and quota > 0:  # -1: no limit
            count = min(count, math.ceil(quota / period))
    return max(1, count)


def free_memory(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP, memory: Path = MEMORY) -> float | None:
    """Main memory available without swapping, in MiB; None if the system does not report it."""
    free_bytes = []
    for line in _lines(memory):
        if line.startswith("MemAvailable:"):
            free_bytes.append(int(line.split()[1]) * 1024)
    for folder in _folders("memory", cgroups, membership):
        used = [_number(folder / f"memory.{name}") for name in ("current", "usage_in_bytes")]
        limits = [_number(folder / f"memory.{name}") for name in ("max", "high", "limit_in_bytes")]
        for limit in filter(None, limits):
            free_bytes.append(max(0, limit - max(filter(None, used), default=0) + _reclaimable_bytes(folder)))
    return min(free_bytes) / 2**20 if free_bytes else None


def waiting(environment: Mapping[str, str], crowded: bool = False) -> dict[str, str]:
    """Environment variables for how OpenMP threads wait, to be set before torch is imported.

    By default they spin for milliseconds, which on a busy machine takes the core from the thread that they wait
    for: a run becomes ten times slower. With more threads than cores (``crowded``) they do not spin at all;
    otherwise a short spin is as fast as a long one on an idle machine. Empty if ``environment`` already sets how
    they wait.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & environment.keys():
        return {}
    return {"OMP_WAIT_POLICY": "passive"} if crowded else {"GOMP_SPINCOUNT": SPINS}


def _folders(controller: str, cgroups: Path, membership: Path) -> Iterator[Path]:
    """The folders of this process's cgroups that may limit ``controller``, from its own up to the root."""
    for line in _lines(membership):
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2, alone or beside version 1
            roots = [cgroups, cgroups / "unified"]
        elif controller in controllers.split(","):
            roots = [cgroups / controllers, cgroups / controller]
        else:
            continue
        # In a container the path may be the host's, and its own folder the root.
        folder = Path(path.strip("/"))
        for root in dict.fromkeys(roots):
            yield from (root / part for part in (folder, *folder.parents))


def _reclaimable_bytes(folder: Path) -> int:
    """Bytes of a cgroup's memory that hold pages of files, which the kernel can reclaim (as in MemAvailable)."""
    values = {name: value for name, _, value in (line.partition(" ") for line in _lines(folder / "memory.stat"))}
    names = ("inactive_file", "active_file")  # version 1 has those of its children apart, with a prefix
    return sum(int(values.get(f"total_{name}", values.get(name, 0))) for name in names)


def _number(path: Path) -> int | None:
    words = _words(path)
    return words[0] if words else None


def _words(path: Path) -> list[int | None]:
    """The numbers on a file's first line, None for a word such as "max"; empty if the file cannot be read."""
    lines = _lines(path)
    return [int(word) if word.lstrip("-").isdecimal() else None for word in lines[0].split()] if lines else []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
