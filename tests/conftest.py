"""Less garbage collection: torch keeps many objects alive, and an export makes the collector look
at each of them again and again."""

import gc

gc.set_threshold(100_000, 20, 20)
