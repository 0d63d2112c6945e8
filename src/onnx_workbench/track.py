"""Quartiles, and torch's threads for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def quartiles_of(values: Any) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile.

    >>> quartiles_of([1, 2, 3, 4, 5])
    (2.0, 3.0, 4.0)
    """
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return low, median, high


@contextmanager
def thread_budget(wanted: int) -> Iterator[int]:
    """torch's intra-op threads for a while; gives what torch says it got, and puts it back."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
