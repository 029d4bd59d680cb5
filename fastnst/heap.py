"""What the C library keeps of freed memory."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def return_unused() -> None:
    """Hand freed memory back to the system now, and from now on blocks of 16 MB and more at once (glibc only).

    By itself glibc keeps freed blocks of up to 32 MB in a heap full of holes, which stay resident. With a limit below
    16 MB it maps the workspace of every convolution anew, whose first touch costs as much as the work.
    """
    try:
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, 16 * 2**20)
        library.mallopt(M_TRIM_THRESHOLD, 16 * 2**20)
        library.malloc_trim(0)
    except (OSError, AttributeError):
        return
