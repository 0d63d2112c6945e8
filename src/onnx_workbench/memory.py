"""Memory that the allocator keeps."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress


def trim_memory() -> None:
    """Return freed memory to the system: a parsed model or a session takes several times the size
    of its file, and Linux's allocator keeps that memory.

    See https://man7.org/linux/man-pages/man3/malloc_trim.3.html; elsewhere this does nothing.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # a C library other than GNU's
            ctypes.CDLL(None).malloc_trim(0)
