"""Races and sweeps that were made up: their tables, plots and files."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import pytest

from onnx_workbench.errors import InputError, LoadError
from onnx_workbench.formatting import WIDTH
from onnx_workbench.timing.bench import Started
from onnx_workbench.timing.report import Race
from onnx_workbench.timing.results import Conditions, Replicate, Result
from onnx_workbench.timing.sizes import Sweep

WOBBLE = (1.0, 1.002, 0.998, 1.001, 0.999)
STARTED = Started("call", imported=0.9, load=0.1, first=0.02, peak=80_000_000)


def result(name, microseconds, processes=5, mode="", **more):
    """A result whose processes took about so many microseconds a call."""
    blocks = [round(1000 * microseconds * wobble) for wobble in WOBBLE[:processes]]
    started = replace(STARTED, mode=mode)
    return Result(name, tuple(Replicate((b,) * 9, started=started) for b in blocks), **more)


def race(processes=5, copy=None, threads=1, load=None, **microseconds):
    """A race of these, None for one that fails; the first has a copy."""
    results = [
        result(name, cost, processes) if cost else Result(name, error="RuntimeError: no")
        for name, cost in microseconds.items()
    ]
    if first := copy or next(iter(microseconds.values())):
        results.insert(1, result("a again", first, processes, control=True))
    environment = {"chip": "x", "torch": "torch 2.13"}
    conditions = Conditions(environment, threads, 4, load, stopped="in time")
    return Race(tuple(results), conditions)


def title(ax):
    return ax.get_title(loc="left").replace("\n", " ")


# ---------------------------------------------------------------- a race


def test_table_has_a_row_each_and_records_hold_the_same(monkeypatch):
    found = race(a=100, b=50, x=None)
    head, _, a, copy, b, failed, *_ = repr(found).splitlines()[1:]
    assert " ".join(head.split()) == "target median p90 p99 ratio interval verdict"
    assert re.search(r"^a +100 us +\S+ us +\S+ us$", a)
    assert re.search(r"^a again .* 1.00x .* same$", copy)
    assert re.search(r"^b .* 2.00x  2.00x to 2.00x  faster$", b)
    assert re.search(r"^x( +-){5} +did not run$", failed)
    assert re.search(r"(?m)^a +900 ms +100 ms +20.0 ms +80.0 MB$", repr(found))
    assert "did not run  x: RuntimeError: no\n" in repr(found)
    a, copy, b, failed = found.records()
    keys = "target", "import", "load", "first_call", "peak_bytes", "median", "p50"
    assert [a[key] for key in keys] == ["a", 0.9, 0.1, 0.02, 80_000_000, 1e-4, 1e-4]
    assert (b["ratio"], b["verdict"]) == (pytest.approx(2.0), "faster")
    assert (copy["target"], copy["verdict"]) == ("a again", "same")
    assert (failed["median"], failed["ratio"], failed["error"]) == (None, None, "RuntimeError: no")
    assert a.keys() == b.keys() == failed.keys()
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert found.to_frame() == found.records()


def test_race_whose_baseline_differs_from_its_copy_is_untrusted():
    found = race(a=100, copy=80, b=50)
    assert (found.trusted, found.ratio("b").verdict) == (False, "untrusted")
    assert "control  a against its own copy: 1.25x, UNTRUSTED" in repr(found)


@pytest.mark.parametrize("processes", [1, 5])
def test_target_is_compared_with_the_mean_of_the_baseline_and_its_copy(processes):
    found = race(processes, a=100, copy=81, b=90)
    assert found.ratio("b").value == pytest.approx(1.0)
    assert re.search(r"(?m)^ratio +\(mean of a and its copy\) / target", repr(found))


def test_a_copy_whose_baseline_failed_is_compared_with_nothing():
    found = race(a=None, copy=80, b=100, c=50)
    assert (found.control, found.trusted) == (None, True)
    assert found.ratio("c").value == pytest.approx(2.0)
    assert re.search(r"(?m)^ratio +b / target", repr(found))


def test_first_that_ran_is_the_baseline():
    found = race(a=None, b=100, c=50)
    assert found.baseline == "b"
    assert found.ratio("c").value == pytest.approx(2.0)
    assert found.ratio("b") is found.ratio("a") is None
    with pytest.raises(InputError, match=r"(?s)'d'.*'a', 'b', 'c'"):
        found.result("d")


@pytest.mark.parametrize(
    ("threads", "cores", "load", "contended"),
    [(1, 1, 9.0, False), (2, 4, 1.5, False), (2, 2, 1.2, True), (4, 2, None, True)],
)
def test_several_threads_get_a_verdict_only_where_cores_are_free(threads, cores, load, contended):
    conditions = Conditions(threads=threads, cores=cores, load=load)
    found = replace(race(a=100, b=50), conditions=conditions)
    assert (found.ratio("b").verdict == "contended") is contended
    assert (": no verdict" in repr(found)) is contended


def test_times_are_those_with_the_core_and_percentiles_those_of_single_calls():
    laps = (1000,) * 95 + (10_000,) * 5
    one = Result("a", (Replicate((5000, 9000, 4000), (1000, 5000, 0), laps),))
    assert one.times.tolist() == [4e-6, 4e-6, 4e-6]
    assert (one.percentile(50), one.percentile(99)) == pytest.approx((1e-6, 1e-5))
    assert "less the 33.3 % in which other processes had the core\n" in repr(Race((one,)))
    quiet = Result("a", (Replicate((5000,)),))
    assert quiet.percentile(99) == pytest.approx(5e-6)
    assert re.search("clock +wall time\n", repr(Race((quiet,))))


def test_api_and_compute_are_two_tables_with_a_baseline_each():
    modes = {"mode": "API"}, {}, {"mode": "compute"}, {"mode": "compute"}
    costs = {"api": 100, "eager": 200, "bound": 50, "twice": 25}
    results = [result(name, costs[name], **mode) for name, mode in zip(costs, modes, strict=True)]
    found = Race(tuple(results))
    values = {name: found.ratio(name).value for name in ("eager", "bound", "twice")}
    assert values == pytest.approx({"eager": 0.5, "bound": 4.0, "twice": 8.0})  # against eager
    api, compute = repr(found).split("\n\n")[0].split("compute: ")
    assert "bound" not in api
    assert "api" not in compute.replace("API", "")


def test_text_is_narrow_and_html_folds_how_it_was_measured():
    found = race(load=1.5, **{"a": 100, "b " * 40: 50, "x": None})
    assert max(map(len, repr(found).splitlines())) <= WIDTH
    results, startup, measured = re.split("<details><summary>", found._repr_html_())
    assert "p99" in results
    assert startup.startswith("Until the first answer")
    assert measured.startswith("How it was measured")
    assert "control" in measured


def test_title_names_the_fastest_and_counts_the_others():
    plot = race(a=100, b=50, c=25, d=200).plot()
    assert title(plot).startswith("c is 4.00x as fast as a (95 % interval")
    assert title(plot).endswith("of 3 targets against a: 2 faster, 1 slower")
    assert [text.get_text() for text in plot.texts if text.get_text().endswith("x")] == [
        "2.00x",
        "4.00x",
        "0.50x",
    ]


def test_plots_show_what_was_measured():
    found = race(a=100, b=50)
    assert title(found.plot()) == found.finding
    assert found.plot().get_xlabel()
    assert [label.get_text() for label in found.plot("ratios").get_yticklabels()] == ["b"]
    startup = found.plot("startup")
    assert [bar.get_width() for bar in startup.patches[:3]] == pytest.approx([0.9, 0.1, 0.02])
    assert title(startup).startswith("first answer: a after 1.02 s and with 80.0 MB; b")
    bound = result("bound", 60, mode="compute", unbound="run")
    copying = Race((result("run", 100, mode="API"), bound))
    assert [record["copies"] for record in copying.records()] == [None, pytest.approx(0.4)]
    copies = copying.plot("copies")
    assert [bar.get_width() for bar in copies.patches] == pytest.approx([6e-5, 4e-5])
    assert title(copies).startswith("40 % of run ")
    quick = replace(found, conditions=replace(found.conditions, workers=False))
    for refused, what in ((race(a=100), "ratios"), (found, "copies"), (quick, "startup")):
        with pytest.raises(InputError, match=what):
            refused.plot(what)


@pytest.mark.parametrize(("took", "first"), [(16.0, "It took 16 s instead"), (14.0, "Race ")])
def test_race_that_took_half_as_long_again_begins_with_that(took, first):
    conditions = Conditions(seconds=10.0, took=took)
    assert repr(replace(race(a=100), conditions=conditions)).startswith(first)


def test_race_is_compared_with_an_earlier_one_of_the_same_environment():
    then, now = race(a=100, b=100), race(a=100, b=50)
    found = now.since(then)
    assert (found["a"].verdict, found["b"].verdict) == ("same", "faster")
    for change in ({"threads": 2}, {"environment": {"chip": "y"}}, {"one_core": True}):
        other = replace(then, conditions=replace(then.conditions, **change))
        with pytest.raises(InputError, match="different environments"):
            now.since(other)
    with pytest.raises(InputError, match="single process"):
        now.since(race(a=100, processes=1))


# ---------------------------------------------------------------- a sweep

SIZES = Sweep("batch", {1: race(a=100, b=50), 4: race(a=200, b=200), 16: race(a=800, b=1600)})


def test_places_change_between_two_sizes_with_opposite_verdicts():
    assert SIZES.crossovers == {"b": pytest.approx(4.0, rel=0.01)}  # the same at 4 says nothing
    never = Sweep("batch", {1: race(a=100, b=50), 16: race(a=100, b=100)})
    assert never.crossovers == {}
    rows = {1: race(a=100, b=50, c=10), 2: race(a=100, b=200, c=10), 4: race(a=100, b=50, c=1e3)}
    found = Sweep("batch", rows).crossovers
    assert found == pytest.approx({"b": 2**0.5, "c": 2 * 2**0.5}, rel=0.01)


def test_gain_is_the_throughput_over_that_of_the_first_size():
    found = Sweep("threads", {1: race(a=100, b=80), 4: race(a=40, b=20, threads=4)})
    gain = found.gain("a", 4)
    assert gain.value == pytest.approx(2.5)
    assert 2.45 < gain.low < 2.5 < gain.high < 2.55
    assert found.gain("a", 1) is None
    assert found.throughput("a", 4) == pytest.approx(2.5e4)  # the threads do not multiply it
    assert "b is 4.00x as fast with 4 threads as with 1 (" in found.finding
    contended = Sweep("threads", {1: race(a=100), 4: race(a=40, threads=4, load=2.0)})
    assert contended.gain("a", 4).verdict == "contended"
    assert contended.plot().lines[1].get_markerfacecolor() == "none"
    assert [record["contended"] for record in contended.records()] == [False] * 2 + [True] * 2


def test_finding_plot_table_and_records_of_a_sweep_hold_the_same():
    assert f"\n{SIZES.finding}\n" in repr(SIZES)
    assert re.search(r"(?m)^b +16 +10,000  1.60 ms .* 0.50x +0.50x .* slower$", repr(SIZES))
    ax = SIZES.plot()
    assert title(ax) == SIZES.finding
    last = [r["throughput"] for r in SIZES.records() if r["batch"] == 16 and r["verdict"] != "same"]
    assert [line.get_ydata()[-1] for line in ax.lines[:2]] == pytest.approx(last)


def test_target_that_fails_at_one_size_stays_in_the_sweep():
    found = Sweep("batch", {1: race(a=100, static=50), 4: race(a=100, static=None)})
    assert found.finding == "static against a: 2.00x at batch 1"
    assert re.search(r"(?m)^static +4( +-)+  did not run$", repr(found))
    assert found.throughput("static", 4) is None
    assert len(found.plot().lines) == 2


# ---------------------------------------------------------------- files


MADE = [race(a=100, b=50, x=None, load=1.5), replace(SIZES, interrupted=True)]


@pytest.mark.parametrize("made", MADE, ids=["race", "sweep"])
def test_saved_result_is_the_same_when_it_is_loaded(made, tmp_path):
    path = made.save(tmp_path / "result.json")
    assert type(made).load(path) == made
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]
    other = Sweep if isinstance(made, Race) else Race
    with pytest.raises(LoadError, match=r"result\.json"):
        other.load(path)


def changed(old, new):
    return lambda text: text.replace(old, new)


DAMAGES = [lambda text: text[: len(text) // 2], lambda _: "", lambda _: "[]", lambda _: "null"]
DAMAGES += [lambda _: "[" * 100_000, lambda _: "\udcff", changed("queued", "asked")]
DAMAGES += [changed("100000", "100001"), changed('"calls": 1', '"calls": 0'), changed("[", "[0, ")]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("made", MADE, ids=["race", "sweep"])
@pytest.mark.filterwarnings("error")
def test_file_that_was_cut_or_changed_is_an_error_with_its_name(made, damage, tmp_path):
    path = made.save(tmp_path / "before.json")
    path.write_text(damage(path.read_text()), errors="surrogateescape")
    with pytest.raises(LoadError, match=r"before\.json"):
        type(made).load(path)


NO_PATHS = [None, 3, "a\0b", "x" * 5000, "no/such/folder/race.json", [], {}]


@pytest.mark.parametrize("made", MADE, ids=["race", "sweep"])
def test_path_that_is_none_to_read_or_to_write(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = [(type(made).load, path) for path in (*NO_PATHS, b"race.json", tmp_path)]
    for call, path in calls + [(made.save, path) for path in (*NO_PATHS, "", tmp_path)]:
        with pytest.raises(InputError):
            call(path)
    assert list(tmp_path.iterdir()) == []
