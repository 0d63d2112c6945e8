"""Less garbage collection: torch keeps many objects alive, and an export makes the collector look
at each of them again and again."""

import gc

import matplotlib
import pytest
from matplotlib import pyplot

gc.set_threshold(100_000, 20, 20)
matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    pyplot.close("all")
