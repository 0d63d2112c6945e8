"""Imports torch once, in the process from which workers are forked, and times the import."""

import gc
import os
from time import perf_counter

from .worker import POOLS

os.environ.update(dict.fromkeys(POOLS, "1"))  # workers set the threads of torch themselves
_start = perf_counter()
import torch  # noqa: E402, F401

SECONDS = perf_counter() - _start
gc.freeze()  # so that garbage collection in a worker does not copy shared pages
