"""The private names of torch: where one has moved, a test here says so, and export still works."""

import logging.config
from functools import reduce
from importlib import import_module

import onnx
import onnxscript
import pytest
import torch
from models import Table, module
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

import onnx_workbench as ow
from onnx_workbench.errors import CaptureError
from onnx_workbench.graph import guards, torch_private

X = torch.ones(2)

NAMES = [
    ("torch.fx.experimental._config", "backed_size_oblivious"),
    ("torch.fx.proxy", "TracerBase._filter_traceback_frames"),
    ("torch._export.utils", "_materialize_cpp_cia_ops"),
    ("torch.export._patches", "register_lstm_while_loop_decomposition"),
    ("torch.export._patches", "register_gru_while_loop_decomposition"),
    ("torch._dynamo.eval_frame", "remove_from_cache"),
    ("torch._higher_order_ops.while_loop", "while_loop.__code__"),
    ("torch.fx.experimental.symbolic_shapes", "ShapeEnv._log_guard"),
    ("torch.onnx._internal.exporter._registration", "ONNXRegistry.from_torchlib"),
    ("torch._C", "_dispatch_get_all_op_names"),
    ("torch._logging._internal", "trace_log.handlers"),
    ("torch._logging._internal", "GET_DTRACE_STRUCTURED"),
    ("torch._logging.structured", "INTERN_TABLE"),
]


@pytest.mark.parametrize(("module", "path"), NAMES, ids=lambda name: name.rpartition(".")[2])
def test_private_name_is_where_it_was(module, path):
    reduce(getattr, path.split("."), import_module(module))


def test_private_fields_are_where_they_were():
    environment = torch.fx.experimental.symbolic_shapes.ShapeEnv()
    fields = {"_replacements_version_counter", "pending_fresh_unbacked_symbols"}
    assert fields <= set(vars(environment))
    for method in ("_inner_evaluate_expr", "_maybe_guard_rel", "_find"):
        assert hasattr(getattr(environment, method), "cache_clear")
    assert environment.source_to_var == environment.var_to_range == {}
    assert environment.guards == []
    assert hasattr(torch.ops.aten.lstm.input, "_dispatch_cache")
    module = torch.fx.symbolic_trace(nn.ReLU())
    assert hasattr(module, "_lineno_map")
    assert hasattr(module, "_prologue_start")


@torch.library.custom_op("private_tests::grow", mutates_args=("x",))
def grow(x: torch.Tensor) -> None:
    x.add_(1)


def test_custom_operator_can_be_taken_apart():
    name, schema, mutated, function, fake = torch_private.custom_operator(grow)
    assert (name, mutated, fake) == ("private_tests::grow", ("x",), None)
    assert "Tensor(a0!) x" in schema
    function(x := torch.zeros(1))
    assert x == 1


# Stack traces


def test_torchs_filter_of_frames_is_back_after_a_capture_that_failed_and_may_be_gone(monkeypatch):
    before = torch.fx.proxy.TracerBase._filter_traceback_frames
    with pytest.raises(CaptureError):
        ow.capture(nn.Linear(2, 3).eval(), torch.ones(2, 3))
    assert torch.fx.proxy.TracerBase._filter_traceback_frames is before
    monkeypatch.delattr(torch.fx.proxy.TracerBase, "_filter_traceback_frames")
    with torch_private.full_stack_traces():  # a torch without it
        pass


# Translations


SINE = module(lambda self, x: torch.sin(x))


def cosine(x):
    return onnxscript.opset18.Cos(x)


@pytest.fixture
def builds(monkeypatch):
    """A list that grows by one whenever torch builds a table of translations."""
    built, theirs = [], ONNXRegistry.from_torchlib

    def counted(*args, **options):
        built.append(options)
        return theirs(*args, **options)

    monkeypatch.setattr(ONNXRegistry, "from_torchlib", staticmethod(counted))
    return built


@pytest.mark.parametrize("opset", [None, 21])
def test_custom_translation_stays_in_its_own_export(opset, tmp_path):
    graph, table = ow.capture(SINE, X), {torch.ops.aten.sin.default: cosine}
    for translations, operator in ((table, "Cos"), (None, "Sin")):
        options = {"opset_version": opset, "custom_translation_table": translations}
        made = ow.export(graph, f=tmp_path / "m.onnx", **options)
        assert [node.op_type for node in onnx.load(made.path).graph.node] == [operator]


def test_exports_share_one_table_and_torch_keeps_its_own(builds):
    graph = ow.capture(SINE, X)
    for _ in range(2):
        ow.export(graph)
    assert len(builds) == 1
    torch.onnx.export(SINE, (X,), dynamo=True, verbose=False)
    assert len(builds) == 2


def test_operators_registered_later_get_their_translations(builds, monkeypatch):
    """torch.onnx leaves out the translations of torchvision until that is imported."""
    with torch_private.shared_translations():
        ONNXRegistry.from_torchlib()
        library = torch.library.Library("workbench_late", "DEF")
        library.define("late(Tensor x) -> Tensor")
        ONNXRegistry.from_torchlib()
    library._destroy()
    assert len(builds) == 2
    monkeypatch.delattr(ONNXRegistry, "from_torchlib")  # a torch that has it elsewhere
    with torch_private.shared_translations():
        assert not hasattr(ONNXRegistry, "from_torchlib")


# Guards


def refused():
    ow.capture(Table().eval(), torch.ones(2, 16, 8), dynamic_shapes={"x": {1: "length"}})


@pytest.mark.parametrize("off", ["existing loggers", "one logger", "all levels"])
def test_line_of_a_guard_survives_the_users_logging_configuration(off):
    logger = logging.getLogger("torch.__trace")
    disabled = {name: log.disabled for name, log in logging.root.manager.loggerDict.items()
                if isinstance(log, logging.Logger)}  # fmt: skip
    try:
        if off == "existing loggers":
            logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
            assert logger.disabled
        elif off == "one logger":
            logger.disabled = True
        else:
            logging.disable(logging.CRITICAL)
        with pytest.raises(CaptureError) as caught:
            refused()
    finally:
        logging.disable(logging.NOTSET)
        for name, was in disabled.items():
            logging.getLogger(name).disabled = was
    assert caught.value.line.number == Table.forward.__code__.co_firstlineno + 1
    assert "x.shape[1] == 16" in caught.value.reason


def test_handlers_of_the_structured_trace_still_hear_it():
    heard = []

    class Handler(logging.Handler):
        def emit(self, record):
            heard.append(record.metadata)

    logger, handler = logging.getLogger("torch.__trace"), Handler()
    logger.addHandler(handler)
    try:
        with pytest.raises(CaptureError):
            refused()
    finally:
        logger.removeHandler(handler)
    assert any("guard_added" in metadata for metadata in heard)
    with guards.recorded_guards() as ours, pytest.raises(CaptureError):
        refused()
    count = len(ours)
    freezes = next(guard for guard in ours if guard.freezes)
    assert freezes.line.text == "return x + self.positions"
    with pytest.raises(CaptureError):
        refused()
    assert len(ours) == count, "it has stopped listening"


@module
def places(self, tokens):
    place = torch.arange(tokens.shape[1])[:, None] / 16
    return torch.tanh(place.sin() + tokens[..., None]).mean(1)


def test_recording_frames_keeps_no_tensor_alive():
    """A tensor that outlives its frame is a constant of the graph, and torch.export refuses it."""
    for _ in range(3):
        tokens = torch.ones(2, 16)
        ow.capture(places, tokens, dynamic_shapes={"tokens": {1: "words"}}, strict=False)
