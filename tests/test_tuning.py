"""Which options win: told from races that were made up, so that nothing here is timed."""

from __future__ import annotations

import matplotlib
import pytest
import torch
from models import relu_file

matplotlib.use("Agg")

from onnx_workbench import tune, tuning
from onnx_workbench.errors import InputError
from onnx_workbench.racing.lane import Lane, Run
from onnx_workbench.racing.report import Conditions, Race
from onnx_workbench.session import Options
from onnx_workbench.tuning import Setting

X = torch.ones(2, 4)


@pytest.fixture(scope="module")
def relu(tmp_path_factory):
    return relu_file(tmp_path_factory.mktemp("relu") / "relu.onnx", 2, 4)


def race_of(speeds, cores=1, **conditions):
    """Five processes each; ``speeds`` are times as fast as the first, always the same."""
    base, *_ = speeds
    lanes = []
    for name, speed in {base: 1.0, **speeds}.items():
        runs = tuple(
            Run((round(1e6 * (1 + wobble) / speed),) * 9)
            for wobble in (0, 0.01, -0.01, 0.02, -0.02)
        )
        lanes += [Lane(name, runs)]
        if name == base:
            lanes += [Lane(f"{name} again", runs, control=True)]
    return Race(tuple(lanes), Conditions(cores=cores, **conditions))


@pytest.fixture
def raced(monkeypatch):
    """What is raced, race by race; the outcome is what the test says of each contestant."""
    calls, outcomes = [], {"cores": 1}

    def pretend(entrants, *args, threads, seconds, matters, seed, **kwargs):
        calls.append((dict(entrants), threads))
        speed = outcomes.get(len(calls), outcomes)
        load = outcomes.get("load", 0.0)
        speeds = {name: speed.get(name, 1.0) for name in entrants}
        stopped = len(calls) == outcomes.get("Ctrl-C in race")
        told = {"threads": threads, "load": load, "matters": matters, "interrupted": stopped}
        return race_of(speeds, outcomes["cores"], **told)

    monkeypatch.setattr(tuning, "race", pretend)
    return calls, outcomes


def test_without_a_win_the_defaults_stand(relu, raced):
    raced[1].update({"arena off": 1.02, "graph optimisation off": 0.5})
    found = tune(relu, X)
    assert not found
    assert found.setting == Setting(relu)
    assert found.finding == "the defaults stand: no change is surely faster by more than 3 %"
    assert len(raced[0]) == 1, "nothing is left to confirm"
    assert found.ratios()["graph optimisation off"].verdict == "slower"


def test_what_won_is_raced_again_all_together(relu, raced):
    raced[1].update({"arena off": 1.1, "IOBinding": 1.4, "together": 1.5})
    found = tune(relu, X)
    assert found
    assert found.setting.options == Options(arena=False, bound=True)
    assert raced[0][1][0]["together"].options == Options(arena=False, bound=True)
    assert found.finding == (
        "1 thread, arena off, IOBinding\n"
        "together is 1.50x as fast as defaults (95 % interval 1.50 to 1.50)"
    )


def test_a_win_that_does_not_hold_is_none(relu, raced):
    raced[1].update({"IOBinding": 1.4, "together": 1.01})
    found = tune(relu, X)
    assert not found
    assert found.finding == "the defaults stand: raced again, IOBinding did not hold"
    assert found.ratios()["together"].verdict == "same"


def test_of_two_that_exclude_each_other_the_faster_is_taken(relu, raced):
    raced[1].update(
        {"graph optimisation basic": 1.3, "graph optimisation extended": 1.2, "together": 1.3}
    )
    assert tune(relu, X).setting.options == Options(level="basic")


def test_a_win_that_is_smaller_than_what_matters_is_none(relu, raced):
    raced[1].update({"IOBinding": 1.04, "together": 1.04})
    assert tune(relu, X, matters=0.03)
    assert not tune(relu, X, matters=0.05)


def test_threads_are_tried_up_to_the_cores_with_what_won(relu, raced):
    raced[1].update({"cores": 6, "IOBinding": 1.4, "together": 1.4})
    raced[1].update({"4 threads, spinning off, IOBinding": 2.5, "6 threads, IOBinding": 2.0})
    found = tune(relu, X)
    entrants, threads = raced[0][-1]
    assert threads == 6
    assert [setting.threads for setting in entrants.values()] == [1, 2, 2, 4, 4, 6, 6]
    assert found.setting == Setting(relu, Options(bound=True, spinning=False), threads=4)
    assert "4 threads, spinning off, IOBinding is 2.50x as fast as 1 thread" in found.finding


def test_threads_that_had_to_share_cores_never_win(relu, raced):
    raced[1].update({"cores": 2, "load": 2.0, "2 threads, ONNX Runtime's defaults": 1.9})
    found = tune(relu, X)
    assert not found
    assert found.ratios()["2 threads, ONNX Runtime's defaults"].verdict == "contended"


def test_each_setting_opens_a_session_of_its_own_and_no_torch_comes_along(relu):
    entry = Setting(relu, Options(bound=True, level="off"), threads=2).entry((X,), {}, threads=1)
    assert (entry.threads, entry.options) == (2, Options(bound=True, level="off"))
    assert type(entry).__module__ == "onnx_workbench.session"
    ready = entry()
    assert (ready.threads, ready.panel) == (2, "")
    assert relu.entry((X,), {})().panel == "API"
    assert relu.using(bound=True).entry((X,), {})().panel == "compute"
    assert Setting(relu)(X).equal(X)


def test_the_report(relu, raced):
    raced[1].update({"IOBinding": 1.4, "together": 1.4})
    lines = repr(tune(relu, X)).splitlines()
    assert lines[0] == "Tuning: 1 thread, IOBinding"
    assert lines[2:4] == [
        "change                       ratio  95 % interval  verdict",
        "---------------------------  -----  -------------  -------",
    ]
    assert "together                     1.40x   1.40 to 1.40  faster" in lines
    assert "together   what won, in a race of its own: only that counts" in lines


def test_the_plot_and_the_records_hold_the_same(relu, raced):
    raced[1].update({"IOBinding": 1.4})
    found = tune(relu, X)
    names = [label.get_text().replace("\n", " ") for label in found.plot().get_yticklabels()]
    assert names == [record["change"] for record in found.records()]
    assert found.records()[5]["verdict"] == "faster"


@pytest.mark.parametrize(("at", "races"), [(1, 1), (2, 2), (3, 3)])
def test_ctrl_c_ends_it_and_is_said_in_the_result(relu, raced, at, races):
    raced[1].update({"cores": 2, "IOBinding": 1.4, "together": 1.4, "Ctrl-C in race": at})
    raced[1].update({"2 threads, IOBinding": 2.0})
    found = tune(relu, X)
    assert (found.interrupted, len(found.races)) == (True, races)
    assert repr(found).startswith("Tuning, interrupted: what was measured until then: ")
    assert found.setting.threads == 1
    assert found.setting.options.bound == (at == 3), "only what a whole race confirmed"


def test_what_is_no_artifact_is_told():
    with pytest.raises(InputError) as caught:
        tune(torch.nn.ReLU(), X)
    assert str(caught.value) == (
        "tune() was given a ReLU, and it takes an Artifact: session options are ONNX Runtime's. "
        "Pass what export() or load() returns."
    )


def test_inputs_that_do_not_fit_are_told_before_anything_is_started(relu, raced):
    with pytest.raises(InputError):
        tune(relu, torch.ones(3, 9))
    assert raced[0] == []
