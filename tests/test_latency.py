"""The race, timed by a clock that the contestants themselves advance: nothing here is measured."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from onnx_workbench import latency, track
from onnx_workbench.contestant import Prepared
from onnx_workbench.errors import InputError, TrainingModeWarning
from onnx_workbench.latency import Race, Ratio, race
from onnx_workbench.track import Lane

X = torch.arange(6.0).reshape(3, 2)

# What nbval has to replace, so that the reports of two runs are equal.
NUMBERS = (
    r" *\b\d+(\.\d+)? (ns|us|ms|s)\b",
    r" *\b\d+(\.\d+)?x",
    r"\b[\d,]+ rounds?\b",
    r"(?m)\b(faster|slower|same|undecided|contended)\b *$",
    r"machine  .*",
)


class Clock:
    """Nanoseconds that pass only when a contestant says so."""

    def __init__(self, monkeypatch):
        self.now = 0
        self.log: list[str] = []
        monkeypatch.setattr(track, "perf_counter_ns", lambda: self.now)

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


def sanitised(report: str) -> str:
    for pattern in NUMBERS:
        report = re.sub(pattern, " #", report)
    return report


def test_medians_and_ratios_are_those_of_the_clock(clock):
    result = race({"a": clock.contestant("a", 2000), "b": clock.contestant("b", 500)})
    assert result.lane("a").quartiles == (2e-3, 2e-3, 2e-3)
    assert result.lane("b").quartiles == (5e-4, 5e-4, 5e-4)
    assert result.ratio("b") == Ratio(4.0, 4.0, 4.0, matters=0.03)
    assert result.finding == "b against a: 4.00x as fast"


def test_blocks_last_about_4_ms_and_raw_times_are_kept(clock):
    result = race({"a": clock.contestant("a", 10), "b": clock.contestant("b", 9000)}, seconds=0.5)
    a, b = result.lanes
    assert (a.calls, set(a.blocks)) == (400, {4_000_000})
    assert (b.calls, set(b.blocks)) == (1, {9_000_000})
    lap = 401 * 10e-6 + 2 * 9e-3  # one call more than the block: it is discarded
    assert len(a.blocks) == len(b.blocks) == round(0.5 / lap)


def test_the_first_call_is_kept_apart(clock):
    result = race({"a": clock.contestant("a", 70_000, 1000)})
    assert result.lane("a").first == 0.07
    assert max(result.lane("a").times) == 1e-3


def test_warm_up_ends_after_50_calls_or_a_fifth_of_the_seconds(clock):
    short, long = clock.contestant("short", 10), clock.contestant("long", 100_000)
    result = race({"short": short, "long": long}, seconds=2.0)
    assert [lane.warmup for lane in result.lanes] == [1 + 50, 1 + 4]


def test_a_cold_start_does_not_make_the_blocks_short(clock):
    result = race({"a": clock.contestant("a", 9000, *[5000] * 30, 100)})
    assert result.lane("a").calls == 40


def test_the_call_before_each_block_is_discarded(clock):
    blocks = race({"a": clock.contestant("a", 4000)}, seconds=0.001).lane("a").blocks
    calls_in_rounds = len(clock.log) - 1 - 1  # the first call and one of warm-up
    assert len(blocks) == track.LEAST_ROUNDS
    assert calls_in_rounds == 2 * len(blocks)


def test_every_round_runs_everybody_in_an_order_that_changes(clock):
    names = "abc"
    race({name: clock.contestant(name, 4000) for name in names}, seconds=1.0)
    rounds = clock.log[clock.log.index("c") :]  # from c's warm-up on
    rounds = rounds[rounds.count("c") - 2 * (rounds.count("a") // 2) :][::2]
    turns = ["".join(rounds[i : i + 3]) for i in range(0, len(rounds), 3)]
    assert all(sorted(turn) == list(names) for turn in turns)
    assert len(set(turns)) == 6


def test_the_seed_fixes_the_order(clock):
    def order(seed):
        clock.log.clear()
        contestants = {name: clock.contestant(name, 4000) for name in "abc"}
        race(contestants, seconds=0.1, seed=seed)
        return list(clock.log)

    assert order(1) == order(1) != order(2)


def test_a_machine_that_slows_down_does_not_change_the_ratio(clock):
    def drift():
        return 1.0 + len(clock.log) / 1000

    a, b = (clock.contestant(name, cost, drift=drift) for name, cost in (("a", 4000), ("b", 2000)))
    result = race({"a": a, "b": b})
    assert result.ratio("b").median == pytest.approx(2.0, rel=0.01)
    assert max(result.lane("a").times) > 1.5 * min(result.lane("a").times)


@pytest.mark.parametrize(
    ("low", "median", "high", "verdict"),
    [
        (1.04, 1.10, 1.20, "faster"),
        (0.80, 0.90, 0.96, "slower"),
        (0.98, 1.00, 1.02, "same"),
        (1.01, 1.10, 1.20, "undecided"),
        (0.90, 1.00, 1.10, "undecided"),
    ],
)
def test_a_verdict_needs_both_quartiles(low, median, high, verdict):
    assert Ratio(low, median, high, matters=0.03).verdict == verdict


def test_the_least_difference_that_matters_is_yours_to_choose(clock):
    contestants = {"a": clock.contestant("a", 4000), "b": clock.contestant("b", 3800)}
    assert race(contestants).ratio("b").verdict == "faster"
    strict = race(contestants, matters=0.1)
    assert strict.ratio("b").verdict == "same"
    assert strict.finding == "b against a: no difference that matters (within 10 %)"


def test_a_sweep_repeats_or_cuts_the_rows_of_every_tensor(clock):
    seen = []

    def watcher(x, *, mask, scale, flag):
        seen.append((x.tolist(), mask.tolist(), scale.item(), flag))
        clock.now += 4_000_000

    mask = torch.tensor([True, False, True])
    options = {"scale": torch.tensor(2.0), "flag": "kept"}
    result = race({"w": watcher}, X, mask=mask, **options, batch=(1, 4), seconds=0.001)
    assert seen[0] == ([[0, 1]], [True], 2.0, "kept")
    assert seen[-1] == ([[0, 1], [2, 3], [4, 5], [0, 1]], [True, False, True, True], 2.0, "kept")
    assert result.batches == (1, 4)


def test_one_batch_size_may_be_a_plain_number(clock):
    assert race({"a": clock.contestant("a", 4000)}, X, batch=4).batches == (4,)


def test_the_finding_names_both_ends_of_a_sweep():
    def pair(batch, nanoseconds):
        return Lane("a", batch, (1000,)), Lane("b", batch, (nanoseconds,))

    lanes = (*pair(1, 500), *pair(4, 900), *pair(64, 1250))
    assert Race(lanes).finding == "b against a: 2.00x as fast at batch 1, 0.80x at 64"
    lanes = (*pair(1, 1000), *pair(64, 1000))
    same = "no difference that matters (within 3 %)"
    assert Race(lanes).finding == f"b against a: {same} at batch 1 and 64"


def test_a_contestant_that_fails_stays_in_the_table_and_the_others_race(clock):
    def broken(x):
        raise RuntimeError("No working C++ compiler found.\nSet CXX.")

    result = race({"a": clock.contestant("a", 4000), "compiled": broken}, X)
    assert result.lane("a").ran
    assert not result.lane("compiled").ran
    assert isinstance(result.lane("compiled").error, RuntimeError)
    report = repr(result)
    assert re.search(r"^compiled .* did not run$", report, re.MULTILINE)
    assert "did not run  compiled: RuntimeError: No working C++ compiler found.\n" in report


def test_a_static_batch_fails_only_where_it_does_not_fit(clock):
    def static(x):
        clock.now += 4_000_000
        if len(x) != 1:
            raise ValueError("Got: 4 Expected: 1")

    result = race({"a": clock.contestant("a", 8000), "static": static}, X, batch=(1, 4, 16))
    assert result.ratio("static", 1).median == 2.0
    assert result.ratio("static", 4) is None
    assert "static: ValueError: Got: 4 Expected: 1 (batch 4, 16)" in repr(result)
    assert result.finding == "static against a: 2.00x as fast at batch 1"


def test_a_contestant_that_fails_in_a_late_round_leaves_the_race(clock):
    calls = iter(range(100))

    def tired(x):
        clock.now += 4_000_000
        if next(calls) == 40:
            raise OSError("tired")

    result = race({"a": clock.contestant("a", 4000), "tired": tired}, X, seconds=0.5)
    assert result.lane("tired").blocks == ()
    assert len(result.lane("a").blocks) == round(0.5 / 0.016)


def test_when_the_first_contestant_fails_the_next_one_is_the_baseline(clock):
    def broken():
        raise RuntimeError

    contestants = {"x": broken, "a": clock.contestant("a", 4), "b": clock.contestant("b", 4)}
    result = race(contestants)
    assert result.baseline == "a"
    assert repr(result).startswith("Race against a\n")


def prepared_contestant(clock, log):
    class Session:
        def __call__(self, *args):
            raise AssertionError("the convenience call must not be timed")

        def prepare(self, *args, threads=1, **kwargs):
            log.append(("prepare", args, threads, kwargs))

            def run():
                clock.now += 4_000_000

            return Prepared(run, "session.run: copies excluded", lambda: log.append("close"))

    return Session()


def test_a_contestant_that_prepares_itself_is_timed_as_it_says_and_closed(clock):
    log = []
    result = race({"s": prepared_contestant(clock, log)}, X, scale=2, threads=1, seconds=0.01)
    assert log == [("prepare", (X,), 1, {"scale": 2}), "close"]
    assert "timed    s: session.run: copies excluded\n" in repr(result)


def test_a_model_with_a_method_called_prepare_is_called_like_any_model():
    class Model(nn.Linear):
        def prepare(self):
            raise AssertionError("not the prepare of a contestant")

    result = race({"model": Model(2, 2).eval()}, X, seconds=0.001)
    assert result.lane("model").timed == track.PLAIN


def test_a_plain_callable_runs_in_inference_mode():
    modes = set()
    race({"f": lambda x: modes.add(torch.is_inference_mode_enabled())}, X, seconds=0.001)
    assert modes == {True}
    assert not torch.is_inference_mode_enabled()


def test_threads_are_set_for_everybody_read_back_and_put_back(clock, monkeypatch):
    monkeypatch.setattr(track, "sleep", lambda seconds: None)
    before, seen, log = torch.get_num_threads(), set(), []

    def f(x):
        seen.add(torch.get_num_threads())
        clock.now += 4_000_000

    contestants = {"f": f, "s": prepared_contestant(clock, log)}
    result = race(contestants, X, threads=before + 1, seconds=0.001)
    assert seen == {before + 1}
    assert log[0][2] == before + 1
    assert result.threads == before + 1
    assert f"threads  {before + 1} each, as torch reads back" in repr(result)
    assert torch.get_num_threads() == before


def test_threads_say_what_torch_granted_not_what_was_asked(clock, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(track, "sleep", lambda seconds: None)
    assert race({"a": clock.contestant("a", 4000)}, threads=4, seconds=0.01).threads == 1


def test_pools_rest_before_each_block_when_there_are_several_threads(clock, monkeypatch):
    rests = []
    monkeypatch.setattr(track, "sleep", rests.append)
    result = race({"a": clock.contestant("a", 4000)}, threads=2, seconds=1.0)
    assert len(result.lane("a").blocks) == round(1.0 / 0.058)  # two calls and a rest
    assert rests == [track.SETTLE] * len(result.lane("a").blocks)


@pytest.mark.parametrize(
    ("threads", "cores", "load", "contended"),
    [(1, 1, 9.0, False), (2, 4, 1.5, False), (2, 2, 1.2, True), (4, 2, None, True)],
)
def test_several_threads_get_a_verdict_only_where_cores_are_free(threads, cores, load, contended):
    lanes = (Lane("a", None, (2000,)), Lane("b", None, (1000,)))
    result = Race(lanes, threads=threads, cores=cores, load=load)
    assert result.contended is contended
    assert (result.ratio("b").verdict == "contended") is contended
    assert (": no verdict" in repr(result)) is contended


def test_a_model_in_training_mode_is_named_raced_in_eval_and_left_as_it_was():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    model[2].eval()
    before = model[1].running_mean.clone()
    modes = set()
    model.register_forward_hook(lambda module, *_: modes.add((module.training, module[1].training)))
    with pytest.warns(TrainingModeWarning) as warned:
        race({"net": model, "f": torch.relu}, X, seconds=0.001)
    assert (
        str(warned[0].message) == "net in training mode: raced in eval mode, put back afterwards."
    )
    assert warned[0].filename == __file__
    assert modes == {(False, False)}
    assert [part.training for part in model.modules()] == [True, True, True, False]
    assert torch.equal(model[1].running_mean, before)


def test_ctrl_c_returns_what_was_measured_marked_as_interrupted(clock):
    log, calls, before = [], iter(range(100)), torch.get_num_threads()

    def impatient(x):
        clock.now += 4_000_000
        if next(calls) == 80:
            raise KeyboardInterrupt

    result = race({"s": prepared_contestant(clock, log), "i": impatient}, X)
    assert result.interrupted
    assert [len(lane.blocks) for lane in result.lanes] == [14, 14]  # 51 of warm-up, 2 a round
    assert repr(result).startswith("Race against s, interrupted: what was measured until then\n")
    assert log[-1] == "close"
    assert torch.get_num_threads() == before


def test_ctrl_c_in_a_later_heat_keeps_the_earlier_ones(clock):
    def impatient(x):
        clock.now += 4_000_000
        if len(x) == 4:
            raise KeyboardInterrupt

    result = race({"i": impatient}, X, batch=(1, 4, 16))
    assert (result.interrupted, result.batches) == (True, (1,))


def test_ctrl_c_before_the_first_round_is_a_ctrl_c(clock):
    log = []

    def impatient(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        race({"s": prepared_contestant(clock, log), "i": impatient}, X)
    assert log[-1] == "close"


def test_the_collector_is_off_in_the_rounds_and_on_again_afterwards(clock):
    import gc

    states = []

    def f():
        states.append(gc.isenabled())
        clock.now += 4_000_000

    race({"f": f}, seconds=0.001)
    assert states == [True, True] + [False] * 10
    assert gc.isenabled()


def test_two_races_differ_in_their_numbers_alone(clock):
    def report(*costs):
        names = ("PyTorch", "ONNX Runtime", "torch.compile")
        return repr(
            race({n: clock.contestant(n, c) for n, c in zip(names, costs, strict=True)}, X, batch=3)
        )

    reports = {report(7, 4000, 123.4), report(4000, 38.75, 4010), report(400, 400, 400)}
    assert len(reports) == 3
    assert len({sanitised(one) for one in reports}) == 1


def test_records_hold_what_the_table_shows(clock):
    def broken():
        raise RuntimeError("no")

    contestants = {"a": clock.contestant("a", 9000, 4000), "b": clock.contestant("b", 2000)}
    a, b, failed = race({**contestants, "x": broken}, seconds=1.0).records()
    assert (a["contestant"], a["batch"], a["median"], a["first_call"]) == ("a", None, 4e-3, 9e-3)
    assert (b["ratio"], b["verdict"], b["calls_per_block"]) == (2.0, "faster", 2)
    assert (failed["median"], failed["ratio"], failed["error"]) == (None, None, "RuntimeError: no")
    assert a.keys() == b.keys() == failed.keys()


def test_the_report_names_the_machine_and_the_versions_in_use(clock):
    result = race({"a": clock.contestant("a", 4000)}, seconds=0.001)
    assert f"torch {torch.__version__}" in result.machine
    assert latency.platform.system() in result.machine
    assert re.search(rf"\nmachine  \d+ cores?, {re.escape(result.machine)}\n", repr(result))


def test_one_batch_size_is_drawn_as_blocks_and_several_as_a_sweep():
    from matplotlib import pyplot

    def lanes(*batches):
        return tuple(Lane(name, batch, (4000, 5000)) for batch in batches for name in ("a", "b"))

    single = Race(lanes(4), cores=2).plot()
    swept = Race(lanes(1, 64), cores=2).plot()
    assert single.get_xscale() == "linear"
    assert single.get_title(loc="left") == Race(lanes(4)).finding
    assert (swept.get_xscale(), swept.get_xlabel()) == ("log", "batch size")
    own = pyplot.figure().add_subplot()
    assert Race(lanes(1, 64)).plot(ax=own) is own
    pyplot.close("all")


def error_of(*args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        race(*args, **kwargs)
    return str(caught.value)


def test_what_cannot_race_is_refused_with_what_to_do_next():
    example = 'Write race({"PyTorch": model, "ONNX Runtime": artifact}, x).'
    assert error_of({}, X) == (
        f"There is nothing to race: the dict of contestants is empty. {example}"
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
    assert error_of({"relu": torch.relu}, torch.empty(2, device="meta")) == (
        "An input is on meta, where calls return before the work is done. "
        "race measures the CPU: pass tensor.cpu() and a model on the CPU."
    )


@pytest.mark.parametrize("batch", [0, (1, -4), (), (1, 2.5), True])
def test_a_batch_size_is_a_whole_number(batch):
    assert error_of({"relu": torch.relu}, X, batch=batch) == (
        f"batch is {batch!r}; it must be one whole number of 1 or more, or several: (1, 4, 16)."
    )


@pytest.mark.parametrize("args", [(), (torch.tensor(1.0),), (torch.empty(0, 2),)])
def test_a_sweep_needs_rows_to_repeat(args):
    assert error_of({"relu": torch.relu}, *args, batch=(1, 4)) == (
        "batch is (1, 4), but no row of the inputs can be repeated. "
        "Pass tensors whose dimension 0 is the batch, with one row or more."
    )


def test_when_nobody_runs_everybodys_reason_is_given():
    def long_winded(x):
        raise RuntimeError("o" * 100)

    assert error_of({"a": lambda x: 1 / 0, "b": long_winded}, X) == (
        f"No contestant ran. a: ZeroDivisionError: division by zero; b: RuntimeError: {'o' * 77}"
        ".... Call one by hand with the same inputs to see it fail."
    )


def test_when_nobody_runs_the_first_error_is_chained():
    with pytest.raises(InputError) as caught:
        race({"a": lambda x: 1 / 0}, X)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_lane_that_never_was_names_those_that_were():
    result = Race((Lane("a", 1, (1000,)), Lane("b", 1, (1000,))))
    with pytest.raises(InputError) as caught:
        result.lane("c", 4)
    assert str(caught.value) == (
        "There is no contestant 'c' at batch 4 in this race. It has 'a', 'b' at batch 1."
    )
