"""The race. In this process it is timed by a clock that the contestants themselves advance, so that
nothing is measured; in workers it is asked what was done, not how fast."""

from __future__ import annotations

import gc
import io
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from contextlib import suppress
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from models import relu_file
from torch import nn

import onnx_workbench as ow
from onnx_workbench.contestant import Prepared
from onnx_workbench.errors import InputError, LoadError, TrainingModeWarning
from onnx_workbench.racing import bench, call, heats, process, verdict, worker
from onnx_workbench.racing import race as racing
from onnx_workbench.racing.lane import Lane, Run
from onnx_workbench.racing.race import race
from onnx_workbench.racing.report import Conditions, Race
from onnx_workbench.racing.verdict import Ratio
from onnx_workbench.racing.worker import Worker, WorkerError, packed
from onnx_workbench.session import Options

X = torch.arange(6.0).reshape(3, 2)

# What nbval has to replace, so that the reports of two runs are equal.
NUMBERS = (
    r" *\b\d+(\.\d+)? (ns|us|ms|s)\b",
    r" *\b\d+(\.\d+)?x",
    r"\b[\d,]+ rounds?\b",
    r"(?m)\b(faster|slower|same|undecided|noisy|contended)\b *$",
    r"machine  .*",
)


class Clock:
    """Nanoseconds that pass only when a contestant says so."""

    def __init__(self, monkeypatch):
        self.now = 0
        self.log: list[str] = []
        monkeypatch.setattr(bench, "perf_counter_ns", lambda: self.now)
        monkeypatch.setattr(bench, "queued", lambda: 0)
        monkeypatch.setattr(bench, "LAPS", 1)
        monkeypatch.setattr(gc, "collect", int)  # half a second here: torch's objects are many

    def contestant(self, name, *costs, drift=lambda: 1.0):
        """Each call costs the next of ``costs`` in microseconds, and the last one for ever."""
        remaining = list(costs)

        def call(*args, **kwargs):
            self.log.append(name)
            cost = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            self.now += round(1000 * cost * drift())

        return call


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def quick(contestants, *args, seconds=0.1, **options):
    return race(contestants, args, quick=True, seconds=seconds, **options)


def sanitised(report: str) -> str:
    for pattern in NUMBERS:
        report = re.sub(pattern, " #", report)
    return report


def lane(name, *blocks, rounds=5, **more):
    """A lane whose processes took so many nanoseconds a block."""
    return Lane(name, tuple(Run((b,) * rounds) for b in blocks), **more)


# ------------------------------------------------------------------ in this process


def test_medians_and_ratios_are_those_of_the_clock(clock):
    result = quick({"a": clock.contestant("a", 2000), "b": clock.contestant("b", 500)})
    assert result.lane("a").quartiles == (2e-3, 2e-3, 2e-3)
    assert result.lane("b").percentile(99) == 5e-4
    ratio = result.ratio("b")
    assert ratio.value == pytest.approx(4.0)
    assert (ratio.low, ratio.high) == pytest.approx((4 / 1.03, 4 * 1.03))
    assert result.finding == "b is 4.00x as fast as a (95 % interval 3.88 to 4.12)"


def test_blocks_last_about_4_ms_and_raw_times_are_kept(clock):
    result = quick({"a": clock.contestant("a", 10), "b": clock.contestant("b", 9000)}, seconds=0.5)
    a, copy, b = (lane.runs[0] for lane in result.lanes)
    assert (a.calls, set(a.blocks)) == (400, {4_000_000})
    assert (b.calls, set(b.blocks)) == (1, {9_000_000})
    lap = 2 * 401 * 10e-6 + 2 * 9e-3  # one call more than the block: it is discarded
    assert len(a.blocks) == len(copy.blocks) == len(b.blocks) == round(0.5 / lap)


def test_the_first_call_is_kept_apart(clock):
    result = quick({"a": clock.contestant("a", 70_000, 1000)})
    assert result.lane("a").first == 0.07
    assert max(result.lane("a").times) == 1e-3


def test_warm_up_ends_after_50_calls_or_its_seconds_and_the_report_says_which(clock):
    short, long = clock.contestant("short", 10), clock.contestant("long", 100_000)
    result = quick({"short": short, "long": long}, seconds=1.0)
    assert [one.runs[0].warmup for one in result.lanes] == [1 + 50, 1 + 50, 1 + 2]
    assert "warm-up  50 calls or 200 ms, whichever comes first; " in repr(result)
    in_workers = Race(result.lanes, Conditions())
    assert "warm-up  50 calls or 400 ms, whichever comes first; " in repr(in_workers)


def test_the_first_call_is_timed_apart_where_it_does_more(clock):
    calls = {"run": clock.contestant("run", 10), "first": clock.contestant("first", 70_000)}
    one = bench.Bench([lambda: Prepared(timed="a call", **calls)])
    (ready,) = one.ready()
    assert (ready.first, ready.warmup, ready.pace) == (0.07, 51, 1e-5)
    assert clock.log.count("first") == 1
    one.close()


def test_a_quick_race_shows_its_wider_interval_in_its_plot(clock):
    result = quick({"a": clock.contestant("a", 4000), "b": clock.contestant("b", 2000)})
    assert result.note() == "1 thread, one process: intervals widened by 3 %"
    assert result.plot().get_title(loc="left").endswith("(95 % interval 1.94 to 2.06)")


def test_a_cold_start_does_not_make_the_blocks_short(clock):
    result = quick({"a": clock.contestant("a", 9000, *[5000] * 30, 100)}, seconds=2)
    assert result.lane("a").runs[0].calls == 40


def test_the_call_before_each_block_is_discarded(clock):
    runs = quick({"a": clock.contestant("a", 4000)}, seconds=0.001).lane("a").runs
    in_rounds = len(clock.log) - 2 * (1 + 1) - 2 * 2  # warm-ups and single calls of both copies
    assert len(runs[0].blocks) == heats.LEAST_ROUNDS
    assert in_rounds == 2 * 2 * heats.LEAST_ROUNDS


def test_every_round_runs_everybody_in_an_order_that_changes(clock):
    order = []
    names = "abc"

    def contestant(name):
        def run():
            order.append(name)
            clock.now += 4_000_000

        return run

    benches = {
        name: lambda name=name: bench.Bench([call.Call(contestant(name))], 0.001) for name in names
    }
    heats.run(benches, 1.0, random.Random(0))
    turns = order[6:-6:2]
    rounds = ["".join(turns[at : at + 3]) for at in range(0, len(turns), 3)]
    assert all(sorted(turn) == list(names) for turn in rounds)
    assert len(set(rounds)) == 6


def test_the_seed_fixes_the_order(clock):
    def order(seed):
        clock.log.clear()
        quick({name: clock.contestant(name, 4000) for name in "abc"}, seed=seed)
        return list(clock.log)

    assert order(1) == order(1) != order(2)


def test_a_machine_that_slows_down_does_not_change_the_ratio(clock):
    def drift():
        return 1.0 + len(clock.log) / 1000

    a, b = (clock.contestant(name, cost, drift=drift) for name, cost in (("a", 4000), ("b", 2000)))
    result = quick({"a": a, "b": b}, seconds=2)
    assert result.ratio("b").value == pytest.approx(2.0, rel=0.01)
    assert max(result.lane("a").times) > 1.4 * min(result.lane("a").times)


def test_the_percentiles_are_those_of_single_calls(clock, monkeypatch):
    monkeypatch.setattr(bench, "LAPS", 100)
    costs = iter(range(10**6))

    def uneven():
        clock.now += 1_000_000 * (10 if next(costs) % 20 == 0 else 1)

    result = quick({"a": uneven}).lane("a")
    assert result.percentile(50) == 1e-3
    assert result.percentile(99) == 1e-2


def test_single_calls_end_with_their_seconds(clock, monkeypatch):
    monkeypatch.setattr(bench, "LAPS", 1000)
    laps = quick({"a": clock.contestant("a", 30_000)}).lane("a").runs[0].laps
    assert laps == (30_000_000,) * 4


def test_a_contestant_that_fails_stays_in_the_table_and_the_others_race(clock):
    def broken(x):
        raise RuntimeError("No working C++ compiler found.\nSet CXX.")

    result = quick({"a": clock.contestant("a", 4000), "compiled": broken}, X)
    assert result.lane("a").ran
    assert isinstance(result.lane("compiled").error, RuntimeError)
    report = repr(result)
    assert re.search(r"^compiled .* did not run$", report, re.MULTILINE)
    assert "did not run  compiled: RuntimeError: No working C++ compiler found.\n" in report
    assert result.ratio("compiled") is None


def test_an_entry_that_cannot_be_made_is_a_contestant_that_fails(clock):
    class Picky:
        def __call__(self): ...

        def entry(self, args, kwargs, threads):
            raise InputError("two dimensions are expected")

    result = quick({"a": clock.contestant("a", 4000), "picky": Picky()}, X)
    assert "picky: InputError: two dimensions are expected" in repr(result)


def test_a_contestant_that_fails_in_a_late_round_leaves_the_race(clock):
    calls = iter(range(100))

    def tired(x):
        clock.now += 4_000_000
        if next(calls) == 40:
            raise OSError("tired")

    result = quick({"a": clock.contestant("a", 4000), "tired": tired}, X, seconds=0.5)
    assert not result.lane("tired").ran
    assert result.ratio("tired") is None
    assert len(result.lane("a").runs[0].blocks) == round(0.5 / 0.024)


def test_when_the_first_contestant_fails_the_next_one_is_the_baseline(clock):
    def broken():
        raise RuntimeError

    contestants = {"x": broken, "a": clock.contestant("a", 4), "b": clock.contestant("b", 2)}
    result = quick(contestants)
    assert result.baseline == "a"
    assert repr(result).startswith("Race against a\n")
    assert result.ratio("b").value == pytest.approx(2.0, rel=0.01)
    assert "control      none\n" in repr(result)


def entering(clock, log, panel="API", cost=4_000_000):
    class Session:
        def __call__(self, *args):
            raise AssertionError("the convenience call must not be timed")

        def entry(self, args, kwargs, threads=1):
            def prepare():
                log.append(("entry", args, threads, kwargs))

                def run():
                    clock.now += cost

                return Prepared(run, "no copies", threads, panel, lambda: log.append("close"))

            return prepare

    return Session()


def test_a_contestant_with_an_entry_is_timed_as_it_says_and_closed(clock):
    log = []
    result = race({"s": entering(clock, log)}, X, {"scale": 2}, quick=True, seconds=0.01)
    assert log == [("entry", (X,), 1, {"scale": 2})] * 2 + ["close"] * 2
    assert "timed    s: no copies\n" in repr(result)


def test_a_model_with_a_method_called_entry_is_called_like_any_model():
    class Model(nn.Linear):
        def entry(self):
            raise AssertionError("not the entry of a contestant")

    result = quick({"model": Model(2, 2).eval()}, X, seconds=0.001)
    assert result.lane("model").timed == call.PLAIN


def test_api_and_compute_are_two_tables_with_a_baseline_each(clock):
    contestants = {
        "api": entering(clock, [], "API"),
        "eager": clock.contestant("eager", 4000),
        "bound": entering(clock, [], "compute", 2_000_000),
        "bound twice": entering(clock, [], "compute", 1_000_000),
    }
    result = quick(contestants)
    assert result.panels == ("API", "compute")
    assert result.ratio("eager").value == pytest.approx(1.0)  # against api
    assert result.ratio("bound").value == pytest.approx(2.0)  # against eager
    assert result._first(result.lane("bound twice")).name == "eager"
    api, compute = repr(result).split("\n\n")[0].split("compute: ")
    assert "bound" not in api
    assert "api" not in compute.replace("API", "")


def test_a_plain_callable_runs_in_inference_mode_and_leaves_none_behind():
    modes = set()
    quick({"f": lambda x: modes.add(torch.is_inference_mode_enabled())}, X, seconds=0.001)
    assert modes == {True}
    assert not torch.is_inference_mode_enabled()


def test_threads_are_set_for_everybody_read_back_and_put_back(clock, monkeypatch):
    monkeypatch.setattr(heats, "sleep", lambda seconds: None)
    before, seen, log = torch.get_num_threads(), set(), []

    def f(x):
        seen.add(torch.get_num_threads())
        clock.now += 4_000_000

    result = quick({"f": f, "s": entering(clock, log)}, X, threads=before + 1, seconds=0.001)
    assert seen == {before + 1}
    assert log[0][2] == before + 1
    assert f"threads  f, s: {before + 1}, as read back\n" in repr(result)
    assert torch.get_num_threads() == before


def test_threads_say_what_torch_granted_not_what_was_asked(clock, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(heats, "sleep", lambda seconds: None)
    result = quick({"a": clock.contestant("a", 4000)}, threads=4, seconds=0.01)
    assert result.lane("a").threads == 1


def test_pools_rest_before_each_block_when_there_are_several_threads(clock, monkeypatch):
    rests = []
    monkeypatch.setattr(heats, "sleep", rests.append)
    result = quick({"a": clock.contestant("a", 4000)}, threads=2, seconds=1.0)
    rounds = len(result.lane("a").runs[0].blocks)
    assert rounds == round(1.0 / (2 * 0.058))  # two calls and a rest, and the same for the copy
    assert rests == [heats.SETTLE] * 2 * rounds


def test_a_model_in_training_mode_is_named_raced_in_eval_and_left_as_it_was():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    model[2].eval()
    before = model[1].running_mean.clone()
    modes = set()
    model.register_forward_hook(lambda module, *_: modes.add((module.training, module[1].training)))
    with pytest.warns(TrainingModeWarning) as warned:
        race({"net": model, "f": torch.relu}, X, quick=True, seconds=0.001)
    assert (
        str(warned[0].message) == "net in training mode: raced in eval mode, put back afterwards."
    )
    assert warned[0].filename == __file__
    assert modes == {(False, False)}
    assert [part.training for part in model.modules()] == [True, True, True, False]
    assert torch.equal(model[1].running_mean, before)


def test_ctrl_c_returns_what_was_measured_marked_as_interrupted(clock):
    log, calls, before = [], iter(range(1000)), torch.get_num_threads()

    def impatient(x):
        clock.now += 4_000_000
        if next(calls) == 15:
            raise KeyboardInterrupt

    result = quick({"s": entering(clock, log), "i": impatient}, X)
    assert result.conditions.interrupted
    assert len({len(one.runs[0].blocks) for one in result.lanes}) == 1
    assert repr(result).startswith("Race against s, interrupted: what was measured until then\n")
    assert log[-2:] == ["close", "close"]
    assert torch.get_num_threads() == before


def test_ctrl_c_before_the_first_round_is_a_ctrl_c(clock):
    log = []

    def impatient(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick({"s": entering(clock, log), "i": impatient}, X)
    assert log.count("close") == sum(entry != "close" for entry in log)


def test_the_collector_is_off_in_the_rounds_and_on_again_afterwards(clock):
    states = []

    def f():
        states.append(gc.isenabled())
        clock.now += 4_000_000

    quick({"f": f}, seconds=0.001)
    assert set(states) == {False}
    assert gc.isenabled()


def test_two_races_differ_in_their_numbers_alone(clock):
    def report(*costs):
        names = ("PyTorch", "ONNX Runtime", "torch.compile")
        contestants = {n: clock.contestant(n, c) for n, c in zip(names, costs, strict=True)}
        return repr(quick(contestants, X))

    reports = {report(7, 4000, 123.4), report(4000, 38.75, 4010), report(400, 400, 400)}
    assert len(reports) == 3
    assert len({sanitised(one) for one in reports}) == 1


def test_records_hold_what_the_table_shows(clock):
    def broken():
        raise RuntimeError("no")

    contestants = {"a": clock.contestant("a", 9000, 4000), "b": clock.contestant("b", 2000)}
    a, copy, b, failed = quick({**contestants, "x": broken}, seconds=1.0).records()
    assert (a["contestant"], a["median"], a["first_call"]) == ("a", 4e-3, 9e-3)
    assert (b["ratio"], b["verdict"]) == (pytest.approx(2.0), "faster")
    assert (copy["contestant"], copy["verdict"]) == ("a again", "same")
    assert (failed["median"], failed["ratio"], failed["error"]) == (None, None, "RuntimeError: no")
    assert a.keys() == b.keys() == failed.keys()


def test_the_report_names_the_machine_and_the_versions_in_use(clock):
    result = quick({"a": clock.contestant("a", 4000)}, seconds=0.001)
    assert re.search(
        rf"\nmachine  \d+ cores?, .*, torch {re.escape(torch.__version__)}", repr(result)
    )
    assert "\ndoubt    one process for all: a quick race: a percent or two is chance" in repr(
        result
    )


# ------------------------------------------------------------------ the verdict


@pytest.mark.parametrize(
    ("value", "low", "high", "differs", "said"),
    [
        (1.10, 1.04, 1.20, True, "faster"),
        (0.90, 0.80, 0.96, True, "slower"),
        (1.00, 0.98, 1.02, False, "same"),
        (1.02, 1.015, 1.025, True, "same"),
        (1.10, 1.01, 1.20, False, "undecided"),  # Holm says no
        (1.02, 1.005, 1.06, True, "undecided"),  # it differs, by less than what matters
        (1.00, 0.80, 1.25, False, "noisy"),
    ],
)
def test_a_verdict_needs_the_interval_and_a_difference_that_matters(
    value, low, high, differs, said
):
    assert Ratio(value, low, high, differs=differs).verdict == said


def test_each_verdict_is_a_sentence():
    assert Ratio(1.38, 1.31, 1.44).phrase == "1.38x as fast (95 % interval 1.31 to 1.44)"
    assert Ratio(1.0, 0.8, 1.25, differs=False).phrase == (
        "no verdict, this machine is too noisy (interval 22 % to each side)"
    )
    assert Ratio(1.05, 0.98, 1.12, differs=False).phrase == "not enough data"
    assert Ratio(2, 2, 2, bar="contended").phrase == "no verdict, the cores were contended"
    assert Ratio(2, 2, 2, bar="untrusted").phrase == (
        "no verdict, the race is untrusted: the same contestant differed from itself"
    )
    assert Ratio(1.0, 0.99, 1.01, matters=0.05).phrase == (
        "no difference that matters (within 5 %)"
    )


@pytest.mark.parametrize(("strata", "freedom"), [(3, 2), (4, 3), (5, 3), (6, 4)])
def test_the_interval_is_students_and_the_width_that_ends_a_race_costs_one_degree(strata, freedom):
    from scipy import stats

    logs = [0.10, 0.14, 0.09, 0.12, 0.11, 0.13][:strata]
    base = lane("a", *[1_000_000] * strata)
    fast = lane("b", *[1_000_000 / math.exp(log) for log in logs])
    ratio = verdict.ratios(base, [fast], matters=0.03)["b"]
    half = stats.t.ppf(0.975, freedom) * np.std(logs, ddof=1) / math.sqrt(strata)
    middle = np.mean(logs)
    assert (math.log(ratio.value), math.log(ratio.low), math.log(ratio.high)) == pytest.approx(
        (middle, middle - half, middle + half)
    )


def test_what_a_round_did_to_both_does_not_count():
    hit = np.array([1, 1, 5, 1, 1, 9, 1, 2])
    a = Lane("a", tuple(Run(tuple((1000 * k * hit).tolist())) for k in (1, 3)))
    b = Lane("b", tuple(Run(tuple((500 * k * hit).tolist())) for k in (1, 3)))
    assert verdict.ratios(a, [b], 0.03)["b"].low == pytest.approx(2.0)


def test_an_interval_leaves_1_out_where_its_p_is_below_5_percent():
    for logs in ([0.01, 0.02, 0.03, 0.02], [0.01, 0.02, 0.03, -0.02]):
        _, low, high, p = verdict._student(np.array(logs))
        assert (low > 0 or high < 0) == (p < 0.05)
        assert verdict._student(-np.array(logs))[3] == pytest.approx(p)


def test_time_in_which_others_had_the_core_is_no_time_of_the_contestant():
    a = Lane("a", (Run((5000, 9000, 4000), (1000, 5000, 0)),))
    assert a.times.tolist() == [4e-6, 4e-6, 4e-6]
    race = Race((a, replace(a, name="a again", control=True)))
    assert "clock    wall time less the 33.3 % in which other processes had the core" in repr(race)


def test_the_clock_says_whose_core_and_says_nothing_where_nothing_was_taken_off():
    a = Lane("a", (Run((5000, 5000), (1000, 0)),))
    two = Race((a,), Conditions(threads=2))
    assert "less the 10.0 % in which other processes had the core of the calling thread" in repr(
        two
    )
    for nothing in (Lane("a", (Run((5000,), (0,)),)), Lane("a", error=ValueError("no"))):
        assert "clock    wall time\n" in re.sub(" {5,}", "    ", repr(Race((nothing,))))


@pytest.mark.parametrize(
    ("queued", "busy", "off"),
    [
        (1000, 49_000, 1000),
        (0, 20_000, 0),  # it waited for a lock or a device, not for the core
        (9_000_000, 49_000, 1000),  # it waited beside the block
        (9_000_000, 50_300, 0),  # reading the clocks takes time as well
    ],
)
def test_a_block_takes_off_what_both_the_scheduler_and_the_clock_of_the_thread_say(
    clock, monkeypatch, queued, busy, off
):
    one = bench.Bench([lambda: Prepared(clock.contestant("a", 5), "a call")])
    one.ready()
    waits, times = iter((7, 7 + queued)), iter((3, 3 + busy))
    monkeypatch.setattr(bench, "queued", lambda: next(waits))
    monkeypatch.setattr(bench, "thread_time_ns", lambda: next(times))
    assert one.block(0, 10) == (50_000, off)
    one.close()


def test_what_others_took_is_kept_block_by_block(clock, monkeypatch):
    monkeypatch.setattr(bench, "queued", itertools.count(0, 1000).__next__)
    monkeypatch.setattr(bench, "thread_time_ns", lambda: 0)
    run = quick({"a": clock.contestant("a", 500)}).lane("a").runs[0]
    assert set(run.queued) == {1000}
    assert len(run.queued) == len(run.blocks)
    assert run.times[0] == pytest.approx((run.blocks[0] - 1000) / run.calls / 1e9)


def test_the_scheduler_of_linux_counts_what_a_thread_waited_and_other_systems_count_nothing(
    tmp_path, monkeypatch
):
    counts = tmp_path / "schedstat"
    monkeypatch.setattr(bench, "SCHEDULER", str(counts))
    assert bench.queued() == 0
    counts.write_text("13366553 71833104 5\n")
    assert bench.queued() == 71833104


def test_a_stratum_in_which_one_has_fewer_rounds_counts_those_of_both():
    a, b = Lane("a", (Run((1000,) * 5),)), Lane("b", (Run((500,) * 3),))
    assert [len(logs) for logs in verdict.differences(a, b)] == [3]


def test_holm_tests_the_smallest_p_the_hardest_and_stops_at_the_first_that_stands():
    assert verdict.holm({"a": 0.03, "b": 0.02, "c": 0.04}) == set()
    assert verdict.holm({"a": 0.001, "b": 0.02, "c": 0.04}) == {"a", "b", "c"}
    assert verdict.holm({"a": 0.001, "b": 0.03, "c": 0.04}) == {"a"}


def test_the_seconds_still_needed_grow_with_the_noise():
    base = lane("a", *[1_000_000] * 4)

    def more(*logs):
        fast = lane("b", *[1_000_000 / math.exp(log) for log in logs])
        return verdict.ratios(base, [fast], 0.03, seconds=2.0)["b"].more

    little, much = more(0.03, 0.05, 0.02, 0.06), more(0.0, 0.10, -0.05, 0.12)
    assert 0 < little < much
    assert "needs about" in replace(Ratio(1.04, 0.99, 1.09, differs=False), more=little).phrase


def test_a_race_whose_baseline_differs_from_its_own_copy_is_untrusted():
    lanes = (
        lane("a", 1000, 1010, 990),
        lane("a again", 800, 810, 795, control=True),
        lane("b", 500, 505, 495),
    )
    result = Race(lanes)
    assert not result.trusted
    assert result.ratio("b").verdict == "untrusted"
    assert "control  a against its own copy: 1.25x, UNTRUSTED: it differs from itself\n" in repr(
        result
    )
    assert "b against a: no verdict, the race is untrusted" in result.finding


def test_cores_that_others_keep_busy_are_looked_at_before_several_threads_race(monkeypatch):
    import psutil

    looks = []
    monkeypatch.setattr(
        psutil, "cpu_percent", lambda *look, percpu: looks.append(look) or [50, 90, 7]
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2}, raising=False)
    assert racing.cores(threads=2) == (2, pytest.approx(0.57))
    assert racing.cores(threads=1) == (2, None)
    assert looks == [(racing.LOOK,)]
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert racing.cores(threads=2) == (3, pytest.approx(1.47))


@pytest.mark.parametrize(
    ("threads", "cores", "load", "contended"),
    [(1, 1, 9.0, False), (2, 4, 1.5, False), (2, 2, 1.2, True), (4, 2, None, True)],
)
def test_several_threads_get_a_verdict_only_where_cores_are_free(threads, cores, load, contended):
    conditions = Conditions(threads=threads, cores=cores, load=load)
    result = Race((lane("a", 2000, 2010), lane("b", 1000, 1000)), conditions)
    assert (result.ratio("b").verdict == "contended") is contended
    assert (": no verdict" in repr(result)) is contended


# ------------------------------------------------------------------ workers


def steady(milliseconds=1.0):
    """A function that is sent by value: it says nothing of this module."""

    def wait(*args):
        import time

        time.sleep(milliseconds / 1e3)

    return wait


@pytest.fixture
def swift(monkeypatch):
    """Workers with few rounds, in a single stratum where the seconds are few."""
    monkeypatch.setattr(heats, "ROUNDS", 5)
    monkeypatch.setattr(heats, "LEAST_ROUNDS", 2)
    monkeypatch.setattr(racing, "LEAST_STRATA", 1)


def alive(pid: int) -> bool:
    """A process that is there and not only waiting to be counted as gone."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@pytest.fixture
def pids(monkeypatch):
    """The process of every worker that is started."""
    found = []
    start = subprocess.Popen

    def recorded(*args, **kwargs):
        process = start(*args, **kwargs)
        found.append(process.pid)
        return process

    monkeypatch.setattr(process.subprocess, "Popen", recorded)
    return found


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """An empty folder to work in, which is also where temporary files go; and the threads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return lambda: (list(tmp_path.iterdir()), torch.get_num_threads())


def test_each_stratum_starts_everybody_anew_and_leaves_nothing_behind(
    swift, pids, bare, monkeypatch
):
    monkeypatch.setattr(racing, "LEAST_STRATA", 3)
    before = bare()
    result = race({"a": steady(), "b": steady(2)}, seconds=0.5)
    assert result.conditions.how == "workers"
    assert result.strata == racing.LEAST_STRATA
    assert len(set(pids)) == 3 * racing.LEAST_STRATA  # the copy of a as well
    assert not any(map(alive, pids))
    assert bare() == before
    assert result.ratio("b").value < 0.8
    assert result.conditions.stopped == "after 3 strata: the budget of 0.5 s allows no more"
    assert "95 % interval over 3 strata of fresh processes" in repr(result)


def test_a_race_stops_on_the_width_of_its_intervals_and_says_so(swift, monkeypatch):
    monkeypatch.setattr(racing, "WIDTH", 10.0)
    monkeypatch.setattr(racing, "STRATA", 2)
    result = race({"a": steady()}, seconds=60)
    assert result.strata == 2
    assert result.conditions.stopped == (
        "after 2 strata: all intervals are within 1000 % to each side"
    )


def test_a_race_that_stays_wide_ends_after_the_most_strata(swift, monkeypatch):
    monkeypatch.setattr(racing, "WIDTH", 0.0)
    monkeypatch.setattr(racing, "STRATA", 1)
    monkeypatch.setattr(racing, "MOST_STRATA", 2)
    result = race({"a": steady(0.1)}, seconds=60)
    assert result.conditions.stopped == "after 2 strata, the most there are"


@pytest.fixture(scope="module")
def relu(tmp_path_factory):
    return relu_file(tmp_path_factory.mktemp("relu") / "m.onnx", 3, 2)


def test_a_worker_of_onnx_runtime_never_imports_torch(relu):
    payload = packed([relu.entry((X,), {}), SysModules()])
    held = Worker(payload, threads=1)
    try:
        held.opened()
        ready = held.ready()
        assert ready[0].timed.startswith("session.run")
        assert ready[0].threads == 1
        assert "onnxruntime" in ready[1].timed
        assert "torch" not in ready[1].timed.split()
    finally:
        held.close()


class SysModules:
    """Sent as bytes: it tells what its process has imported."""

    def __reduce__(self):
        code = (
            "lambda: __import__('onnx_workbench.contestant').contestant.Prepared("
            "lambda: None, ' '.join(__import__('sys').modules))"
        )
        return eval, (code,)


def test_buffers_are_bound_once_and_give_the_same_numbers(relu):
    file, bound = relu, relu.using(bound=True)
    ready = bound.entry((X,), {})()
    assert (ready.panel, ready.threads) == ("compute", 1)
    assert ready.timed == (
        "run_with_iobinding: buffers bound once and used again, no copies, IOBinding"
    )
    (binding,) = ready.run.args
    (output,) = binding.get_outputs()
    assert not output.has_value(), "nothing has run before the first call"
    ready.first()
    ready.run()
    np.testing.assert_allclose(binding.copy_outputs_to_cpu()[0], file(X).numpy(), rtol=1e-6)
    pointers = [value.data_ptr() for value in binding.get_outputs()]
    ready.run()
    assert [value.data_ptr() for value in binding.get_outputs()] == pointers
    assert torch.equal(bound(X), file(X))


def test_the_share_of_the_copies_is_what_iobinding_leaves_out(relu, tmp_path):
    file, other = relu, ow.load(shutil.copy(relu.path, tmp_path / "other.onnx"))
    contestants = {
        **{"elsewhere": other, "run": file, "bound": file.using(bound=True)},
        **{"basic, bound": file.using(bound=True, level="basic")},
    }
    result = quick(contestants, X, seconds=0.01)
    assert {name: result.lane(name).twin for name in contestants} == {
        **{"elsewhere": "", "run": "", "bound": "run", "basic, bound": ""}
    }
    assert list(result.copies) == ["bound"]


def test_copies_are_told_drawn_and_put_into_the_table():
    runs = lane("run", 1000, 1010, 990, panel="API")
    bound = lane("bound", 600, 606, 594, panel="compute", twin="run")
    result = Race((runs, bound))
    said = "40 % of run (95 % interval 40 to 40) is what bound leaves out"
    assert f"copies   {said}\n" in repr(result)
    assert [record["copies"] for record in result.records()] == [None, pytest.approx(0.4)]
    ax = result.plot("copies")
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([6e-7, 4e-7])
    assert ax.get_title(loc="left") == said
    assert ax.get_xlabel() == "time per call, median"


def test_a_race_is_drawn_as_blocks_or_as_ratios_and_refuses_what_it_has_not():
    from matplotlib import pyplot

    result = Race((lane("a", 1000, 1010, 990), lane("b", 500, 505, 495)))
    assert result.plot().get_title(loc="left") == result.finding
    own = pyplot.figure().add_subplot()
    ax = result.plot("ratios", ax=own)
    assert ax is own
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b"]
    assert "2.00x (2.00 to 2.00)" in [words.get_text() for words in ax.texts]
    with pytest.raises(InputError) as caught:
        result.plot("copies")
    assert str(caught.value) == (
        "There is no plot 'copies' of this race: it takes 'times', 'ratios' where two or more "
        "raced, or 'copies' where a file raced with .using(bound=True) and without."
    )
    pyplot.close("all")


def test_session_options_arrive_in_the_session(relu):
    import onnxruntime

    ready = relu.using(level="basic", spinning=False, arena=False, parallel=True).entry((X,), {})()
    options = ready.run.func.__self__.get_session_options()
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert not options.enable_cpu_mem_arena
    parallel = Options(parallel=True).for_session(threads=2)  # a session does not tell its own
    assert parallel.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
    assert (parallel.intra_op_num_threads, parallel.inter_op_num_threads) == (2, 2)
    assert ready.timed.endswith(
        ", graph optimisation basic, spinning off, arena off, parallel nodes"
    )
    assert relu.entry((X,), {})().timed.endswith(" tensors, ONNX Runtime's defaults")


# ------------------------------------------------------------------ a GPU, which is not here


def test_without_cuda_its_contestants_are_left_out_with_a_sentence(relu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_gpu = relu.using(provider="NoSuchExecutionProvider", bound=True)
    assert repr(on_gpu) == "m.onnx with IOBinding on NoSuchExecutionProvider"
    contestants = {"CPU": relu, "ORT": on_gpu, "torch": ow.placed(nn.Linear(2, 2).eval())}
    with warnings.catch_warnings(action="error"):  # onnxruntime warns, and takes the CPU
        report = repr(quick(contestants, X, seconds=0.01))
    assert "ORT: LoadError: NoSuchExecutionProvider cannot be used here.\n" in report
    assert f"torch: InputError: torch {torch.__version__} finds no CUDA device.\n" in report


def test_a_provider_that_falls_back_to_the_cpu_is_not_raced_under_its_name(relu, monkeypatch):
    import onnxruntime

    cuda = "CUDAExecutionProvider"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda])
    monkeypatch.setattr(onnxruntime, "InferenceSession", pretended("CPUExecutionProvider"))
    with pytest.raises(LoadError, match=rf"^{cuda} cannot be used here\.\nWhat helps: "):
        relu.using(provider=cuda).entry((X,), {})()


@pytest.mark.parametrize(
    ("bound", "panel", "timed"),
    [
        (
            False,
            "API",
            "and back, synchronised, ONNX Runtime's defaults",
        ),
        (True, "compute", "on the GPU, synchronised, IOBinding"),
    ],
)
def test_a_session_on_cuda_binds_buffers_there_and_says_what_it_copies(
    relu, monkeypatch, bound, panel, timed
):
    import onnxruntime

    cuda, devices = "CUDAExecutionProvider", []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda])
    monkeypatch.setattr(onnxruntime, "InferenceSession", pretended(cuda, devices))
    monkeypatch.setattr(
        onnxruntime.OrtValue, "ortvalue_from_numpy", lambda array, *device: devices.append(device)
    )
    ready = relu.using(provider=cuda, bound=bound).entry((X,), {})()
    ready.run()
    assert ready.panel == panel
    assert ready.timed.endswith(timed)
    assert devices == ([("cuda", 0), "cuda"] if bound else [])


def pretended(provider, devices=()):
    """A session that says that it runs on this provider, and notes where outputs are bound."""
    import onnxruntime

    class Session(onnxruntime.InferenceSession):
        def __init__(self, path, options, providers):
            super().__init__(path, options, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return [provider]

        def io_binding(self):
            return self

        def bind_ortvalue_input(self, name, value): ...
        def bind_output(self, name, device):
            devices.append(device)

        def bind_ortvalue_output(self, name, value): ...
        def run_with_iobinding(self, binding): ...

    return Session


def test_a_placed_model_and_its_inputs_move_and_the_callers_stay():
    model = nn.Linear(2, 2)
    contestant = ow.placed(model, "meta")
    ready = contestant.entry((X,), {})()
    assert ready.run().device.type == "meta"
    ready.close()
    assert next(model.parameters()).device.type == X.device.type == "cpu"
    assert model.training
    assert not torch.is_inference_mode_enabled()
    assert contestant(X).device.type == "meta"


def test_a_call_on_a_gpu_waits_for_the_gpu(monkeypatch):
    log = []
    monkeypatch.setattr(call, "_devices", lambda *arguments: [torch.device("cuda")])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("synchronised"))
    ready = call.Call(lambda x: log.append("called"), (X,))()
    ready.run()
    ready.close()
    assert log == ["called", "synchronised"]
    assert ready.timed == f"{call.PLAIN}, on the GPU, synchronised"


# ------------------------------------------------------------------ freezing, and where it differs


def test_idle_workers_are_frozen_and_run_alone(pids):
    if not worker.FREEZES or sys.platform != "linux":
        pytest.skip("no SIGSTOP or no /proc here")
    held = [Worker(packed([call.Call(steady())]), threads=1) for _ in range(2)]
    try:
        for one in held:
            one.opened()
            one.freeze()
        states = [_state(pid) for pid in pids]
        held[0].thaw()
        held[0].ready()
        states.append(_state(pids[1]))
    finally:
        for one in held:
            one.close()
    assert states == ["T", "T", "T"]
    assert not any(map(alive, pids))


def _state(pid: int) -> str:
    for _ in range(1000):
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            state = stat.read().rsplit(")", 1)[1].split()[0]
        if state == "T":
            break
    return state


def test_where_nothing_can_be_frozen_idle_workers_wait_and_the_report_says_so(
    swift, pids, monkeypatch
):
    monkeypatch.setattr(worker, "FREEZES", False)
    monkeypatch.setattr(racing, "FREEZES", False)
    monkeypatch.delattr(signal, "SIGSTOP", raising=False)
    result = race({"a": steady(), "b": steady(2)}, seconds=0.2)
    assert result.conditions.how == "workers"
    assert "strata, idle workers wait unfrozen, one core" in repr(result) or not worker.KEEPS
    assert not any(map(alive, pids))


@pytest.mark.parametrize("threads", [1, 2])
def test_with_one_thread_all_workers_of_a_stratum_are_kept_to_one_core(swift, monkeypatch, threads):
    if not worker.KEEPS:
        pytest.skip("here the system alone says on which core a process runs")
    kept, mine = [], os.sched_getaffinity(0)

    class Watched(Worker):
        def ready(self):
            kept.append(os.sched_getaffinity(self._process.pid))
            return super().ready()

    monkeypatch.setattr(racing, "Worker", Watched)
    result = race({"a": steady(), "b": steady(2)}, seconds=0.2, threads=threads)
    strata = [kept[at : at + 3] for at in range(0, len(kept), 3)]
    assert len(strata) == result.strata
    assert all(len(set(map(frozenset, stratum))) == 1 for stratum in strata)
    assert {len(cores) for cores in kept} == {1 if threads == 1 else len(mine)}
    assert ("frozen, one core for all of a stratum" in repr(result)) is (threads == 1)


def test_on_windows_a_worker_has_a_process_group_of_its_own_and_no_session(monkeypatch):
    given = {}
    monkeypatch.setattr(process.sys, "platform", "win32")
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    monkeypatch.setattr(
        process.subprocess, "Popen", lambda command, **options: Idle(given, options)
    )
    Worker(b"", threads=3)
    assert given["creationflags"] == 512
    assert "process_group" not in given
    assert given["env"]["OMP_NUM_THREADS"] == "3"


class Idle:
    """A process that takes what is written to it."""

    def __init__(self, given, options):
        given.update(options)
        self.stdin = io.BytesIO()


def test_a_worker_that_dies_is_named_and_the_race_goes_on_in_this_process(swift):
    parent = os.getpid()

    def fatal(*args):
        import os

        if os.getpid() != parent:
            os._exit(7)

    result = race({"a": steady(), "fatal": fatal}, seconds=0.2)
    assert result.conditions.how == "in process"
    assert result.conditions.why == "no worker can hold them (its process ended with code 7)"


def test_what_cannot_be_sent_races_in_this_process_with_the_weaker_claim(clock):
    lock = threading.Lock()

    def closure():
        clock.now += 4_000_000
        assert not lock.locked()

    result = race({"a": closure}, seconds=0.1)
    assert result.conditions.how == "in process"
    assert re.search(
        r"\ndoubt    one process for all: no worker can hold them \(\w+: .*\): a percent or two",
        repr(result),
    )


def test_what_a_contestant_prints_and_its_errors_stay_with_it(swift, pids):
    def broken():
        raise ValueError("only here")

    def chatty():
        import os
        import time

        print("hello")
        os.write(1, b"what it prints disturbs nobody")
        time.sleep(1e-3)

    result = race({"chatty": chatty, "broken": broken}, seconds=0.2)
    assert result.conditions.how == "workers"
    assert result.lane("chatty").ran
    assert repr(result.lane("broken").error) == "ValueError('only here')"
    assert not any(map(alive, pids))


def test_an_interrupt_in_workers_returns_what_was_measured_and_leaves_nothing(
    swift, pids, bare, monkeypatch
):
    before = bare()
    rounds = iter(range(100))
    plain = heats._round

    def interrupted(*args):
        if next(rounds) == 8:  # in the second stratum
            raise KeyboardInterrupt
        plain(*args)

    monkeypatch.setattr(heats, "_round", interrupted)
    result = race({"a": steady()}, seconds=60)
    assert result.conditions.interrupted
    assert [len(run.blocks) for run in result.lane("a").runs] == [5, 3]
    assert result.conditions.stopped == "interrupted"
    assert not any(map(alive, pids))
    assert bare() == before


def test_an_interrupt_while_a_worker_takes_its_contestant_in_ends_it(pids, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Worker, "_post", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Worker(b"a contestant", threads=1)
    assert not any(map(alive, pids))


def test_an_interrupt_while_a_later_stratum_starts_keeps_the_earlier_ones(swift, monkeypatch):
    plain, starts = heats._warm_up, iter(range(10))

    def interrupted(*args):
        if next(starts) == 1:
            raise KeyboardInterrupt
        plain(*args)

    monkeypatch.setattr(heats, "_warm_up", interrupted)
    result = race({"a": steady()}, seconds=60)
    assert (result.conditions.interrupted, result.strata) == (True, 1)


@pytest.mark.parametrize("by", ["a session of its own", "orphaned"])
def test_a_worker_ends_with_its_parent_even_when_it_is_frozen(by):
    if sys.platform == "win32" or (sys.platform != "linux" and by != "orphaned"):
        pytest.skip("nothing is frozen there, or Linux alone has a signal for it")
    code = (
        "import os, signal, sys, time\n"
        "from onnx_workbench.racing import call, process\n"
        "from onnx_workbench.racing.worker import Worker, packed\n"
        f"{ENDED[by]}"
        "one = Worker(packed([call.Call(print)]), 1)\n"
        "one.opened(); one.freeze()\n"
        "print(one._process.pid, flush=True)\n"
        "time.sleep(0.2)\n"  # it is told to stop, and stops a little later
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    for _ in range(200):
        if not alive(pid):
            break
        time.sleep(0.01)
    assert not alive(pid)


ENDED = {
    "orphaned": """# as on macOS, where no process can ask for a signal when its parent ends
process._START = process._START.replace(
    "import child;", "import child; child._die_with_the_parent = int;"
)
""",
    "a session of its own": """# an orphan all along: nothing is sent when its parent ends
start = process.subprocess.Popen
process.subprocess.Popen = (
    lambda *args, process_group, **more: start(*args, start_new_session=True, **more)
)
""",
}


def test_a_compiled_model_is_compiled_where_it_races():
    seen = []

    def backend(graph, inputs):
        seen.append(len(inputs))
        return graph

    model = nn.Linear(2, 2).eval()
    contestant = ow.compiled(model, backend=backend, dynamic=True)
    ready = contestant.entry((X,), {})()
    ready.run()
    ready.close()
    assert len(seen) == 1
    assert ready.timed.startswith(f"{call.PLAIN}, of torch.compile(model, backend=<function ")
    assert ready.timed.endswith(", dynamic=True)")
    assert torch.equal(contestant(X), model(X))


# ------------------------------------------------------------------ the file, and another day


def measured(**changes):
    environment = {"chip": "x", "system": "Linux", "torch": "torch 2.13"}
    lanes = (lane("a", 1000, 1010, 995), lane("b", 500, 505, 490, error=None))
    return Race(lanes, Conditions(environment, **changes))


def test_a_saved_race_is_the_same_race(tmp_path):
    failed = Lane("x", error=RuntimeError("no"))
    result = Race((*measured().lanes, failed), measured().conditions)
    result.save(tmp_path / "race.json")
    again = Race.load(tmp_path / "race.json")
    assert again.conditions == result.conditions
    assert again.lanes == result.lanes
    assert "RuntimeError: no" in repr(again)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["race.json"]


def test_a_race_that_cannot_be_written_leaves_what_was_there(tmp_path):
    target = tmp_path / "race.json"
    target.write_text("before")
    broken = Race(measured().lanes, Conditions({"chip": object()}))  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        broken.save(target)
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["race.json"]


@pytest.mark.parametrize("content", ["", "{}", '{"format": "other"}', "[1]"])
def test_a_file_that_is_no_race_is_refused(tmp_path, content):
    file = tmp_path / "race.json"
    file.write_text(content)
    with pytest.raises(LoadError) as caught:
        Race.load(file)
    assert str(caught.value).startswith("race.json is no race: ")
    assert str(caught.value).endswith("\nWhat helps: pass a file that Race.save() wrote.")


def test_a_race_of_another_day_is_compared_by_welch():
    then, now = measured(), Race((lane("a", 1001, 1010, 994), lane("b", 250, 251, 249)))
    now = Race(now.lanes, then.conditions)
    found = now.since(then)
    assert found["a"].verdict == "same"
    assert found["b"].value == pytest.approx(2.0, rel=0.02)
    assert found["b"].verdict == "faster"


def test_races_of_different_environments_are_not_compared():
    other = measured(threads=2)
    other = Race(
        other.lanes, replace(other.conditions, environment={"chip": "y", "system": "Linux"})
    )
    with pytest.raises(InputError) as caught:
        measured().since(other)
    assert str(caught.value) == (
        "The two races ran in different environments (chip: x now, y then; torch: torch 2.13 now, "
        "None then; threads: 1 now, 2 then), so that their times say nothing about the "
        "contestants. Race both in one environment, or in one race."
    )


def test_a_race_on_one_core_is_not_compared_to_one_on_any():
    now = measured()
    then = Race(now.lanes, replace(now.conditions, one_core=True))
    with pytest.raises(InputError, match=r"\(one core: False now, True then\)"):
        now.since(then)


def test_a_quick_race_is_too_little_to_compare():
    single = Race((lane("a", 1000),), measured().conditions)
    with pytest.raises(InputError) as caught:
        single.since(single)
    assert str(caught.value) == (
        "One of the races has a single process for each contestant, and nothing to take an "
        "interval from. Race again without quick=True."
    )


def test_the_file_is_plain_json(tmp_path):
    measured().save(tmp_path / "race.json")
    content = json.loads((tmp_path / "race.json").read_text())
    assert content["lanes"][0]["runs"][0]["blocks"] == [1000] * 5
    assert content["conditions"]["environment"]["torch"] == "torch 2.13"


def test_a_frame_needs_pandas_and_is_the_records_without_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    result = measured()
    assert result.to_frame() == result.records()


# ------------------------------------------------------------------ what is refused


def error_of(*args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        race(*args, quick=True, **kwargs)
    return str(caught.value)


def test_what_cannot_race_is_refused_with_what_to_do_next():
    example = 'Write race({"PyTorch": model, "ONNX Runtime": artifact}, x).'
    assert error_of({}, X) == (
        f"race takes a dict of name -> callable, and got nothing to race. {example}"
    )
    assert error_of(nn.Linear(2, 2), X) == (
        f"race takes a dict of name -> callable, and got Linear. {example}"
    )
    assert error_of({"model": "digits.onnx"}, X) == (
        "Contestant 'model' cannot be called: it is of type str. "
        "Pass a model, an Artifact or a function."
    )
    assert error_of({"relu": torch.relu}, X, threads=0) == (
        "threads is 0; it must be a whole number of 1 or more."
    )
    assert error_of({"relu": torch.relu}, X, seconds=0) == "seconds is 0; it must be more than 0."


def test_when_nobody_runs_everybodys_reason_is_given():
    def long_winded(x):
        raise RuntimeError("o" * 100)

    assert error_of({"a": lambda x: 1 / 0, "b": long_winded}, X) == (
        f"No contestant ran. a: ZeroDivisionError: division by zero; b: RuntimeError: {'o' * 77}"
        ".... Call one by hand with the same inputs to see it fail."
    )


def test_when_nobody_runs_the_first_error_is_chained():
    with pytest.raises(InputError) as caught:
        race({"a": lambda x: 1 / 0}, X, quick=True)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_lane_that_never_was_names_those_that_were():
    with pytest.raises(InputError) as caught:
        Race((lane("a", 1000), lane("b", 1000))).lane("c")
    assert str(caught.value) == "There is no contestant 'c' in this race. It has 'a', 'b'."


def test_what_cannot_be_packed_says_why():
    lock = threading.Lock()
    with pytest.raises(WorkerError, match=r"^TypeError: cannot pickle"):
        packed([lambda: lock])
