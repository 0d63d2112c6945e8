"""What was freed -> back to the system."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress


def give_back() -> None:
    """A parsed model takes several times its file, and Linux's allocator keeps what is freed.

    See https://man7.org/linux/man-pages/man3/malloc_trim.3.html; elsewhere nothing is done.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # a C library that is not GNU's
            ctypes.CDLL(None).malloc_trim(0)
