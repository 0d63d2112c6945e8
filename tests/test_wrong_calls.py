"""Doors by wrong values: each call is an InputError before any work begins, and none is raw."""

import math
import os

import numpy as np
import pytest
import torch
from torch import nn

import onnx_workbench as ow
from onnx_workbench.errors import InputError, LoadError
from onnx_workbench.timing.report import Race
from onnx_workbench.timing.results import Replicate, Result
from onnx_workbench.timing.sizes import Sweep

X = torch.ones(2, 4)
NAN, INF = math.nan, math.inf


class Bare(nn.Module):
    def __init__(self):
        pass

    def forward(self, x):
        return x


class Counts(nn.Module):
    def forward(self, x):
        return {"y": x * 2, "rows": x.shape[0], "name": "counts", "none": None}


RACE = Race(
    (
        Result("a", (Replicate((4000, 4040)),) * 3),
        Result("b", (Replicate((2000, 2000)),) * 3),
    )
)
SWEEP = Sweep("batch", {1: RACE})


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    path = tmp_path_factory.mktemp("wrong") / "line.onnx"
    return ow.export(nn.Linear(4, 2).eval(), (X,), path)


@pytest.fixture(scope="module")
def loaded(onnx):
    return ow.load(onnx.path)


def refused(call, *args, **options):
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    assert str(caught.value)


PATHS = [None, 3, "a\0b", "x" * 5000, "no/such/folder/race.json", [], {}]


@pytest.mark.parametrize("path", [*PATHS, b"race.json"], ids=lambda path: f"{path!r:.20}")
@pytest.mark.parametrize("kind", [Race, Sweep])
def test_a_path_that_is_none_to_read(kind, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(kind.load, path)
    refused(kind.load, tmp_path)


@pytest.mark.parametrize("path", [*PATHS, ""], ids=lambda path: f"{path!r:.20}")
@pytest.mark.parametrize("result", [RACE, SWEEP], ids=["race", "sweep"])
def test_a_path_that_is_none_to_write(result, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(result.save, path)
    refused(result.save, tmp_path)
    assert list(tmp_path.iterdir()) == []


SECONDS = [0, -1, NAN, INF, "5", [], True, 1j]
MATTERS = [-0.1, NAN, "small", None, True]
THREADS = [0, -1, 1.5, NAN, "2", None, True, 100_000, os.cpu_count() * 4 + 1]
SEEDS = [-1, 0.5, "a", None]
RACERS = {"a": abs}


def options(**values):
    return [(name, value) for name, wrong in values.items() for value in wrong]


@pytest.mark.parametrize(
    ("name", "value"),
    options(
        seconds=SECONDS, matters=MATTERS, threads=[t for t in THREADS if t is not None], seed=SEEDS
    ),
)
@pytest.mark.parametrize("quick", [True, False])
def test_options_of_race_and_sweep(name, value, quick):
    refused(ow.race, RACERS, (1,), quick=quick, **{name: value})
    refused(ow.sweep, RACERS, abs, n=(1, 2), quick=quick, **{name: value})


LEVELS = ["none", "ALL", "max", "", None, 3, [], b"all"]


@pytest.mark.parametrize(("name", "value"), options(seconds=SECONDS, threads=THREADS, level=LEVELS))
def test_options_of_profile(name, value, onnx):
    refused(ow.profile, onnx, (X,), **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    options(level=LEVELS, spinning=["off", 2, None], arena=[0, "no"], parallel=[None], bound=["x"]),
)
def test_options_of_using(name, value, onnx):
    refused(onnx.using, **{name: value})


@pytest.mark.parametrize(
    "racers",
    [
        None,
        {},
        [],
        [abs],
        "ab",
        3,
        torch.ones(3),
        {1: abs},
        {None: abs},
        {("a", 1): abs},
        {"a": 3},
        {"a": None},
        {"a": abs, "b": Bare()},
    ],
    ids=lambda racers: type(racers).__name__,
)
def test_what_cannot_race(racers):
    refused(ow.race, racers, (X,), quick=True, seconds=0.02)
    refused(ow.sweep, racers, lambda n: X[:n], n=(1, 2), quick=True, seconds=0.02)


INPUTS = [
    None,
    np.ones((2, 4), np.float32),
    X.to_sparse(),
    X.double(),
    torch.ones(3),
    3.0,
    "x",
    [1.0, 2.0],
    X.to("meta"),
]


@pytest.mark.parametrize("value", INPUTS, ids=lambda value: type(value).__name__)
def test_inputs_of_a_file(value, onnx, loaded):
    for artifact in (onnx, loaded):
        refused(artifact, value)
        refused(artifact, input=value)
        refused(artifact.feeds, value)
        refused(artifact.using(bound=True), value)
        refused(ow.profile, artifact, (value,))


@pytest.mark.parametrize("call", [(), (X, X), (X, 1)], ids=lambda call: str(len(call)))
def test_as_many_inputs_as_the_file_takes(call, onnx, loaded):
    for artifact in (onnx, loaded):
        refused(artifact, *call)
        refused(ow.profile, artifact, call)
        refused(artifact.timed_call, call, {})
        refused(artifact, X, other=X)


@pytest.mark.parametrize(
    "thing",
    [None, 3, "model.onnx", nn.ReLU(), Bare(), [], b"x"],
    ids=lambda x: f"{type(x).__name__}",
)
def test_what_is_no_artifact(thing):
    refused(ow.profile, thing, (X,))
    refused(ow.trace, thing)


@pytest.mark.parametrize(
    "model", [None, 3, "model.onnx", Bare(), [], torch.relu], ids=lambda x: f"{type(x).__name__}"
)
def test_what_is_no_module(model):
    refused(ow.audit, model, (X,))
    refused(ow.capture, model, (X,))
    refused(ow.probe, model, (X,), dynamic_shapes={"x": {0: "n"}})
    refused(ow.observe(model).__enter__)


@pytest.mark.parametrize(
    "make",
    [torch.jit.script, lambda model: torch.jit.trace(model, X)],
    ids=["scripted", "traced"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_module_of_torchscript(make, tmp_path):
    model = make(nn.Sequential(nn.Linear(4, 2), nn.ReLU()).eval())
    refused(ow.watch, model, (X,))
    refused(ow.observe(model).__enter__)
    refused(ow.capture, model, (X,))
    assert not ow.audit(model, (X,), skip={"latency", "hot lines"})
    race = ow.race({"TorchScript": model}, (X,), quick=True, seconds=0.02)
    assert race.result("TorchScript").ran


@pytest.mark.parametrize("f", [None, 3, "f", Bare(), X], ids=lambda f: type(f).__name__)
def test_what_cannot_be_watched(f):
    refused(ow.watch, f, (X,))


@pytest.mark.parametrize("calls", [0, -1, 1.5, "8", None, True])
def test_how_many_calls_are_observed(calls):
    refused(ow.observe(nn.ReLU(), calls).__enter__)


def test_a_model_that_returns_more_than_tensors_is_observed_as_it_runs():
    model = Counts().eval()
    with ow.observe(model) as seen:
        results = [model(X), model(torch.ones(5, 4))]
    assert [result["rows"] for result in results] == [2, 5]
    assert results[0]["name"] == "counts"
    assert list(seen.dynamic_shapes) == ["x"]
    assert "forward" not in vars(model)


@pytest.mark.parametrize(
    "skip", ["latency", 3, None, {"lunch"}, [["latency"]]], ids=lambda x: f"{type(x).__name__}"
)
def test_what_an_audit_skips(skip):
    refused(ow.audit, nn.ReLU().eval(), (X,), skip=skip)


@pytest.mark.parametrize("tolerance", [[], NAN, -1, "loose"], ids=repr)
def test_the_tolerance_of_a_comparison(tolerance):
    model = nn.ReLU().eval()
    refused(ow.audit, model, (X,), tolerance=tolerance)
    refused(ow.opsets, model, (X,), tolerance=tolerance)
    refused(ow.probe, model, (X,), dynamic_shapes=({0: "n"},), tolerance=tolerance)


@pytest.mark.parametrize(
    "height",
    ["tall", 0, 100, -5, NAN, None, 1.5, True, [], "640px"],
    ids=lambda x: f"{type(x).__name__}",
)
def test_the_height_of_a_view(height, onnx):
    refused(ow.view, onnx, height=height)


# ---------------------------------------------------------------- the file of a race


def cut(text):
    return text[: len(text) // 2]


def changed(old, new):
    return lambda text: text.replace(old, new)


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        lambda text: "",
        lambda text: "[]",
        lambda text: "null",
        lambda text: "[" * 100_000,
        changed("4000", "NaN"),
        changed("4000", "-Infinity"),
        changed("4000", "-4000"),
        changed("4000", "0"),
        changed("4000", '"4000"'),
        changed("4000", "4.5"),
        changed("[4000, 4040]", "[]"),
        changed("[4000, 4040]", "7"),
        changed('"calls": 1', '"calls": 0'),
        changed('"calls": 1', '"calls": null'),
        changed('"first": 0.0', '"first": -1.0'),
        changed('"name": "a"', '"name": 5'),
        changed('"results"', '"lines"'),
        changed('"matters": 0.03', '"matters": "x"'),
        changed('"environment": {}', '"environment": 3'),
        changed("queued", "asked"),
    ],
)
@pytest.mark.parametrize("result", [RACE, SWEEP], ids=["race", "sweep"])
@pytest.mark.filterwarnings("error")
def test_a_file_that_was_cut_or_changed_is_an_error_with_its_name(result, damage, tmp_path):
    path = tmp_path / "before.json"
    result.save(path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(LoadError, match=r"before\.json"):
        repr(type(result).load(path))


def test_bytes_that_are_no_text_are_an_error_with_the_files_name(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\0{")
    with pytest.raises(LoadError, match=r"x\.json"):
        Race.load(tmp_path / "x.json")


def test_a_file_that_nobody_touched_is_read(tmp_path):
    RACE.save(tmp_path / "race.json")
    SWEEP.save(tmp_path / "sweep.json")
    assert Race.load(tmp_path / "race.json") == RACE
    assert list(Sweep.load(tmp_path / "sweep.json").races) == [1]
