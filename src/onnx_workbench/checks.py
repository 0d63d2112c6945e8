"""What the options of a door may be, checked before any work begins."""

from __future__ import annotations

import math
import os
from numbers import Integral, Real
from typing import Any

from .errors import InputError
from .formatting import kind_of

_POOLS = 4
"""Threads for each core of the machine, beyond which a pool only takes the machine along."""


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number of ``least`` or more.

    >>> whole("times", 3)
    3
    """
    if isinstance(value, Integral) and not isinstance(value, bool) and value >= least:
        return int(value)
    raise InputError(f"{name} is {value!r:.80}; it must be a whole number of {least} or more.")


def threads(value: Any) -> int:
    """A number of threads that this machine can run: up to four for each core.

    >>> threads(100_000)
    Traceback (most recent call last):
    onnx_workbench.errors.InputError: threads is 100000; it must be a whole number of 1 or more, ...
    """
    most = _POOLS * (os.cpu_count() or 1)
    count = whole("threads", value)
    if count > most:
        raise InputError(
            f"threads is {count}; it must be a whole number of 1 or more, and at most {most} here: "
            f"{_POOLS} for each core. Pass the number of cores or less."
        )
    return count


def number(name: str, value: Any, zero: bool = False) -> float:
    """A finite number above 0, or from 0 on.

    >>> number("seconds", 2)
    2.0
    """
    real = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if real and (value > 0 or (zero and value == 0)):
        return float(value)
    least = "a number of 0 or more" if zero else "more than 0"
    raise InputError(f"{name} is {value!r:.80}; it must be {least}.")


def module(door: str, model: Any) -> None:
    """Raises InputError for a torch.nn.Module whose ``__init__`` never called that of its base."""
    if not hasattr(model, "_parameters"):
        raise InputError(
            f"{door}() was given {kind_of(model)} whose __init__ does not call super().__init__(). "
            "Call it first there: torch.nn.Module keeps its tensors in it."
        )
