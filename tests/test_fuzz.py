"""A hundred damaged files: no raw exception, no crash, no hang, at most 1 GB."""

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parent.parent / "benchmarks" / "fuzz.py"


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz", FILE)
    made = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = made
    spec.loader.exec_module(made)
    yield made
    del sys.modules["fuzz"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits the memory as POSIX does")
def test_damaged_files_are_answered_or_refused(fuzz):
    """The benchmark takes a thousand."""
    ends, faults, memory = fuzz.tried(100, seed=200)
    assert faults == []
    assert memory < 1e9
    assert {door for door, _ in ends} == {"view", "load", "trace", "run", "profile", "probe"}
    assert min(ends["load", end] for end in ("answered", "refused")) > 20


def test_a_seed_gives_the_same_files_and_every_field_is_mutated(fuzz):
    assert fuzz.mutants(50, 1) == fuzz.mutants(50, 1) != fuzz.mutants(50, 2)
    every = " ".join(what for what, _ in fuzz.mutants(10**6, 1))
    for field in ("opset_import.version", "external_data.value", "metadata_props.value", "dims"):
        assert f"{field} deleted" in every
    assert "functions.node.input doubled" in every
    assert "sparse_initializer.values" in every


def test_a_raw_exception_a_crash_and_a_hang_are_faults(fuzz, monkeypatch):
    words = iter(
        [
            [[0, "view"], [0, "view", "raw KeyError at a.py:1: 'x'"], [1, "view"]],  # and no more
            [[2, "load"], [2, "load", "refused"], [3, "memory", 7]],
        ]
    )
    monkeypatch.setattr(fuzz, "_watched", lambda *_: iter(next(words)))
    ends, faults, memory = fuzz.tried(3, 1)
    assert ends == {("view", "raw"): 1, ("view", "crash or hang"): 1, ("load", "refused"): 1}
    assert [fault.rpartition(": view: ")[2][:5] for fault in faults] == ["raw K", "crash"]
    assert memory == 7
