"""A race at each size: told from races that were made up, and one small real run."""

from __future__ import annotations

import re
import sys

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

import onnx_workbench as ow
from onnx_workbench.errors import InputError, LoadError
from onnx_workbench.racing import sweep as sweeping
from onnx_workbench.racing.lane import Lane, Run
from onnx_workbench.racing.report import Conditions, Race
from onnx_workbench.racing.sweep import Sweep

X = torch.ones(4, 2)
WOBBLE = (1.0, 1.002, 0.998, 1.001, 0.999)


def race(threads=1, load=None, cores=4, processes=5, **microseconds):
    """Each takes so many microseconds a call, None for one that fails; the first races twice."""
    lanes = []
    for name, cost in microseconds.items():
        runs = [Run((round(1000 * cost * w),) * 9) for w in WOBBLE[:processes]] if cost else ()
        error = None if cost else RuntimeError("Got: 4 Expected: 1")
        lanes.append(Lane(name, tuple(runs), error=error))
    lanes.insert(1, Lane("a again", lanes[0].runs, control=True))
    return Race(tuple(lanes), Conditions({"chip": "x"}, threads, cores, load, stopped="in time"))


SIZES = Sweep("batch", {1: race(a=100, b=50), 4: race(a=200, b=200), 16: race(a=800, b=1600)})


def test_throughput_is_the_size_times_calls_a_second():
    assert SIZES.throughput("a", 1) == pytest.approx(1e4)
    assert SIZES.throughput("a", 16) == pytest.approx(2e4)
    assert SIZES.throughput("nobody", 1) is None
    threads = Sweep("threads", {1: race(a=100), 4: race(a=50, threads=4)})
    assert threads.throughput("a", 4) == pytest.approx(2e4)


def test_places_change_between_a_size_where_one_is_faster_and_one_where_it_is_slower():
    assert SIZES.crossovers == {"b": pytest.approx(4.0, rel=0.01)}  # alike at 4 says nothing
    steep = Sweep("batch", {1: race(a=400, b=100), 8: race(a=100, b=200)})
    assert steep.crossovers == {"b": pytest.approx(4.0, rel=0.01)}
    never = Sweep("batch", {1: race(a=100, b=50), 16: race(a=100, b=100)})
    assert never.crossovers == {}
    assert "places    none surely changed from 1 to 16\n" in repr(never)


def test_of_several_changes_the_first_counts_and_each_contestant_has_its_own():
    rows = {1: race(a=100, b=50, c=10), 2: race(a=100, b=200, c=10), 4: race(a=100, b=50, c=1e3)}
    found = Sweep("batch", rows).crossovers
    assert found["b"] == pytest.approx(2**0.5, rel=0.01)
    assert found["c"] == pytest.approx(2 * 2**0.5, rel=0.01)


def test_the_finding_names_both_ends_and_the_change():
    assert SIZES.finding == (
        "b against a: 2.00x at batch 1, 0.50x at batch 16; they change places at about batch 4"
    )
    others = Sweep("n", {1: race(a=100, b=100), 2: race(a=9, b=3, threads=4, load=3.0)})
    assert others.finding == "b against a: the same at n 1, no verdict (contended) at n 2"
    assert Sweep("n", {1: race(a=100)}).finding == "a over n"


def test_threads_scale_against_the_fewest_with_welchs_interval():
    sweep = Sweep("threads", {1: race(a=100, b=80), 4: race(a=40, b=20, threads=4)})
    gain = sweep.gain("a", 4)
    assert gain.value == pytest.approx(2.5)
    assert 2.45 < gain.low < 2.5 < gain.high < 2.55
    assert sweep.gain("a", 1) is None
    assert re.fullmatch(
        r"b is 4\.00x as fast with 4 threads as with 1 \(3\.9\dx to 4\.0\dx\)",
        sweep.finding.splitlines()[1],
    )
    assert [words.get_text() for words in sweep.plot().texts][-1] == "5 processes each"


def test_one_process_each_is_too_little_for_welch_and_widened_instead():
    sweep = Sweep("n", {1: race(a=100, processes=1), 4: race(a=100, processes=1)})
    gain = sweep.gain("a", 4)
    assert (gain.low, gain.value, gain.high) == pytest.approx((4 / 1.03, 4.0, 4 * 1.03))


def test_threads_that_had_no_cores_are_marked_and_give_no_verdict():
    sweep = Sweep("threads", {1: race(a=100, b=50), 4: race(a=40, b=20, threads=4, load=2.0)})
    assert sweep.gain("a", 4).verdict == "contended"
    assert sweep.finding.splitlines()[0].endswith(", contended)")
    assert re.search(r"(?m)^b +contended 4 .* contended$", repr(sweep))
    ax = sweep.plot()
    assert ax.lines[1].get_markerfacecolor() == "white"
    assert ax.get_xlabel() == "threads; dashed: as many times as fast; hollow: contended"
    assert [record["contended"] for record in sweep.records()] == [False] * 3 + [True] * 3


def test_one_that_fails_at_a_size_stays_in_the_table_with_its_reason():
    sweep = Sweep("batch", {1: race(a=100, static=50), 4: race(a=100, static=None)})
    assert re.search(r"(?m)^static +4( +-){6}  did not run$", repr(sweep))
    assert "did not run  static: RuntimeError: Got: 4 Expected: 1\n" in repr(sweep)
    assert sweep.finding == "static against a: 2.00x at batch 1"
    assert sweep.records()[-1]["throughput"] is None


def test_a_size_at_which_the_same_differed_from_itself_is_named():
    odd = race(a=100, b=50)
    copy = Lane("a again", tuple(Run((50_000,) * 9) for _ in WOBBLE), control=True)
    odd = Race((odd.lanes[0], copy, odd.lanes[2]), odd.conditions)
    assert "control   UNTRUSTED at 4\n" in repr(Sweep("batch", {1: race(a=100, b=50), 4: odd}))
    assert "control   agrees at every size, as it must\n" in repr(SIZES)


def test_the_report():
    assert repr(SIZES).split("\n\n")[0] == (
        """\
Sweep over batch against a
contestant  batch      p50      p99  a second   gain  ratio        interval  verdict
----------  -----  -------  -------  --------  -----  -----  --------------  ---------
a               1   100 us   100 us    10,000
a               4   200 us   200 us    20,000  2.00x
a              16   800 us   802 us    20,000  2.00x
b               1  50.0 us  50.1 us    20,000         2.00x  2.00x to 2.00x  faster
b               4   200 us   200 us    20,000  1.00x  1.00x  1.00x to 1.00x  same
b              16  1.60 ms  1.60 ms    10,000  0.50x  0.50x  0.50x to 0.50x  slower"""
    )
    assert "races     sweep.races[size]; what follows is that of 16\n" in repr(SIZES)
    assert "stopped   in time\n" in repr(SIZES)


def test_the_plot_and_the_records_hold_the_same():
    ax = SIZES.plot()
    title = ax.get_title(loc="left").replace("\n", " ")
    assert title == SIZES.finding
    rates = {record["contestant"]: record["throughput"] for record in SIZES.records()}
    assert [line.get_ydata()[-1] for line in ax.lines[:2]] == pytest.approx(
        [rates["a"], rates["b"]]
    )
    assert (ax.get_xlabel(), ax.get_ylabel().split(",")[0]) == ("batch", "batch x calls a second")
    assert [line.get_xdata()[0] for line in ax.lines[2:]] == [SIZES.crossovers["b"]]


def test_a_frame_is_the_records_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert SIZES.to_frame() == SIZES.records()


def test_a_saved_sweep_is_the_same_sweep_and_a_race_is_none(tmp_path):
    found = Sweep("batch", dict(SIZES.races), interrupted=True)
    found.save(tmp_path / "sweep.json")
    again = Sweep.load(tmp_path / "sweep.json")
    assert again == found
    assert list(again.races) == [1, 4, 16]
    SIZES.races[1].save(tmp_path / "race.json")
    with pytest.raises(LoadError) as caught:
        Sweep.load(tmp_path / "race.json")
    assert str(caught.value) == (
        "race.json is no sweep: ValueError: its format is 'onnx-workbench race 2', and "
        "'onnx-workbench sweep 2' is expected.\nWhat helps: pass a file that Sweep.save() wrote."
    )


# ---------------------------------------------------------------- the door


@pytest.fixture
def raced(monkeypatch):
    """What is raced; a race in which the test wants Ctrl-C gets it."""
    calls, interrupts = [], {}

    def pretend(contestants, inputs, threads, *common):
        calls.append((inputs, threads, common))
        if interrupts.get(len(calls)) == "before":
            raise KeyboardInterrupt
        stopped = interrupts.get(len(calls)) == "within"
        conditions = Conditions(threads=threads, interrupted=stopped)
        return [Race(race(a=100).lanes, conditions) for _ in inputs]

    monkeypatch.setattr(sweeping, "races", pretend)
    return calls, interrupts


def test_sizes_run_in_the_same_processes_in_ascending_order(raced):
    common = {"seconds": 5, "quick": True, "matters": 0.1, "seed": 3}
    found = ow.sweep({"a": abs}, lambda n: {"x": n}, n=(4, 1, 4), threads=2, **common)
    assert raced[0] == [([((), {"x": 1}), ((), {"x": 4})], 2, (5, True, 0.1, 3))]
    assert (found.over, list(found.races), found.interrupted) == ("n", [1, 4], False)


def test_each_number_of_threads_has_a_race_of_its_own(raced):
    found = ow.sweep({"a": abs}, (X, 2), threads=range(1, 4))
    assert [(inputs, threads) for inputs, threads, _ in raced[0]] == [
        ([((X, 2), {})], threads) for threads in (1, 2, 3)
    ]
    assert found.over == "threads"


@pytest.mark.parametrize(("when", "kept"), [("within", [1, 2]), ("before", [1])])
def test_ctrl_c_keeps_the_races_before_it_and_says_so(raced, when, kept):
    raced[1][2] = when
    found = ow.sweep({"a": abs}, X, threads=(1, 2, 4))
    assert list(found.races) == kept
    assert repr(found).startswith("Sweep over threads against a, interrupted: what was measured")


def test_ctrl_c_before_anything_was_measured_is_a_ctrl_c(raced):
    raced[1][1] = "before"
    with pytest.raises(KeyboardInterrupt):
        ow.sweep({"a": abs}, X, threads=(1, 2))


@pytest.mark.parametrize(
    ("inputs", "axes", "given"),
    [
        (X, {}, "nothing and inputs of type Tensor"),
        (X, {"batch": (1, 2)}, "batch=(1, 2) and inputs of type Tensor"),
        (abs, {"threads": (1, 2)}, "threads=(1, 2) and inputs of type builtin_function_or_method"),
        (abs, {"a": (1,), "b": (2,)}, "a=(1,), b=(2,) and inputs of type builtin_function_or_m"),
    ],
)
def test_there_is_one_thing_to_sweep_over(inputs, axes, given):
    with pytest.raises(InputError) as caught:
        ow.sweep({"a": abs}, inputs, **axes)
    said = str(caught.value)
    assert said.startswith(f"sweep() takes one thing to sweep over, and was given {given}")
    assert said.endswith(
        ". Write sweep(contestants, lambda batch: x[:batch], batch=(1, 4, 16)) or "
        "sweep(contestants, x, threads=(1, 2))."
    )


@pytest.mark.parametrize("sizes", [(), (0, 1), (1, 2.5), 0])
def test_a_size_is_a_whole_number(sizes):
    with pytest.raises(InputError) as caught:
        ow.sweep({"a": abs}, abs, batch=sizes)
    assert re.match(r"batch (is|has) .*whole number", str(caught.value))


def test_a_real_sweep_over_a_length_runs_each_size_and_leaves_threads_as_they_were():
    before, seen = torch.get_num_threads(), set()
    pair = {"sum": lambda x: seen.add(x.shape) or x.sum(), "max": torch.max}
    found = ow.sweep(
        pair, lambda length: torch.ones(2, length), length=(3, 9), quick=True, seconds=0.02
    )
    assert seen == {(2, 3), (2, 9)}
    assert found.names == ("sum", "max")
    assert all(record["throughput"] > 0 for record in found.records())
    assert torch.get_num_threads() == before
