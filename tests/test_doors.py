"""torch's own call, with `torch.onnx` replaced by `ow`: what stands in people's code works."""

import inspect
import io
import pickle
import re

import onnx
import pytest
import torch
from models import module
from torch import nn
from torch.export import Dim

import onnx_workbench as ow
from onnx_workbench.errors import CaptureError, ExportError, InputError, WorkbenchError
from onnx_workbench.graph.dims import parse_shapes

X = torch.arange(12.0).reshape(3, 4)
TWO = module(lambda self, x, y: (x * 2, y + 1))
PAIR = module(lambda self, x, y: x + y)
NESTED = module(lambda self, pair, named, scale=2.0: pair[0] * scale + named["a"] + pair[1])
VARIED = module(lambda self, *args: args[0] + args[1])
MASKED = module(lambda self, ids, mask=None: ids if mask is None else ids * mask)
TABLE = {"table": nn.Parameter(torch.ones(3, 4))}
FIXED = module(lambda self, x: x + self.table, **TABLE)
RELU, ITEM = nn.ReLU().eval(), module(lambda self, x: x * float(x.mean()))


def shapes(made):
    return [list(value.shape) for value in made.inputs]


# The signature


def test_export_takes_every_name_of_torch():
    ours, theirs = (inspect.signature(one).parameters for one in (ow.export, torch.onnx.export))
    assert set(theirs) <= {*ours, *ow.graph.options.ExportOptions.__annotations__}
    assert list(ours)[:3] == list(theirs)[:3]


def test_every_default_of_torch_is_accepted(tmp_path):
    parameters = inspect.signature(torch.onnx.export).parameters.values()
    given = {p.name: p.default for p in parameters if p.name not in ("model", "args", "f")}
    made = ow.export(RELU, (X,), tmp_path / "m.onnx", **given)
    assert torch.equal(made(X), X.relu())


# Torch's documentation, scripts

OLD_EXPORTER = {
    **{"dynamo": False, "opset_version": 17, "input_names": ["in"], "output_names": ["out"]},
    "dynamic_axes": {"in": {0: "batch"}, "out": {0: "batch"}},
}
CALLS = {
    "kwargs": (MASKED, (X,), {"kwargs": {"mask": X}}),
    "a dict at the end": (MASKED, (X, {"mask": X}), {}),
    "names": (TWO, (X, X), {"input_names": ["p", "q"], "output_names": ["r", "s"]}),
    "fewer names": (TWO, (X, X), {"input_names": ["p"], "output_names": ["r"]}),
    "plain": (RELU, (X,), {"external_data": False, "optimize": False, "verbose": False}),
    "keep_initializers_as_inputs": (FIXED, (X,), {"keep_initializers_as_inputs": True}),
    "verify": (RELU, (X,), {"verify": True}),
    "the old exporter": (RELU, (X,), OLD_EXPORTER),
}
"""(model, args, options), as torch's documentation and models' export scripts write them."""


@pytest.mark.parametrize("name", CALLS)
def test_a_call_of_torch_gives_a_file_that_answers_as_the_model(name, tmp_path):
    model, args, options = CALLS[name]
    made = ow.export(model.eval(), args, tmp_path / "m.onnx", **options)
    args = args if isinstance(args, tuple) else (args,)
    kwargs = options.get("kwargs", {})
    if not kwargs and isinstance(args[-1], dict):
        *args, kwargs = args
    assert ow.verify(model, made, tuple(args), kwargs)
    assert made.path == tmp_path / "m.onnx"
    onnx.checker.check_model(str(made.path))


SHAPES = {
    "a dict of names": {"x": {0: "b"}, "y": {0: "b"}},
    "a tuple": ({0: "b"}, {0: "b"}),
    "a list": [{0: "b"}, {0: "b"}],
    "Dim": ({0: Dim("b")}, {0: Dim("b")}),
    "DYNAMIC": ({0: Dim.DYNAMIC}, {0: Dim.DYNAMIC}),
    "AUTO": {"x": {0: Dim.AUTO}, "y": {0: Dim.AUTO}},
    "every axis": (("b", None), ("b", None)),
    "negative": {"x": {-2: "b"}, "y": {-2: "b"}},
}


@pytest.mark.parametrize("name", SHAPES)
def test_dynamic_shapes_in_every_form(name):
    parsed = parse_shapes(SHAPES[name], {"x": X, "y": X})
    assert [[*axes] for axes in parsed.values()] == [[0], [0]]


@pytest.mark.parametrize("name", ["a tuple", "Dim", "AUTO"])
def test_dynamic_shapes_of_every_kind(name, tmp_path):
    made = ow.export(PAIR, (X, X), tmp_path / "m.onnx", dynamic_shapes=SHAPES[name])
    (rows, columns), other = shapes(made)
    assert isinstance(rows, str)
    assert (columns, other) == (4, [rows, 4])
    assert torch.equal(made(X[:2], X[:2]), 2 * X[:2])


def test_dynamic_shapes_of_nested_and_of_varied_arguments(tmp_path):
    rows, args = {0: "n"}, ((X, X), {"a": X})
    wanted = {"pair": (rows, rows), "named": {"a": rows}}
    made = ow.export(NESTED, (*args, {}), tmp_path / "m.onnx", dynamic_shapes=wanted)
    assert shapes(made) == [["n", 4]] * 3
    assert torch.equal(made((X[:1], X[:1]), {"a": X[:1]}), NESTED((X[:1], X[:1]), {"a": X[:1]}))
    varied = {"args": (rows, rows)}
    made = ow.export(VARIED, (X, X), tmp_path / "v.onnx", dynamic_shapes=varied)
    assert shapes(made) == [["n", 4]] * 2


def test_dynamic_axes_go_by_the_names_of_the_file(tmp_path):
    axes = {"p": {0: "n"}, "q": [0], "r": {0: "n"}}
    names = {"input_names": ["p", "q"], "output_names": ["r", "s"]}
    made = ow.export(TWO, (X, X), tmp_path / "m.onnx", dynamic_axes=axes, **names)
    assert [value.name for value in (*made.inputs, *made.outputs)] == ["p", "q", "r", "s"]
    assert shapes(made)[0] == ["n", 4]
    assert isinstance(shapes(made)[1][0], str)
    traced = ow.export(TWO, (X, X), tmp_path / "t.onnx", dynamic_axes=axes, dynamo=False, **names)
    assert traced.proto.graph.input[1].type.tensor_type.shape.dim[0].dim_param == "q_0"


def test_a_program_and_a_graph_stand_for_the_model(tmp_path):
    program = torch.export.export(PAIR, (X, X), dynamic_shapes=({0: Dim("n")}, {0: Dim("n")}))
    named = ({0: "rows"}, {0: "rows"})
    made = ow.export(program, (X, X), tmp_path / "m.onnx", dynamic_shapes=named)
    assert shapes(made) == [["rows", 4]] * 2
    assert torch.equal(made(X[:1], X[:1]), 2 * X[:1])
    graph = ow.capture(program)
    assert ow.export(graph, f=tmp_path / "g.onnx").operations == made.operations


@pytest.mark.parametrize("kind", ["program", "graph"])
def test_every_door_takes_what_is_captured_already(kind, tmp_path):
    rows = {0: "n"}
    graph = ow.capture(PAIR, (X, X), dynamic_shapes=(rows, rows))
    model = graph if kind == "graph" else graph.program
    made = ow.export(model, f=tmp_path / "m.onnx")
    assert ow.probe(model)
    assert ow.audit(model, skip={"contract", "numbers", "opsets", "latency", "hot lines"})
    assert ow.opsets(model, asked=[20]).good == (20,)
    assert ow.verify(model, made, (X, X))
    assert ow.race({"model": model, "file": made}, (X, X), quick=True, seconds=0.01).ratio("file")
    if kind == "program":
        assert ow.watch(model, (X, X)).frames


def test_a_model_that_returns_a_size_gets_a_number_from_its_file():
    def forward(self, x):
        return {"rows": x.shape[0], "twice": x * 2, "half": x.shape[0] / 2, "many": x.shape[0] > 1}

    model = module(forward)
    made = ow.export(model, (X,), dynamic_shapes={"x": {0: "n"}}, verify=True)
    seven = made(torch.ones(7, 4))
    assert (seven["rows"], seven["half"], seven["many"]) == (7, 3.5, True)
    assert ow.audit(model, X, dynamic_shapes={"x": {0: "n"}}, skip={"latency", "hot lines"})
    assert ow.verify(model, made, X, values=True)
    shaped = module(lambda self, x: (x * 2, x.shape, (x > 0).sum().item()))
    made = ow.export(shaped, (X,), dynamic_shapes={"x": {0: "n"}}, verify=True)
    assert ow.probe(made)


def test_a_stream_takes_the_bytes_and_the_weights():
    stream = io.BytesIO()
    ow.export(nn.Linear(4, 300).eval(), (X,), stream, external_data=True)
    model = onnx.load_from_string(stream.getvalue())
    assert model.graph.node[0].op_type == "Gemm"
    assert all(not tensor.external_data for tensor in model.graph.initializer)


def counts(self, x):
    """Counts its calls in a buffer, keeps a mean in another, and writes into its input."""
    self.calls += 1
    x += 1
    # whose version stays the same
    nn.functional.batch_norm(torch.stack([x, x * 3]), self.mean, self.var, training=True)
    return x * 1


def test_no_door_changes_the_model_or_its_input(tmp_path):
    start = {"calls": torch.zeros(()), "mean": torch.zeros(3), "var": torch.ones(3)}
    model, x = module(counts, **{n: nn.Buffer(t.clone()) for n, t in start.items()}), torch.zeros(3)
    model.mask = nn.Buffer(torch.tensor([float("nan")]).expand(3))  # which takes no copy
    buffer = model.calls
    made = ow.export(model, x, tmp_path / "m.onnx")
    ow.export(model, x, tmp_path / "t.onnx", dynamo=False)
    ow.verify(model, made, x)
    ow.verify(model, made, x, values=True)
    ow.probe(model, x, dynamic_shapes={"x": {0: "n"}})
    ow.opsets(model, x, asked=[20])
    ow.race({"model": model}, x, quick=True, seconds=0.01)
    ow.trace(made, x, seconds=0.01)
    ow.audit(model, x, skip={"latency"})
    assert model.calls is buffer
    assert all(torch.equal(getattr(model, name), value) for name, value in start.items())
    assert x.tolist() == [0, 0, 0]


def test_an_error_about_a_model_can_be_sent_to_another_process():
    with pytest.raises(CaptureError) as caught:
        ow.export(module(lambda self, x: x if x.sum() > 0 else -x), X)
    sent = pickle.loads(pickle.dumps(caught.value))
    assert (type(sent), str(sent), sent.code) == (
        *(CaptureError, str(caught.value)),
        caught.value.code,
    )
    assert (sent.line, sent.hint) == (caught.value.line, caught.value.hint)


def test_what_torch_writes_beside_the_file_names_the_door_that_does_it(tmp_path):
    doors = {"report": "audit", "profile": "profile", "dump_exported_program": "capture"}
    with pytest.warns(UserWarning, match="onnx_workbench") as caught:
        ow.export(RELU, (X,), tmp_path / "m.onnx", **dict.fromkeys(doors, True))
    said = "".join(str(warning.message) for warning in caught)
    assert [door for door in doors.values() if f"onnx_workbench.{door}(" not in said] == []
    assert {warning.filename for warning in caught} == {__file__}
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_a_file_that_answers_otherwise_is_not_kept_with_verify(tmp_path):
    odd = module(lambda self, x: x + 1 if torch.compiler.is_exporting() else x)
    with pytest.raises(ExportError, match="results differ from the model"):
        ow.export(odd, (X,), tmp_path / "m.onnx", verify=True)
    assert list(tmp_path.iterdir()) == []


# What is refused

TRAIN = torch.onnx.TrainingMode.TRAINING
REFUSED = {
    "export_params": (X, {"export_params": False}, "export_params"),
    "training": (X, {"training": TRAIN}, "training"),
    "a list": ([X, X], {}, "tuple"),
    "a dict": ({"x": X}, {}, "kwargs"),
    "keywords that forward lacks": ((X, X, {"z": X}), {}, "'z'"),
    "an axis that is not there": ((X, X), {"dynamic_shapes": ({2: "b"}, None)}, "axis 2"),
    "an axis below": ((X, X), {"dynamic_shapes": ({-3: "b"}, None)}, "axis -3"),
    "an input that is not there": ((X, X), {"dynamic_shapes": {"z": {0: "b"}}}, "'z'"),
    "too few entries": ((X, X), {"dynamic_shapes": ({0: "b"},)}, "1 entries"),
    "another structure": ((X, X), {"dynamic_shapes": ([{0: "b"}], None)}, "x"),
    "one name, two sizes": ((X, X[:2]), {"dynamic_shapes": ({0: "b"}, {0: "b"})}, "'b'"),
    "two names, one size": ((X, X), {"dynamic_shapes": ({0: "a"}, {0: "b"})}, "'a' and 'b'"),
    "another number": ((X, X), {"dynamic_shapes": ({0: 5}, None)}, "5"),
    "a size of 0": ((X[:0], X[:0]), {"dynamic_shapes": ({0: "b"}, {0: "b"})}, "0"),
    "no label": ((X, X), {"dynamic_shapes": ({0: 1.5}, None)}, "1.5"),
    "axes of no input": ((X, X), {"dynamic_axes": {"z": {0: "b"}}}, "'z'"),
    "misspelt, old": ((X, X), {"dynamo": False, "dynamic_shapes": {"z": {0: "b"}}}, "'z'"),
    "two Dims, one size": (
        *((X, X), {"dynamic_shapes": ({0: Dim("a")}, {0: Dim("b")})}, "give them one name"),
    ),
    "a name twice": ((X, X), {"input_names": ["a", "a"]}, "input_names"),
    "a name alone": ((X, X), {"input_names": "ab"}, "input_names"),
}


def test_a_training_model_is_not_preserved(tmp_path):
    with pytest.raises(InputError, match="training"):
        ow.export(nn.Dropout(), X, f=None, training=torch.onnx.TrainingMode.PRESERVE)
    ow.export(RELU, X, f=None, training=torch.onnx.TrainingMode.PRESERVE)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_a_planned_error_and_leaves_no_file(name, tmp_path):
    args, options, words = REFUSED[name]
    with pytest.raises((InputError, CaptureError, ExportError), match=re.escape(words)):
        ow.export(PAIR, args, tmp_path / "m.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_dimension_that_is_demanded_and_frozen_raises_with_its_line_and_auto_may_specialize():
    for label in ("n", Dim("n"), Dim.DYNAMIC):
        with pytest.raises(CaptureError) as caught:
            ow.export(FIXED, X, dynamic_shapes={"x": {0: label}})
        assert "x + self.table" in caught.value.line.text
    graph = ow.capture(FIXED, X, dynamic_shapes={"x": {0: Dim.AUTO}})
    assert "x.shape[0] = 3" in repr(graph)
    assert "x.shape[0] = 3" in repr(ow.export(graph))


def test_strict_is_tried_where_non_strict_fails_and_the_graph_says_which():
    graph = ow.capture(ITEM, X)
    assert (graph.strict, ow.capture(TWO, (X, X)).strict) == (True, False)
    assert "strict=True" in repr(graph)
    with pytest.raises(CaptureError):
        ow.capture(ITEM, X, strict=False)


OLD = {
    "a path in args": (lambda path: ow.export(RELU, path, X), r"export\(model, \(x,\)"),
    "dynamic": (lambda _: ow.capture(RELU, X, dynamic={}), "dynamic_shapes="),
    "opset": (lambda path: ow.export(RELU, X, path, opset=18), "opset_version="),
    "translations": (lambda _: ow.opsets(RELU, X, translations={}), "custom_translation_"),
    "two inputs": (lambda _: ow.capture(PAIR, X, X), r"capture\(model, \(x, y\)\)"),
    "three inputs": (lambda _: ow.audit(PAIR, X, X, X), r"audit\(model, \(x, y\)\)"),
    "two of verify": (lambda _: ow.verify(PAIR, PAIR, X, X), r"verify\(a, b, \(x, y\)\)"),
    "a keyword": (lambda _: ow.probe(PAIR, X, y=X), "kwargs="),
    "a keyword of export": (lambda path: ow.export(PAIR, X, path, y=X), "kwargs="),
    "weigh": (lambda _: ow.weigh({"a": abs}, X), "startup"),
    "tune": (lambda _: ow.tune({"a": abs}, X), "variants"),
}


@pytest.mark.parametrize("name", OLD)
def test_a_call_of_the_first_version_is_told_the_new_one(name, tmp_path):
    call, words = OLD[name]
    with pytest.raises(InputError, match=words):
        call(str(tmp_path / "m.onnx"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("door", [ow.capture, ow.audit, ow.probe, ow.opsets])
def test_a_mistyped_option_is_a_type_error_that_lists_the_options(door):
    with pytest.raises(TypeError, match=r"'dinamic_shapes'; it takes .*dynamic_shapes"):
        door(RELU, (X,), dinamic_shapes=None)
    with pytest.raises(TypeError, match="dinamic_shapes"):
        ow.export(RELU, (X,), dinamic_shapes=None)


def test_an_error_that_nobody_put_into_words_is_no_bare_one(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("deep inside")

    monkeypatch.setattr(torch.export.ExportedProgram, "module", broken)
    program = torch.export.export(nn.ReLU(), (X,))
    with pytest.raises(WorkbenchError) as caught:
        ow.capture(program)
    assert caught.value.reason == "RuntimeError: deep inside"
    assert isinstance(caught.value.__cause__, RuntimeError)
