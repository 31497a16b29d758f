"""What a process does with memory that it has freed. Knows nothing of what it holds."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Give freed memory to the next allocation, never back to the system; nothing where there is no glibc.

    By default glibc maps every large tensor anew and gives it back after use, so the system clears the same pages over
    and over: a training step on a CPU takes 1.1 to 1.4 times as long (benchmarks/freed_memory.py). The price: a
    process stays as large as it once was. See mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, NEVER)
