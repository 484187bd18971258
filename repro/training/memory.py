"""How a training process uses its memory. Does not import torch."""

import ctypes
import os
import platform


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
