"""What torch's two steps are handed, and how their errors come out."""

import enum
import logging
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.ao.quantization as quantization
from models import module
from torch import nn
from torch.export import Dim

import onnx_workbench as ow
from onnx_workbench.errors import (
    CaptureError,
    ExportError,
    InputError,
    TrainingModeWarning,
    refused_by_machine,
)
from onnx_workbench.graph import exporter
from onnx_workbench.graph.reasons import explain

X = torch.arange(12.0).reshape(3, 4) / 12

# Gradients


def gated(self, x):
    """Writes into a view of several, which autograd forbids."""
    kept, gate = self.linear(x).chunk(2, -1)
    kept *= gate.sigmoid()
    return kept


def scaled(self, x):
    """Writes into a view of a weight, in a block of its own gradient mode."""
    row = self.table.unbind(0)[0]
    with torch.enable_grad():
        y = x * 3
    return y.add_(row)


@pytest.mark.parametrize(
    "model",
    [module(gated, linear=nn.Linear(4, 6)), module(scaled, table=nn.Parameter(torch.ones(2, 4)))],
    ids=["gated", "scaled"],
)
def test_model_that_runs_without_gradients_is_exported_and_left_as_it_was(model):
    artifact = ow.export(model, X)
    assert ow.verify(lambda x: torch.no_grad()(model)(x), artifact, X)
    assert all(weight.requires_grad for weight in model.parameters())
    assert torch.is_grad_enabled()
    program = artifact.graph.program
    assert not any(weight.requires_grad for weight in program.parameters())
    own = {weight.data_ptr() for weight in model.parameters()}
    assert own == {weight.data_ptr() for weight in program.parameters()}, "no copies"


# One program, many exports


@module
def chosen(self, x):
    rows = torch.nonzero(x[:, 0] > 0.3)[:, 0]
    return x[rows] * rows.shape[0]


def reads(kind, **options):
    cell = kind(4, 5, **{"batch_first": True, **options})
    return module(lambda self, x: self.cell(x)[0], cell=cell)


def test_a_graph_is_exported_as_often_as_one_likes(tmp_path):
    graph = ow.capture(chosen, X)
    before = graph.symbolic
    for opset in (18, None):
        artifact = ow.export(graph, f=tmp_path / "m.onnx", opset_version=opset)
        assert ow.verify(chosen, artifact, X)
        assert graph.symbolic == before
    assert exporter.decomposed(graph.program).graph.find_nodes(op="placeholder")


NAMED, BOUNDED = {0: "batch", 1: "time"}, {1: Dim("time", min=2, max=50)}


@pytest.mark.parametrize(
    ("kind", "axes", "first"),
    [
        (nn.LSTM, NAMED, True),
        (nn.LSTM, NAMED, False),
        (nn.GRU, NAMED, True),
        (nn.GRU, BOUNDED, True),
    ],
)
def test_recurrent_layers_keep_batch_and_length_in_each_export_and_when_polished(kind, axes, first):
    named, x = axes is NAMED, torch.randn(2, 3, 4)
    model = reads(kind, bidirectional=not named, batch_first=first)
    ow.capture(model, x)  # what torch remembers of fixed sizes must not count
    graph = ow.capture(model, x, dynamic_shapes={"x": axes})
    before, declared = graph.symbolic, set()
    for opset in (18, None, None, "polished"):
        options = {} if opset == "polished" else {"opset_version": opset}
        artifact = ow.export(graph if options else graph.polish(), **options)
        assert artifact.inputs[0].shape[:2] == ("batch" if named else 2, "time")
        assert artifact.outputs[0].shape[:2] == artifact.inputs[0].shape[:2]
        assert graph.symbolic == before
        declared.add(str((artifact.inputs, artifact.outputs)))
        for shape in ((3 if named else 2, 11, 4), (1 if named else 2, 2, 4)):
            assert ow.verify(model, artifact, torch.randn(shape))
    assert len(declared) == 1, declared


# Modes and warnings


def test_an_exported_module_is_used_as_it_is(recwarn):
    inner = torch.export.export(nn.Linear(4, 2).eval(), (X,)).module()
    assert ow.verify(inner, ow.export(inner, X), X)
    assert not [w for w in recwarn if w.category is TrainingModeWarning]
    nested = module(lambda self, x: self.drop(self.inner(x)), inner=nn.ReLU(), drop=nn.Dropout())
    nested.inner, nested.training, nested.drop.training = inner, True, True
    with pytest.warns(TrainingModeWarning):
        artifact = ow.export(nested, X)
    assert torch.equal(artifact(X), artifact(X))
    assert nested.drop.training


def test_torchs_warning_about_assigned_attributes_comes_through():
    def forward(self, x):
        self.last = x * 2
        return self.last + 1

    with pytest.warns(UserWarning, match=r"self\.last was assigned during export") as caught:
        ow.capture(model := module(forward), X)
    assert [warning.filename for warning in caught] == [__file__]
    assert not hasattr(model, "last")
    with warnings.catch_warnings(action="error"):
        ow.capture(reads(nn.GRU), torch.randn(2, 3, 4))


# Reasons, lines and repairs


@torch.library.custom_op("workbench_test::doubles_in_place", mutates_args=("x",))
def doubles_in_place(x: torch.Tensor) -> None:
    x.mul_(2)


doubles_in_place.register_fake(lambda x: None)


def in_place(self, x):
    y = x.clone()
    torch.ops.workbench_test.doubles_in_place(y)
    return y


COUNTED = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()
EYE = {"eye": nn.Buffer(torch.eye(3).to_sparse())}
REFUSED = {
    "cumprod": (
        module(lambda self, x: torch.take(x, torch.tensor([1])).cumprod(0)),
        *("cumprod", "other operators", "cumprod"),
    ),
    "sparse": (module(lambda self, x: self.eye @ x, **EYE), "sparse", "to_dense", None),
    "grad": (
        module(lambda self, x: torch.func.grad(lambda y: (y.sin() * y).sum())(x)),
        *("torch.func", "autograd", "torch.func"),
    ),
    "in place": (module(in_place), "doubles_in_place.default writes", "a new tensor", "in_place"),
    "argument": (module(lambda self, x: x.amax()), "'dim'", "dim", "x.amax()"),
    "quantized": (
        quantization.quantize_dynamic(COUNTED, {nn.Linear}, dtype=torch.qint8),
        *("quantized module", "onnxruntime.quantization", None),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_torch_cannot_translate_has_reason_line_and_repair(name, tmp_path):
    model, reason, repair, text = REFUSED[name]
    with pytest.raises((CaptureError, ExportError)) as caught:
        ow.export(model, X, tmp_path / "m.onnx")
    error = caught.value
    assert reason in f"{error.message} {error.reason}"
    assert repair in error.hint
    if text:
        assert text in error.line.text
    assert "__obj_flatten__" not in str(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [enum.Enum("Color", "RED BLUE"), enum.IntEnum("Size", "S M")])
def test_enums_are_constants_of_the_graph(kind):
    value, other = kind
    model = module(lambda self, x, how: x * 2 if how is value else x * 3)
    artifact = ow.export(model, (X, value))
    assert [x.name for x in artifact.inputs] == ["x"]
    assert torch.equal(artifact(X, value), X * 2)
    with pytest.raises(InputError, match="'how'"):
        artifact(X, other)


def test_an_int_with_a_hint_is_an_input_of_the_file_unless_a_line_fixes_it():
    scale, repeat = module(lambda self, x, k: x * k), module(lambda self, x, k: sum([x] * k))
    for label in (Dim.DYNAMIC, Dim.AUTO):
        artifact = ow.export(scale, (X, 3), dynamic_shapes={"x": {0: "n"}, "k": label})
        assert ow.verify(scale, artifact, (X[:2], 7))
        assert ow.probe(artifact)
    with pytest.raises(InputError, match="'k' is 4, but 3 was baked"):
        ow.export(repeat, (X, 3), dynamic_shapes=(None, Dim.AUTO))(X, 4)
    with pytest.raises(CaptureError, match="assumes k == 3"):
        ow.capture(repeat, (X, 3), dynamic_shapes=(None, Dim.DYNAMIC))


EXPORT, TRANSLATE = "torch.export.export", "torch.onnx.export"
FULL = "[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 GB"
MACHINE = [
    (MemoryError(), EXPORT, "memory"),
    (RuntimeError(FULL), TRANSLATE, "memory"),
    (RuntimeError("PosixThread pthread_create failed, error code: 11"), EXPORT, "threads"),
    (OSError(28, "No space left on device"), TRANSLATE, "disk"),
    (PermissionError(13, "Permission denied"), EXPORT, "no permission"),
    (OSError(24, "Too many open files"), TRANSLATE, "open files"),
]


@pytest.mark.parametrize(("error", "step", "noun"), MACHINE)
def test_what_the_machine_refuses_is_said_to_be_that(error, step, noun, monkeypatch):
    def refuses(*args, **kwargs):
        raise error

    monkeypatch.setattr(step, refuses)
    with pytest.raises((CaptureError, ExportError)) as caught:
        exporter.translate(ow.capture(nn.ReLU().eval(), X).program)
    assert noun in caught.value.reason
    assert refused_by_machine(caught.value)[0] == caught.value.reason
    assert "capture(...).polish()" not in caught.value.hint


# Calls without names


@module
def inner(self, ids, *, mask=None, scale=2):
    return self.table(ids) * mask[..., None] * scale


def test_keywords_without_a_parameter_can_be_dynamic():
    inner.table = nn.Embedding(9, 4)
    # passes on what it gets, as PEFT does
    model = module(lambda self, *args, **kwargs: self.inner(*args, **kwargs), inner=inner)
    kwargs, axes = {"ids": torch.randint(9, (2, 5)), "mask": torch.ones(2, 5)}, {0: "b", 1: "n"}
    shapes = {"ids": axes, "mask": axes}
    artifact = ow.export(model, (), kwargs=kwargs, dynamic_shapes=shapes)
    other = {"ids": torch.randint(9, (3, 7)), "mask": torch.rand(3, 7)}
    assert ow.verify(model, artifact, (), other)
    assert [value.shape for value in artifact.inputs] == [("b", "n")] * 2
    assert artifact.proto.graph.initializer[0].name == "inner.table.weight"
    assert "forward" not in vars(model)
    with ow.observe(model) as seen:
        model(**kwargs), model(**other)
    assert set(seen.dynamic_shapes) == {"ids", "mask"}


# Inputs and results that no file has


def test_opsets_says_that_a_complex_input_was_not_compared():
    model = module(lambda self, z: torch.view_as_real(z) * 3)
    found = ow.opsets(model, torch.randn(4, dtype=torch.complex64), asked=(20,))
    assert not found.results[0].differs
    assert not found.good


def test_results_of_a_class_without_keys_are_compared():
    class Output:
        def __init__(self, sample, rest):
            self.sample, self.rest = sample, rest

    torch.utils._pytree.register_pytree_node(
        Output, lambda o: ([o.sample, o.rest], None), lambda leaves, _: Output(*leaves)
    )
    model = module(lambda self, x: {"out": Output(x * 2, (x.sum(), x))})
    artifact = ow.export(model, X, dynamic_shapes={"x": {0: "rows"}})
    assert ow.verify(model, artifact, torch.rand(5, 4))
    assert ow.probe(artifact)
    wrong = ow.verify(lambda x: {"out": Output(x * 3, (x.sum(), x))}, artifact, X)
    assert [bool(leaf.reason) for leaf in wrong.leaves] == [True, False, False]


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_threads_export_one_after_the_other(dynamo):
    models = [nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, n)).eval() for n in (1, 2, 3)]
    level = logging.getLogger("torch").level
    with ThreadPoolExecutor(len(models)) as pool:
        made = pool.map(lambda model: ow.export(model, X, dynamo=dynamo), models)
        for model, onnx in zip(models, made, strict=True):
            assert ow.verify(model, onnx, X)
    assert logging.getLogger("torch").level == level, "torch stays silenced"
    explained = explain(AssertionError("GLOBALS.in_onnx_export must be True"))
    assert "thread" in explained[0], "an export of torch itself in another thread"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_data_parallel_model_is_told_to_hand_over_its_module(tmp_path):
    model = nn.DataParallel(nn.Linear(4, 2)).eval()
    with pytest.raises(ExportError) as caught:
        ow.export(model, X, tmp_path / "m.onnx", dynamo=False)
    assert "model.module" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
