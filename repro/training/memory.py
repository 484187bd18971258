"""How a training process uses its memory. No torch here."""

import ctypes
import os
import platform


def keep_freed_memory() -> bool:
    """Have glibc keep what this process frees; whether it does.

    Every iteration allocates the same large tensors. By default glibc gives them back to the system and faults
    them in again, page by page. What the environment says of the allocator wins; another C library is left alone.
    """
    chosen = any(k.startswith("MALLOC_") for k in os.environ) or "glibc.malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
    if chosen or platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, mmap_max = -1, -4  # malloc.h
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1))
