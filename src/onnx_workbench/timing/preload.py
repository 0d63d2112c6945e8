"""Imports torch once, in the process from which workers are forked, and keeps the time it took."""

import gc
import os
from time import perf_counter

from .worker import POOLS

os.environ.update(dict.fromkeys(POOLS, "1"))  # workers set the threads of torch themselves
_start = perf_counter()
import torch  # noqa: E402, F401

SECONDS = perf_counter() - _start
gc.freeze()  # so that no collection in a worker copies the pages that it shares
