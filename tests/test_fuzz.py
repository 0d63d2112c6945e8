"""A hundred damaged files: no raw exception, no crash, no hang, at most 1 GB."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
fuzz = pytest.importorskip("fuzz", exc_type=ModuleNotFoundError)  # Windows limits no memory


def test_damaged_files_are_answered_or_refused():
    """The benchmark takes a thousand."""
    ends, faults, memory = fuzz.tried(fuzz.mutants(100, seed=200))
    assert faults == []
    assert memory < 1e9
    assert {door for door, _ in ends} == {"view", "load", "trace", "run", "profile", "probe"}
    assert min(ends["load", end] for end in ("answered", "refused")) > 20


def test_a_seed_gives_the_same_files_and_every_field_is_mutated():
    assert fuzz.mutants(50, 1) == fuzz.mutants(50, 1) != fuzz.mutants(50, 2)
    every = " ".join(what for what, _ in fuzz.mutants(10**6, 1))
    for field in ("opset_import.version", "external_data.value", "metadata_props.value", "dims"):
        assert f"{field} deleted" in every
    assert "functions.node.input doubled" in every
    assert "sparse_initializer.values" in every


def test_a_raw_exception_a_crash_and_a_hang_are_faults():
    assert fuzz.outcome(lambda: {}["x"]).startswith("raw KeyError at test_fuzz.py:")
    log = "view: answered\nload: "  # and no more
    assert [*fuzz.told(log)] == [("view", "answered"), ("load", "crash or hang")]
