"""What the C library does with memory that is freed."""

import ctypes
import os
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as in glibc's malloc.h
_OF_THE_USER = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")


@cache
def keep_freed() -> bool:
    """Whether the process now keeps up to half a gigabyte of freed memory, to take it again; with glibc only.

    A gradient takes and frees megabytes, and glibc gives them back to the system at once: each page is then fetched
    and zeroed anew at the next step, a tenth of the gradient of a convolutional network on a CPU and a few per cent of
    the update of a small one. Training and evaluation call this. Settings in the user's environment are left alone.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _OF_THE_USER):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 32 << 20)) and bool(mallopt(_TRIM_THRESHOLD, 512 << 20))
