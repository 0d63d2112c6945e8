"""This machine: what versions and processor a result is from, and freed memory."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from contextlib import suppress
from importlib import metadata

from .formatting import plural

_PACKAGES = (
    "onnx-workbench",
    "torch",
    "onnx",
    "onnxscript",
    "onnx-ir",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
    "cloudpickle",
)


def packages() -> dict[str, str]:
    """The versions of those packages that decide on a result, if they are installed.

    >>> next(iter(packages()))
    'onnx-workbench'
    """
    found = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def versions() -> dict[str, str]:
    """The machine as ``platform``, and the versions of Python and of the packages.

    >>> list(versions())[:3]
    ['python', 'platform', 'onnx-workbench']
    """
    cores = plural(os.cpu_count() or 1, "core")
    machine = f"{platform.system()} on {platform.machine()}, {cores}"
    return {"python": platform.python_version(), "platform": machine, **packages()}


def trim_memory() -> None:
    """Return freed memory to the system: a parsed model or a session takes several times the size
    of its file, and Linux's allocator keeps that memory.

    See https://man7.org/linux/man-pages/man3/malloc_trim.3.html; elsewhere this does nothing.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # a C library other than GNU's
            ctypes.CDLL(None).malloc_trim(0)
