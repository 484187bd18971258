"""How a training process uses its memory. Does not import torch."""

import contextlib
import ctypes
import os
import platform
import re
import resource
from collections.abc import Iterator
from pathlib import Path

LEAST_MB = 2048.0  # allowed however little is free, because other processes may end
STATUS = Path("/proc/self/status")


def keep_freed_memory() -> bool:
    """Make glibc keep the memory that this process frees; returns whether it does.

    Every iteration allocates the same large tensors. By default glibc returns them to the system and faults them
    in again, page by page. Allocator settings in the environment win; other C libraries keep their behaviour.
    """
    is_configured = any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
    if is_configured or platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1))


@contextlib.contextmanager
def limited(free_mb: float | None) -> Iterator[None]:
    """While entered, this process fails to allocate more than the free memory; it would be killed, without a word.

    ``free_mb`` is what it may allocate beyond what it has, in MiB, at least ``LEAST_MB``; None: no limit. Other
    systems than Linux are left alone.
    """
    try:
        allocated = re.search(r"^VmData:\s*(\d+) kB$", STATUS.read_text(encoding="utf-8"), re.M)
    except OSError:
        allocated = None
    if free_mb is None or allocated is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = int(allocated[1]) * 1024 + int(max(free_mb, LEAST_MB) * 2**20)
    earlier = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([allowed, *earlier]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
