"""What holds for each test: little garbage collection, and random numbers of its own."""

import gc
import sys

import matplotlib
import pytest
from matplotlib import pyplot

# torch keeps many objects alive, and an export makes the collector look at them again and again.
gc.set_threshold(100_000, 20, 20)
matplotlib.use("Agg")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """The numbers that a test and its fixtures draw depend on no test before it."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    pyplot.close("all")
