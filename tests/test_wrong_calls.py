"""Doors by wrong values: each call is an InputError before any work begins, and none is raw."""

import io
import math
import os
import re
from itertools import product

import numpy as np
import onnx as onnx_package
import onnxscript
import pytest
import torch
from models import module
from onnxscript import FLOAT, opset18, opset20
from torch import nn
from torch.export import AdditionalInputs, Dim, ShapesCollection

import onnx_workbench as ow
from onnx_workbench.errors import CaptureError, ExportError, InputError, LoadError

X = torch.ones(2, 4)
NAN, INF = math.nan, math.inf


class Bare(nn.Module):
    def __init__(self):
        pass

    def forward(self, x):
        return x


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    path = tmp_path_factory.mktemp("wrong") / "line.onnx"
    return ow.export(nn.Linear(4, 2).eval(), (X,), path)


@pytest.fixture(scope="module")
def loaded(onnx):
    return ow.load(onnx.path)


def refused(call, *args, **options):
    __tracebackhide__ = True
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    hint = caught.value.hint
    assert hint[:1].isupper(), f"what to do next, as a sentence: {hint!r}"


SECONDS = [0, -1, NAN, INF, "5", [], True, 1j]
MATTERS = [-0.1, NAN, "small", None, True]
THREADS = [0, -1, 1.5, NAN, "2", None, True, 100_000, os.cpu_count() * 4 + 1]
SEEDS = [-1, 0.5, "a", None]
RACERS = {"a": abs}


def options(**values):
    return [(name, value) for name, wrong in values.items() for value in wrong]


@pytest.mark.parametrize("quick", [True, False])
def test_options_of_race_and_sweep(quick):
    threads = [value for value in THREADS if value is not None]
    for name, value in options(seconds=SECONDS, matters=MATTERS, threads=threads, seed=SEEDS):
        refused(ow.race, RACERS, (1,), quick=quick, **{name: value})
        refused(ow.sweep, RACERS, abs, n=(1, 2), quick=quick, **{name: value})


def test_mode_of_capture_and_device_of_a_target():
    for value in ["yes", "", 1, X]:
        refused(ow.capture, nn.ReLU().eval(), (X,), strict=value)
    for value in ["gpu", "cuda:x", "", None, X]:
        refused(ow.placed, nn.ReLU(), value)


def test_options_of_an_export_for_a_file(onnx, loaded):
    for artifact, option in product((onnx, loaded), ("opset_version", "custom_translation_table")):
        refused(ow.audit, artifact, (X,), **{option: 18 if option == "opset_version" else {}})


LEVELS = ["none", "ALL", "max", "", None, 3, [], b"all"]


USING = {"spinning": ["off", 2, None], "arena": [0, "no"], "parallel": [None], "bound": ["x"]}


def test_options_of_profile_and_using(onnx):
    for name, value in options(seconds=SECONDS, threads=THREADS, level=LEVELS):
        refused(ow.profile, onnx, (X,), **{name: value})
    for name, value in options(level=LEVELS, **USING):
        refused(onnx.using, **{name: value})


RACES = [None, {}, [], [abs], "ab", 3, torch.ones(3), {1: abs}, {None: abs}, {("a", 1): abs}]
RACES += [{"a": 3}, {"a": None}, {"a": abs, "b": Bare()}]


def test_what_cannot_race():
    for racers in RACES:
        refused(ow.race, racers, (X,), quick=True, seconds=0.02)
        refused(ow.sweep, racers, lambda n: X[:n], n=(1, 2), quick=True, seconds=0.02)


INPUTS = [None, np.ones((2, 4), np.float32), X.to_sparse(), X.double(), torch.ones(3), 3.0, "x"]
INPUTS += [[1.0, 2.0], X.to("meta")]


def test_inputs_of_a_file(onnx, loaded):
    for artifact, value in product((onnx, loaded), INPUTS):
        refused(artifact, value)
        refused(artifact, input=value)
        refused(artifact.feeds, value)
        refused(artifact.using(bound=True), value)
        refused(ow.profile, artifact, (value,))
        if value is not None:  # which is no call
            refused(ow.trace, artifact, value)


def test_as_many_inputs_as_the_file_takes(onnx, loaded):
    for artifact, call in product((onnx, loaded), [(), (X, X), (X, 1)]):
        refused(artifact, *call)
        refused(ow.profile, artifact, call)
        refused(artifact.timed_call, call, {})
        refused(artifact, X, other=X)


@pytest.mark.parametrize("thing", [None, 3, "model.onnx", [], Bare()], ids=type)
def test_what_is_no_artifact_and_no_module(thing):
    for model in (thing, nn.ReLU(), b"x"):
        refused(ow.profile, model, (X,))
        refused(ow.trace, model)
    for model in (thing, torch.relu):
        refused(ow.audit, model, (X,))
        refused(ow.capture, model, (X,))
        refused(ow.probe, model, (X,), dynamic_shapes={"x": {0: "n"}})
        refused(ow.observe(model).__enter__)


@pytest.mark.parametrize("make", [torch.jit.script, lambda model: torch.jit.trace(model, X)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_module_of_torchscript(make):
    model = make(nn.Sequential(nn.Linear(4, 2), nn.ReLU()).eval())
    refused(ow.watch, model, (X,))
    refused(ow.observe(model).__enter__)
    refused(ow.capture, model, (X,))
    assert not ow.audit(model, (X,), skip={"latency", "hot lines"})
    race = ow.race({"TorchScript": model}, (X,), quick=True, seconds=0.02)
    assert race.result("TorchScript").ran


def test_what_is_no_model_no_stage_no_tolerance_and_no_height(onnx):
    model = nn.ReLU().eval()
    for f in (None, 3, "f", Bare(), X):
        refused(ow.watch, f, (X,))
    for calls in (0, -1, 1.5, "8", None, True):
        refused(ow.observe(model, calls).__enter__)
    for skip in ("latency", 3, None, {"lunch"}, [["latency"]]):
        refused(ow.audit, model, (X,), skip=skip)
    for tolerance in ([], NAN, -1, "loose"):
        refused(ow.audit, model, (X,), tolerance=tolerance)
        refused(ow.opsets, model, (X,), tolerance=tolerance)
        refused(ow.probe, model, (X,), dynamic_shapes=({0: "n"},), tolerance=tolerance)
    for height in ("tall", 0, 100, -5, NAN, None, 1.5, True, [], "640px"):
        refused(ow.view, onnx, height=height)


LINE, META = nn.Linear(4, 2).eval(), nn.Linear(4, 2, device="meta").eval()
RELU, PAIR = module(lambda self, x: torch.relu(x)), module(lambda self, x, y: (x + y) * 2)
MASKED = module(lambda self, x, mask=None: x if mask is None else x * mask)
CLOSED = io.BytesIO()
CLOSED.close()


def in_order(words):
    return "(?s)" + ".*".join(map(re.escape, words.split()))


def broken(x):
    raise KeyError("oops")


@onnxscript.script()
def unannotated(x):
    return opset18.Relu(x)


@onnxscript.script()
def of_opset_20(x: FLOAT[...]) -> FLOAT[...]:
    return opset20.Relu(x)


def sized(model, args, **shapes):
    return ow.capture(model, args, dynamic_shapes=shapes)


def named(*names, **options):
    return ow.export(PAIR, (X, X), input_names=names, **options)


def traced(x):
    return ow.export(module(lambda self, x, k=2: x * k), x, dynamo=False)


def translated(relu, sin=None):
    """A model of two operators, with the user's translation of one of them, or of both."""
    model = module(lambda self, x: torch.sin(torch.relu(x)))
    table = {torch.ops.aten.relu.default: relu, torch.ops.aten.sin.default: sin}
    return ow.export(model, X, custom_translation_table={op: f for op, f in table.items() if f})


SAID = {
    "below a Dim": (lambda: sized(LINE, X, input={0: Dim("b", min=5)}), "Axis 0 'input' 2 'b' =5"),
    "above it": (lambda: sized(LINE, X, input={0: Dim("b", max=1)}), "Axis 0 'input' 2 'b' =1"),
    "an array": (lambda: ow.capture(LINE, X.numpy()), "'input' ndarray from_numpy"),
    "in a dict": (lambda: ow.export(MASKED, ({"a": X.numpy()}, None)), "x ['a'] from_numpy"),
    "a number": (lambda: ow.capture(PAIR, (X, np.float32(2))), "'y' float32 item()"),
    "for the tracer": (lambda: ow.export(LINE, X.numpy(), dynamo=False), "'input' from_numpy"),
    "a default": (lambda: sized(MASKED, X, x={0: "b"}, mask={0: "b"}), "'mask' Pass 'mask'"),
    "profile": (lambda: ow.profile(LINE, X), "profile() Linear"),
    "probe": (lambda: ow.probe(torch.relu, X), "probe() builtin_function"),
    "opsets": (lambda: ow.opsets(torch.relu, X), "opsets() builtin_function"),
    "an opset": (lambda: ow.opsets(LINE, X, asked=18), "`asked` 18 [18]"),
    "a stream of text": (lambda: ow.export(LINE, X, io.StringIO()), "`f` StringIO binary"),
    "a closed stream": (lambda: ow.export(LINE, X, CLOSED), "`f` BytesIO open"),
    "a collection": (
        *(lambda: ow.capture(LINE, X, dynamic_shapes=ShapesCollection()),),
        "ShapesCollection .dynamic_shapes(model",
    ),
    "calls": (
        *(lambda: ow.probe(LINE, X, dynamic_shapes=AdditionalInputs()),),
        "AdditionalInputs .dynamic_shapes(model",
    ),
    "a name alone": (lambda: ow.probe(LINE, X, dynamic_shapes="b"), "is 'b' dict 'input'"),
    "a stage": (lambda: ow.audit(LINE, X, skip={"speed"}), "'speed' no such stage"),
    "the name of an inner value": (lambda: named("x", "add"), "`input_names` 'add' another"),
    "the name of a weight": (lambda: ow.export(LINE, X, input_names=["weight"]), "'weight'"),
    "no name": (lambda: named(""), "`input_names` '' empty"),
    "an input's name": (lambda: named(output_names=["y"]), "`output_names` 'y' another"),
    "no weights": (lambda: ow.export(META, X), "'weight' meta load_state_dict"),
    "none to trace": (lambda: ow.export(META, X, dynamo=False), "'weight' meta load_state_dict"),
}


@pytest.mark.parametrize("name", SAID)
def test_the_words_name_what_was_passed(name):
    call, words = SAID[name]
    with pytest.raises(InputError, match=in_order(words)) as caught:
        call()
    assert caught.value.hint[:1].isupper()


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: sized(PAIR, (X, X), x={0: "b"}, y=None), CaptureError, "of 'y' the same name"),
        (lambda: traced(X), ExportError, "input 'onnx::Cast_1' a number torch.tensor"),
        (lambda: translated(broken), ExportError, "function aten.relu KeyError: 'oops' Correct"),
        (lambda: translated(lambda x: None), ExportError, "function aten.relu NoneType Correct"),
        (lambda: translated(lambda: 1), ExportError, "function aten.relu 0 positional Correct"),
        (lambda: translated(unannotated), ExportError, "function aten.relu annotate"),
        (lambda: translated(of_opset_20), ExportError, "function aten.relu opset18"),
        (
            *(lambda: translated(lambda x: opset18.Relu(x), of_opset_20), ExportError),
            "does not fit, for aten.sin.default: torch.sin opset18",
        ),
    ],
)
def test_the_words_of_a_model_that_is_refused(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    assert re.search(in_order(words), str(caught.value))


def test_what_asks_for_nothing_is_no_wrong_call():
    graph = sized(MASKED, X, x={0: "b"}, mask=None)
    assert graph.labels == [{0: "b"}]
    shapes = ShapesCollection()
    shapes[X] = {0: Dim("b")}
    assert sized(LINE, X, **shapes.dynamic_shapes(LINE, (X,))).labels == [{0: "b"}]


def test_weights_that_were_copied_in_part(tmp_path):
    path = ow.export(
        nn.Linear(400, 8).eval(), torch.ones(1, 400), tmp_path / "m.onnx", external_data=True
    ).path
    data = tmp_path / "m.onnx.data"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(LoadError, match=r"'m\.onnx\.data'.* 100 bytes.*12,8") as caught:
        ow.load(path)
    assert "Copy that file" in caught.value.hint


def test_a_large_file_that_onnx_runtime_refuses_does_not_lack_weights(tmp_path):
    path = ow.export(nn.Linear(2100, 2100).eval(), torch.ones(1, 2100), tmp_path / "m.onnx").path
    model = onnx_package.load(path)
    model.graph.node[0].op_type = "Nonsense"
    onnx_package.save(model, path)
    with pytest.raises(LoadError, match="Nonsense"):
        _ = ow.load(path).session


def test_a_model_that_returns_more_than_tensors_is_observed_as_it_runs():
    model = module(lambda self, x: {"y": x, "rows": x.shape[0], "name": "counts", "none": None})
    with ow.observe(model) as seen:
        results = [model(X), model(torch.ones(5, 4))]
    assert [result["rows"] for result in results] == [2, 5]
    assert results[0]["name"] == "counts"
    assert list(seen.dynamic_shapes) == ["x"]
    assert "forward" not in vars(model)
