"""What torch's two steps are handed, and how their errors come out."""

import enum
import logging
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.export import Dim

import onnx_workbench as ow
from onnx_workbench.errors import CaptureError, ExportError, refused_by_machine
from onnx_workbench.graph import exporter
from onnx_workbench.graph.reasons import why

X = torch.arange(12.0).reshape(3, 4) / 12


def exported(model, tmp_path, *args, **options):
    return ow.export(model.eval(), args, tmp_path / "m.onnx", **options)


# ---------------------------------------------------------------- gradients


class Gated(nn.Module):
    """Writes into a view of several, which autograd forbids."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 6)

    def forward(self, x):
        kept, gate = self.linear(x).chunk(2, -1)
        kept *= gate.sigmoid()
        return kept


class Scaled(nn.Module):
    """Writes into a view of a weight, in a block of its own gradient mode."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.ones(2, 4))

    def forward(self, x):
        row = self.table.unbind(0)[0]
        with torch.enable_grad():
            y = x * 3
        return y.add_(row)


@pytest.mark.parametrize("model", [Gated(), Scaled()])
def test_model_that_runs_without_gradients_is_exported_and_left_as_it_was(model, tmp_path):
    artifact = exported(model, tmp_path, X)
    assert ow.verify(lambda x: torch.no_grad()(model)(x), artifact, X)
    assert all(weight.requires_grad for weight in model.parameters())
    assert torch.is_grad_enabled()
    program = artifact.graph.program
    assert not any(weight.requires_grad for weight in program.parameters())
    own = {weight.data_ptr() for weight in model.parameters()}
    assert own == {weight.data_ptr() for weight in program.parameters()}, "no copies"


# ---------------------------------------------------------------- one program, many exports


class Chosen(nn.Module):
    def forward(self, x):
        rows = torch.nonzero(x[:, 0] > 0.3)[:, 0]
        return x[rows] * rows.shape[0]


class Reads(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell = kind(4, 5, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, x):
        return self.cell(x)[0]


@pytest.mark.parametrize(
    ("model", "args", "dynamic"),
    [
        (Chosen(), (X,), None),
        (Reads(nn.LSTM), (torch.randn(2, 3, 4),), {"x": {0: "batch", 1: "time"}}),
    ],
)
def test_a_graph_is_exported_as_often_as_one_likes(model, args, dynamic, tmp_path):
    graph = ow.capture(model.eval(), args, dynamic_shapes=dynamic)
    before = graph.symbolic
    for opset in (18, None, 21, 18):
        artifact = ow.export(graph, f=tmp_path / "m.onnx", opset_version=opset)
        assert ow.verify(model, artifact, args)
        assert graph.symbolic == before
    assert exporter.decomposed(graph.program).graph.find_nodes(op="placeholder")


NAMED = {0: "batch", 1: "time"}
BOUNDED = {1: Dim("time", min=2, max=50)}


@pytest.mark.parametrize(("kind", "axes"), [(nn.LSTM, NAMED), (nn.GRU, NAMED), (nn.GRU, BOUNDED)])
def test_recurrent_layers_keep_batch_and_length(kind, axes, tmp_path):
    model, x = Reads(kind).eval(), torch.randn(2, 3, 4)
    ow.capture(model, x)  # what torch remembers of fixed sizes must not count
    artifact = exported(model, tmp_path, x, dynamic_shapes={"x": axes})
    batch, time, _ = artifact.inputs[0].shape
    assert (batch, time) == ("batch" if axes is NAMED else 2, "time")
    assert isinstance(artifact.outputs[0].shape[1], str)
    for shape in ((2, 11, 4), (1 if axes is NAMED else 2, 2, 4)):
        assert ow.verify(model, artifact, torch.randn(shape))


# ---------------------------------------------------------------- modes and warnings


class Nested(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.drop = inner, nn.Dropout()

    def forward(self, x):
        return self.drop(self.inner(x))


def test_an_exported_module_is_used_as_it_is(tmp_path, recwarn):
    module = torch.export.export(nn.Linear(4, 2).eval(), (X,)).module()
    assert ow.verify(module, exported_as_is(module, tmp_path), X)
    assert not [w for w in recwarn if w.category is ow.errors.TrainingModeWarning]
    nested = Nested(module)
    with pytest.warns(ow.errors.TrainingModeWarning):
        artifact = exported_as_is(nested, tmp_path)
    assert torch.equal(artifact(X), artifact(X))
    assert nested.drop.training


def exported_as_is(model, tmp_path):
    return ow.export(model, X, tmp_path / "m.onnx")


def test_torchs_warning_about_assigned_attributes_comes_through():
    class Keeps(nn.Module):
        def forward(self, x):
            self.last = x * 2
            return self.last + 1

    with pytest.warns(UserWarning, match=r"self\.last was assigned during export") as caught:
        ow.capture(Keeps().eval(), X)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ow.capture(Reads(nn.GRU).eval(), torch.randn(2, 3, 4))


# ---------------------------------------------------------------- reasons, lines and repairs


class Operation(nn.Module):
    def __init__(self, operation):
        super().__init__()
        self.operation = operation
        self.register_buffer("eye", torch.eye(3).to_sparse())

    def forward(self, x):
        return self.operation(self, x)


REFUSED = [
    (lambda self, x: torch.linalg.qr(x)[0], "linalg_qr", "other operators"),
    (lambda self, x: torch.take(x, torch.tensor([1])).cumprod(0), "cumprod", "other operators"),
    (lambda self, x: self.eye @ x, "sparse", "to_dense"),
    (lambda self, x: torch.func.grad(lambda y: (y.sin() * y).sum())(x), "torch.func", "autograd"),
]


@pytest.mark.parametrize(("operation", "reason", "repair"), REFUSED)
def test_what_torch_cannot_translate_has_reason_line_and_repair(
    operation, reason, repair, tmp_path
):
    with pytest.raises(ExportError) as caught:
        exported(Operation(operation), tmp_path, X)
    error = caught.value
    assert reason in error.reason
    assert repair in error.hint
    assert (
        error.line is None
        if reason == "sparse"
        else reason in error.line.text.replace(".qr", "_qr")
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["dynamic", "fake"])
def test_quantized_modules_get_a_repair_that_exists(kind):
    import torch.ao.quantization as quantization

    if kind == "dynamic":
        float_model = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()
        model = quantization.quantize_dynamic(float_model, {nn.Linear}, dtype=torch.qint8)
    else:
        model = nn.Sequential(quantization.FakeQuantize(quant_min=0, quant_max=255))
    with pytest.raises(CaptureError) as caught:
        ow.capture(model.eval(), X)
    assert "quantized module" in caught.value.reason
    assert "onnxruntime.quantization" in caught.value.hint
    assert "__obj_flatten__" not in str(caught.value)


def test_enums_are_constants_of_the_graph(tmp_path):
    kinds = [enum.Enum("Color", "RED BLUE"), enum.IntEnum("Size", "S M")]
    for kind in kinds:
        first, second = list(kind)

        class Chooses(nn.Module):
            def forward(self, x, how):
                return x * 2 if how is first else x * 3  # noqa: B023

        for value in (first, second):
            artifact = exported(Chooses(), tmp_path, X, value)
            assert [x.name for x in artifact.inputs] == ["x"]
            assert torch.equal(artifact(X, value), Chooses()(X, value))
            other = second if value is first else first
            with pytest.raises(ow.errors.InputError, match="'how'"):
                artifact(X, other)


MACHINE = [
    (MemoryError(), "memory"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 GB"), "memory"),
    (RuntimeError("PosixThread pthread_create failed, error code: 11"), "threads"),
    (OSError(28, "No space left on device"), "disk"),
    (PermissionError(13, "Permission denied"), "not let this process"),
    (OSError(24, "Too many open files"), "files open"),
]


@pytest.mark.parametrize(("error", "noun"), MACHINE)
@pytest.mark.parametrize("step", ["torch.export.export", "torch.onnx.export"])
def test_what_the_machine_refuses_is_said_to_be_that(error, noun, step, monkeypatch):
    def refuses(*args, **kwargs):
        raise error

    monkeypatch.setattr(step, refuses)
    with pytest.raises((CaptureError, ExportError)) as caught:
        exporter.translate(ow.capture(nn.ReLU().eval(), X).program)
    assert noun in caught.value.reason
    assert refused_by_machine(caught.value)[0] == caught.value.reason
    assert "capture(...).polish()" not in caught.value.hint


# ---------------------------------------------------------------- calls without names


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 4)

    def forward(self, ids, *, mask=None, scale=2):
        return self.table(ids) * mask[..., None] * scale


class Hands(nn.Module):
    """Passes on what it gets, as PEFT does."""

    def __init__(self):
        super().__init__()
        self.inner = Inner()

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


IDS = torch.randint(9, (2, 5))
AXES = {0: "batch", 1: "length"}


def test_keywords_without_a_parameter_can_be_dynamic(tmp_path):
    model, kwargs = Hands().eval(), {"ids": IDS, "mask": torch.ones(2, 5)}
    shapes = {"ids": AXES, "mask": AXES}
    path = tmp_path / "m.onnx"
    artifact = ow.export(model, (), path, kwargs=kwargs, dynamic_shapes=shapes)
    bare = ow.export(model, (), tmp_path / "bare.onnx", kwargs=kwargs)
    other = {"ids": torch.randint(9, (3, 7)), "mask": torch.rand(3, 7)}
    assert ow.verify(model, artifact, (), other)
    assert [value.shape for value in artifact.inputs] == [("batch", "length")] * 2
    weights = [tensor.name for tensor in bare.proto.graph.initializer]
    assert [tensor.name for tensor in artifact.proto.graph.initializer] == weights
    assert "forward" not in vars(model)
    with ow.observe(model) as seen:
        model(**kwargs), model(**other)
    assert set(seen.dynamic_shapes) == {"ids", "mask"}


# ---------------------------------------------------------------- inputs that no file takes


def test_opsets_says_that_a_complex_input_was_not_compared():
    class Real(nn.Module):
        def forward(self, z):
            return torch.view_as_real(z) * 3

    found = ow.opsets(Real().eval(), torch.randn(4, dtype=torch.complex64), asked=(20,))
    assert not found.rungs[0].differs
    assert not found.good


def test_results_of_a_class_without_keys_are_compared(tmp_path):
    class Output:
        def __init__(self, sample, rest):
            self.sample, self.rest = sample, rest

    torch.utils._pytree.register_pytree_node(
        Output, lambda o: ([o.sample, o.rest], None), lambda leaves, _: Output(*leaves)
    )

    class Gives(nn.Module):
        def forward(self, x):
            return {"out": Output(x * 2, (x.sum(), x))}

    artifact = exported(Gives(), tmp_path, X, dynamic_shapes={"x": {0: "rows"}})
    assert ow.verify(Gives(), artifact, torch.rand(5, 4))
    assert ow.probe(artifact)
    wrong = ow.verify(lambda x: {"out": Output(x * 3, (x.sum(), x))}, artifact, X)
    assert [bool(leaf.reason) for leaf in wrong.leaves] == [True, False, False]


class Largest(nn.Module):
    def forward(self, x):
        return x.amax()  # of all


def test_an_argument_that_only_the_translation_needs_is_named_with_a_repair():
    with pytest.raises(ExportError) as caught:
        ow.export(Largest().eval(), torch.ones(2, 3))
    assert "'dim'" in caught.value.message
    assert "dim" in caught.value.hint
    assert caught.value.line.text == "return x.amax()  # of all"


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_threads_export_one_after_the_other(dynamo, tmp_path):
    x = torch.ones(2, 4)
    models = [nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, n)).eval() for n in (1, 2, 3)]

    def made(model):
        return ow.export(model, x, tmp_path / f"{id(model)}.onnx", dynamo=dynamo)

    level = logging.getLogger("torch").level
    with ThreadPoolExecutor(len(models)) as pool:
        for model, onnx in zip(models, pool.map(made, models), strict=True):
            assert ow.verify(model, onnx, x)
    assert logging.getLogger("torch").level == level, "torch stays silenced"


def test_an_export_of_torch_in_another_thread_is_said():
    known = why(AssertionError("GLOBALS.in_onnx_export must be True"))
    assert known
    assert "thread" in known[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_data_parallel_model_is_told_to_hand_over_its_module(tmp_path):
    model = nn.DataParallel(nn.Linear(4, 2)).eval()
    with pytest.raises(ExportError) as caught:
        ow.export(model, torch.ones(2, 4), tmp_path / "m.onnx", dynamo=False)
    assert "model.module" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
