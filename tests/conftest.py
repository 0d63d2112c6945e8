"""Less garbage collection: torch keeps 400,000 objects alive, and a look at each of them again and
again is a third of the time of an export."""

import gc

gc.set_threshold(100_000, 20, 20)
