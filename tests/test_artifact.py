"""export() and Artifact: the file, the call, and what each wrong call says."""

import copy
import errno
import gc
import logging
import os
import pickle
import re
import shutil
import tempfile
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from models import Branch, Scores, module, parsed
from onnx.numpy_helper import to_array
from torch import nn

from onnx_workbench import artifact, capture, export, load, profile, race, reader, trace, verify
from onnx_workbench.errors import (
    ExportError,
    InputError,
    LoadError,
    RunError,
    TrainingModeWarning,
)

X = torch.arange(128.0).reshape(2, 1, 8, 8) / 128
MASK = torch.ones(2, 10)
DYNAMIC = {"images": {0: "batch"}, "mask": {0: "batch"}}
RELU, LINEAR, ROW = nn.ReLU().eval(), nn.Linear(64, 64).eval(), torch.ones(1, 64)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Scores().eval()


@pytest.fixture(scope="module")
def scores(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("scores") / "scores.onnx"
    return export(model, (X, 3), path, kwargs={"mask": MASK}, dynamic_shapes=DYNAMIC)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def by(factor):
    return module(lambda self, x: x * factor)


def test_it_is_called_like_the_model_and_answers_in_its_structure(model, scores):
    assert verify(model, scores, (X, 3), {"mask": MASK})
    more = torch.cat([X, X, X])
    assert verify(model, scores, (), {"images": more, "scale": 3, "mask": torch.ones(6, 10)})
    assert scores(X, 3, mask=MASK)["rest"][1:] == (None, 3)


def test_one_file_loads_from_an_empty_folder(scores, model, tmp_path):
    copy = shutil.copy(scores.path, tmp_path / "copy.onnx")
    logits, hidden = load(copy)(X, MASK)
    assert verify(lambda: model(X, 3, mask=MASK)["logits"], lambda: logits, ())
    assert hidden.shape == (2, 144)
    assert torch.equal(load(copy)(images=X, mask=MASK)[0], logits)


def test_a_copy_opens_a_session_of_its_own(tmp_path):
    made = export(LINEAR, ROW, tmp_path / "m.onnx")
    read = load(made.path)
    result, _ = made(ROW), read(ROW)
    for again in (copy.deepcopy(made), copy.deepcopy(read), pickle.loads(pickle.dumps(read))):
        assert torch.equal(again(ROW), result)
        assert again.session not in (made.session, read.session)


def test_a_temporary_file_lasts_as_long_as_a_copy():
    made = export(LINEAR, ROW)
    expected, path, again = made(ROW), made.path, copy.copy(made)
    del made
    gc.collect()
    assert torch.equal(again(ROW), expected)
    del again
    gc.collect()
    assert not path.exists()


# Weights beside the file


def test_weights_past_the_limit_lie_beside_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(artifact, "ONE_FILE_LIMIT", 100)
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "thesis.txt").write_text("three years")
    for _ in range(2):  # the second time, the first export is there
        big = export(LINEAR, ROW, tmp_path / "big.onnx")
        assert [file.name for file in big.files] == ["big.onnx", "big.onnx.data"]
        assert names(tmp_path) == ["big", "big.onnx", "big.onnx.data"]
        assert verify(LINEAR, big, ROW)
    assert (tmp_path / "big" / "thesis.txt").read_text() == "three years"
    small = export(RELU, ROW, tmp_path / "big.onnx")
    assert names(tmp_path) == ["big", "big.onnx"]
    export(LINEAR, ROW, small.path)
    data = big.files[1]
    data.write_bytes(bytes(data.stat().st_size))
    with pytest.raises(LoadError, match=r"big\.onnx\.data"):
        big.timed_call((ROW,), {}).prepare()
    data.unlink()
    with pytest.raises(LoadError, match=r"big\.onnx\.data.*not beside it"):
        load(big.path)


def test_file_of_weights_that_is_not_the_models_is_not_overwritten(tmp_path):
    other = tmp_path / "m.onnx.data"
    other.write_text("measurements")
    with pytest.raises(InputError, match=r"m\.onnx\.data"):
        export(LINEAR, ROW, tmp_path / "m.onnx", external_data=True)
    assert other.read_text() == "measurements"
    assert names(tmp_path) == ["m.onnx.data"]


def test_one_file_above_the_limit_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(artifact, "ONE_FILE_LIMIT", 100)
    linear, calls = nn.Linear(64, 64).eval(), []
    linear.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(InputError, match="external_data"):
        export(linear, ROW, tmp_path / "big.onnx", external_data=False)
    assert calls == []


# The file of an artifact


def test_what_reads_a_file_that_has_changed_says_so_and_the_artifact_stays_its_model(tmp_path):
    made = export(by(2.0), X, tmp_path / "m.onnx")
    both = made, load(made.path)
    made.path.write_bytes(made.path.read_bytes())  # the same content is no change
    assert [one.operations for one in both] == [{"Mul": 1}] * 2
    second = export(by(5.0), X, tmp_path / "m.onnx")
    for one in map(artifact.replace, both):  # what was read already stays
        for use in (
            lambda made: made.timed_call((X,), {}).prepare(),
            lambda made: made.save(tmp_path / "copy.onnx"),
            trace,
            lambda made: load(made.path).session and made.model_proto,
        ):
            with pytest.raises(LoadError, match=r"m\.onnx.*has changed"):
                use(one)
    assert torch.equal(made(X), X * 2)
    assert torch.equal(second(X), X * 5)
    made.path.unlink()
    assert torch.equal(made(X), X * 2)
    assert "is gone or cannot be read" in repr(artifact.replace(made))
    with pytest.raises(LoadError, match="is gone or cannot be read"):
        made.save(tmp_path / "copy.onnx")


def test_without_a_path_the_file_goes_with_the_artifact():
    made = export(by(2.0), X)
    folder = made.path.parent
    assert torch.equal(load(made.path)(X), X * 2)
    del made
    gc.collect()
    assert not folder.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX alone has pipes")
def test_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="pipe"):
        export(RELU, X, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").is_fifo()


# Copies


def test_copy_saved_with_weights_outside_can_be_loaded(tmp_path, monkeypatch):
    made = export(LINEAR, ROW, tmp_path / "m.onnx")
    with pytest.raises(InputError, match="own file"):
        made.save(made.path, metadata=False)
    gone = export(LINEAR, ROW, tmp_path / "g.onnx")
    gone.path.unlink()
    with pytest.raises(LoadError, match="is gone"):
        gone.save(made.path)
    outside = load(made.save(tmp_path / "n.onnx", external_data=True))
    assert [file.name for file in outside.files] == ["n.onnx", "n.onnx.data"]
    assert verify(LINEAR, outside, ROW)
    copy = outside.save(tmp_path / "o.onnx")
    inside = outside.save(tmp_path / "p.onnx", external_data=False)
    assert [file.name for file in load(copy).files] == ["o.onnx", "o.onnx.data"]
    assert [file.name for file in load(inside).files] == ["p.onnx"]
    assert verify(LINEAR, load(inside), ROW)
    before = names(tmp_path)
    monkeypatch.chdir(tmp_path)
    for path in ("no/such/m.onnx", "", None, "a\0.onnx"):
        with pytest.raises(InputError):
            made.save(path)
    assert names(tmp_path) == before


def test_copy_without_metadata_says_nothing_of_the_machine_and_computes_the_same(tmp_path):
    branches = module(lambda self, x: torch.cond(x.sum() > 0, torch.sinh, lambda y: y.cosh(), (x,)))
    made = export(branches, MASK, tmp_path / "a.onnx")
    whole, bare = (
        load(made.save(tmp_path / name, metadata=kept))
        for name, kept in (("whole.onnx", True), ("bare.onnx", False))
    )
    here = str(Path(__file__).parent).encode()
    assert here in whole.path.read_bytes()
    assert whole.proto == made.proto
    for word in (here, Path(__file__).name.encode(), b"y.cosh()", b"pkg.torch"):
        assert word not in bare.path.read_bytes()
    assert torch.equal(bare(MASK), made(MASK))


# Calls


@module
def narrow(self, x):
    """Takes and gives what NumPy has no dtype for; one Cast each way, which the CPU has."""
    wide = torch.exp(x.float())
    return wide, wide.to(x.dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_dtypes_that_numpy_lacks_go_in_and_out_wherever_a_call_is_made(dtype):
    x = torch.linspace(-2, 2, 6).to(dtype).reshape(2, 3).T  # not contiguous
    made = export(narrow, x, dynamic_shapes={"x": {0: "n"}})
    assert [out.dtype for out in made(x[:2])] == [torch.float32, dtype]
    inside = verify(narrow, made, x, values=True)
    assert {step.value.partition("[")[0] for step in inside.steps} == {
        "float32",
        str(dtype).removeprefix("torch."),
    }
    assert inside
    for part in (made, made.using(bound=True)):
        ready = pickle.loads(pickle.dumps(part.timed_call((x,), {}))).prepare()
        ready.run()
    timed = made.timed_call((x,), {}).prepare().timed
    assert timed.startswith("run_with_ort_values: NumPy lacks a dtype")
    assert profile(made, x, seconds=0.01).recording.kernels


def test_graph_takes_its_own_call_or_one_that_fits(model, tmp_path):
    graph = capture(model, X)
    with pytest.raises(InputError):
        export(graph, (X, MASK, MASK), tmp_path / "m.onnx")
    made = export(graph, X, tmp_path / "v.onnx", verify=True)
    assert made.graph is graph
    assert made(X, mask=None)["rest"][2] == 3  # its default, since it was not captured
    with pytest.raises(InputError, match="has 'mask'"):
        made(X, mask=MASK)


# The tracer


def test_what_torch_says_about_the_users_line_comes_through():
    with pytest.warns(torch.jit.TracerWarning, match="boolean might cause the trace") as caught:
        export(Branch().eval(), MASK, dynamo=False)
    assert [Path(warning.filename).name for warning in caught] == ["models.py"]


def test_tracer_drops_an_unused_input_names_dimensions_and_is_called_like_the_model():
    half = module(lambda self, used, unused, flag="x": used * 2)
    half = export(half, (X, MASK), dynamo=False, dynamic_shapes={"used": {0: "batch"}})
    assert repr(half.inputs) == "(used float32[batch, 1, 8, 8],)"
    assert torch.equal(half(X, MASK), X * 2)


def test_export_says_nothing(capfd, caplog):
    with warnings.catch_warnings(action="error", category=UserWarning):
        export(nn.GELU().eval(), MASK, opset_version=18)
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("dynamo", [True, False])
def test_warning_about_training_mode_points_at_the_users_line(dynamo):
    with pytest.warns(TrainingModeWarning) as caught:
        export(nn.ReLU(), X, dynamo=dynamo)
    assert [warning.filename for warning in caught] == [__file__]


# What bad input gets


LONG = torch.ones(3, 10)
WRONG = {
    "missing": (lambda s: s(X, 3), "lacks 'mask'", "'images', 'scale', 'mask'"),
    "extra": (lambda s: s(X, 3, mask=MASK, more=1), "more", "mask=None"),
    "baked": (lambda s: s(X, 4, mask=MASK), "'scale' is 4", "3 was baked"),
    "nesting": (lambda s: s([X], 3, mask=MASK), r"\(\[tensor\], tensor", r"\(tensor, tensor"),
    "double": (lambda s: s(X.double(), 3, mask=MASK), r"float64\[2, 1", r"torch\.float32"),
    "shape": (lambda s: s(X[..., :4], 3, mask=MASK), r"\[2, 1, 8, 4\]", "dynamic_shapes"),
    "device": (lambda s: s(X.to("meta"), 3, mask=MASK), "on the meta device", "empty_like"),
    "nested": (lambda s: s(torch.nested.nested_tensor([X]), 3, mask=MASK), "a nested", "unbind"),
    "sparse": (lambda s: s(X.to_sparse(), 3, mask=MASK), "sparse", "to_dense"),
    "complex": (lambda s: s(X + 1j, 3, mask=MASK), "complex64", "view_as_real"),
    "two sizes": (lambda s: s(X, 3, mask=LONG), r"images.* is 2 and mask.* is 3", "'batch'"),
    "count": (lambda s: load(s.path)(X), "'images', 'mask'", "1 positional"),
    "list": (lambda s: load(s.path)(X, [1]), "'mask' is a list", r"float32\[batch, 10\]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_call_that_does_not_fit_says_what_was_passed_and_expected(name, scores):
    call, *nouns = WRONG[name]
    with pytest.raises(InputError) as caught:
        call(scores)
    for noun in nouns:
        assert re.search(noun, str(caught.value)), str(caught.value)


def test_what_fails_inside_onnx_runtime_has_its_sizes_or_its_true_reason(scores, capfd):
    with pytest.raises(RunError) as caught:
        load(scores.path)(X, LONG)
    assert "images float32[2, 1, 8, 8], mask float32[3, 10]" in caught.value.message
    assert "`dynamic_shapes`" in caught.value.hint
    bag = nn.EmbeddingBag(5, 3, mode="sum", include_last_offset=True)
    call = torch.tensor([1, 2]), torch.tensor([0])
    made = export(module(lambda self, ids, offsets: self.bag(ids, offsets), bag=bag), call)
    with pytest.raises(RunError) as caught:
        made(*call)
    assert "loop ran zero times" in caught.value.hint
    rows = export(nn.Embedding(5, 3).eval(), torch.tensor([1]))
    for door in (rows, lambda index: trace(rows, index)):
        with pytest.raises(RunError) as caught:
            door(torch.tensor([7]))
        assert "outside its table" in caught.value.hint
    assert capfd.readouterr().err == ""


def test_a_relative_path_is_that_of_the_export_in_another_folder_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = export(RELU, X, "m.onnx")
    read = load("m.onnx")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir("other")
    for file in (made, read):
        assert trace(file, X, seconds=0.01)
        assert file.save("again.onnx") == Path("again.onnx")


REFUSED = [
    (RELU, {"opset_version": "18"}, InputError, "opset_version.*'18'"),
    (RELU, {"provider": "NoProvider"}, InputError, "(?s)'NoProvider'.*onnxruntime-gpu"),
    (RELU, {"provider": "CPUExecutionprovider"}, InputError, "mean 'CPUExecutionProvider'"),
    (module(lambda self, x: None), {}, ExportError, "no tensor"),
    (module(lambda self, x: None), {"dynamo": False}, ExportError, "no tensor"),
]


@pytest.mark.parametrize(("model", "options", "error", "words"), REFUSED)
def test_export_that_cannot_be_is_a_planned_error(
    model, options, error, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        export(model.eval(), X, **{"f": "m.onnx", **options})
    assert names(tmp_path) == []


@pytest.mark.parametrize("where", ["mkdtemp", "to_proto", "interrupt"])
def test_full_disk_or_an_interrupt_leaves_what_was_there(where, tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"what was there")

    def full(*_, **__):
        if where == "mkdtemp":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        (next(tmp_path.glob(".m.onnx-*")) / "m.onnx").write_bytes(b"half")
        raise KeyboardInterrupt if where == "interrupt" else OSError(errno.ENOSPC, "No space left")

    target = (tempfile, "mkdtemp") if where == "mkdtemp" else (onnx_ir, "to_proto")
    monkeypatch.setattr(*target, full)
    words = r"m\.onnx' could not be written.*No space left" if where != "interrupt" else ""
    with pytest.raises((ExportError, KeyboardInterrupt), match=words):
        export(RELU, X, path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("m.onnx", b"what was there")]


def test_threads_that_do_not_start_are_the_machines_matter(scores, monkeypatch):
    def refuses(*args, **kwargs):
        raise RuntimeError("pthread_create failed: Resource temporarily unavailable")

    monkeypatch.setattr("onnxruntime.InferenceSession", refuses)
    with pytest.raises(LoadError, match="cannot start more threads") as caught:
        load(scores.path).session  # noqa: B018
    assert "check_model" not in caught.value.hint


def test_file_of_a_future_opset(scores, tmp_path):
    proto = onnx.load(scores.path)
    proto.opset_import[0].version = 999
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(LoadError, match="needs a newer onnxruntime") as caught:
        load(tmp_path / "m.onnx").session  # noqa: B018
    assert "`opset_version`" in caught.value.hint


@torch.library.custom_op("workbench_test::swishy", mutates_args=())
def swishy(x: torch.Tensor) -> torch.Tensor:
    return x * x.sigmoid()


swishy.register_fake(torch.empty_like)


def test_file_that_a_step_refuses_is_not_published_and_has_its_line(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    with pytest.raises(ExportError, match=r"workbench_test\.swishy has no transl") as caught:
        export(module(lambda self, x: swishy(x)), X, path)
    assert "swishy(x)" in caught.value.line.text
    assert "`custom_translation_table`" in caught.value.hint
    words = r"rejects the exporter's file\. m\.onnx could"
    with pytest.raises(ExportError, match=words) as caught:
        export(nn.Linear(8, 2).eval(), X.double(), path)
    assert caught.value.step == "load"
    assert caught.value.line.text.startswith("return F.linear")
    assert "x.float()" in caught.value.hint
    # an operator that its opset does not have: what torch.onnx can write without an error
    wrong = parsed("(float[2] x) => (float[2] y) { y = Gelu(x) }", opset=18)
    monkeypatch.setattr(onnx_ir, "to_proto", lambda _: wrong)
    with pytest.raises(ExportError, match=r"onnx\.checker rejects: .*holds Gelu") as caught:
        export(nn.GELU().eval(), X, path, opset_version=18)
    assert (caught.value.step, caught.value.got) == ("check", 18)
    assert names(tmp_path) == []


# Large files


def test_large_file_keeps_its_weights_out_of_the_proto(tmp_path):
    """The proto tells where in the file each weight lies, and what reads weights finds it there.

    Biases of 246 to 257 numbers are just below and above what is kept in the proto.
    """
    widths, x = (2200, 2200, *range(246, 258), 3), (1, 2200)
    model = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths))).eval()
    artifact = export(model, torch.randn(x), tmp_path / "large.onnx")
    assert artifact.path.stat().st_size > reader.STEP_OVER_ABOVE
    assert artifact.proto.ByteSize() < 100_000
    assert artifact.files == (artifact.path,)
    assert artifact.weight_bytes == sum(p.nbytes for p in model.parameters())
    folder = str(tmp_path)
    for ours, theirs in zip(
        artifact.proto.graph.initializer, artifact.model_proto.graph.initializer, strict=True
    ):
        assert (to_array(ours, folder) == to_array(theirs)).all()
    assert verify(model, artifact, torch.randn(x), values=True)


def test_weights_of_a_large_file_that_are_no_raw_bytes_stay_in_the_proto(tmp_path):
    model = parsed("(float[5000000] x) => (float[5000000] y) { y = Add(x, w) }")
    tensor = model.graph.initializer.add(name="w", dims=[5_000_000], data_type=1)
    tensor.float_data.extend(np.arange(5_000_000, dtype=np.float32))
    onnx.save(model, tmp_path / "f.onnx")
    artifact = load(tmp_path / "f.onnx")
    assert len(artifact.proto.graph.initializer[0].float_data) == 5_000_000
    assert artifact.files == (artifact.path,)


class Weighs(nn.Module):
    """Weights above and below what is written apart, of dtypes that NumPy has and lacks."""

    def __init__(self):
        super().__init__()
        table = torch.arange(4096.0).reshape(32, 128)
        self.a, self.tied = nn.Parameter(table), nn.Parameter(table)
        self.turned = nn.Parameter(torch.randn(128, 32).t())
        self.small = nn.Parameter(torch.ones(128))
        for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool):
            self.register_buffer(f"as_{str(dtype).removeprefix('torch.')}", (table % 2).to(dtype))

    def forward(self, x):
        total = x * self.small + self.a + self.tied.relu() + self.turned
        for buffer in self.buffers():
            total = total + buffer.float()
        return total


@pytest.mark.parametrize("as_inputs", [False, True])
def test_one_file_holds_what_torch_writes_into_one(as_inputs, tmp_path):
    x, options = torch.randn(32, 128), {"keep_initializers_as_inputs": as_inputs}
    model = Weighs().eval()
    made = export(model, x, tmp_path / "m.onnx", **options)
    bare = tmp_path / "bare.onnx"
    torch.onnx.export(model, (x,), bare, external_data=False, verbose=False, **options)
    ours, theirs = made.model_proto.graph, onnx.load(bare).graph
    assert sum(len(tensor.raw_data) > 1024 for tensor in ours.initializer) >= 8
    assert [*map(str, ours.initializer)] == [*map(str, theirs.initializer)]
    assert [*map(str, ours.input)] == [*map(str, theirs.input)]
    assert [v.name for v in ours.value_info] == [v.name for v in theirs.value_info]


@pytest.mark.parametrize("rows", [2, 2100], ids=["small", "large"])
def test_file_with_an_attribute_that_no_operator_has_is_rejected(rows, tmp_path, monkeypatch):
    to_proto = onnx_ir.to_proto

    def wrong(model):
        proto = to_proto(model)
        proto.graph.node[0].attribute.add(name="speed", type=onnx.AttributeProto.INT, i=9)
        return proto

    monkeypatch.setattr(onnx_ir, "to_proto", wrong)
    with pytest.raises(ExportError, match="speed") as caught:
        export(nn.Linear(2100, rows).eval(), torch.ones(1, 2100), tmp_path / "m.onnx")
    assert caught.value.step == "check"
    assert names(tmp_path) == []


@pytest.mark.parametrize("outside", [False, True], ids=["one file", "weights beside it"])
def test_model_behind_links_is_read_profiled_and_raced(outside, tmp_path):
    """A folder of links, as a download cache is; a large model, whose nodes have no names."""
    cache, folder = tmp_path / "cache", tmp_path / "folder"
    cache.mkdir()
    folder.mkdir()
    path, x, goal = tmp_path / "m.onnx", torch.ones(1, 2200), tmp_path / "copy.onnx"
    export(nn.Linear(2200, 2000).eval(), x, path, external_data=outside)
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        node.ClearField("name")
    onnx.save(model, path)
    for number, file in enumerate(sorted(tmp_path.glob("m.onnx*"))):
        (folder / file.name).symlink_to(file.rename(cache / f"blob{number}"))
    linked = load(folder / "m.onnx")
    assert profile(linked, x, seconds=0.01).unattributed == 0
    raced = race({"a": linked, "b": load(linked.path)}, x, quick=True, seconds=0.01)
    assert raced.ratio("b")
    if not outside:
        linked.save(goal, external_data=True)
        assert torch.equal(load(goal)(x), linked(x))
        return
    for call in (lambda: linked.model_proto, lambda: linked.save(goal, external_data=False)):
        with pytest.raises(LoadError, match="link"):
            call()
    assert not goal.exists()
