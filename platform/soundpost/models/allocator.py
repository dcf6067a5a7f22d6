"""Keep the memory that a model's layers hand back, instead of asking the kernel for it anew.

glibc returns each large block at once, so that every layer of every batch pays for fresh pages:
docs/experiments.md has the measurement.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import lru_cache

# The parameters of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGEST_BLOCK_BYTES = 1 << 30
_SPARE_BYTES = 64 << 20


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory for the next batch; False where the C library is another.

    Settings in the environment (MALLOC_MMAP_THRESHOLD_ and the like) come before and are replaced.
    """
    name = ctypes.util.find_library("c")
    if name is None:
        return False
    mallopt = getattr(ctypes.CDLL(name), "mallopt", None)
    if mallopt is None:
        return False
    wanted = (
        (_MMAP_THRESHOLD, _LARGEST_BLOCK_BYTES),
        (_TRIM_THRESHOLD, _LARGEST_BLOCK_BYTES),
        (_TOP_PAD, _SPARE_BYTES),
    )
    accepted = [mallopt(parameter, value) == 1 for parameter, value in wanted]
    return all(accepted)
