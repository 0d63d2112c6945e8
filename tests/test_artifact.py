import errno
import gc
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from models import Branch, Cond, Scores
from onnx.numpy_helper import to_array
from torch import nn

from onnx_workbench import (
    artifact,
    capture,
    export,
    load,
    profile,
    race,
    reader,
    trace,
    verify,
    view,
)
from onnx_workbench.errors import (
    CaptureError,
    ExportError,
    InputError,
    LoadError,
    RunError,
    TrainingModeWarning,
)

X = torch.arange(128.0).reshape(2, 1, 8, 8) / 128
MASK = torch.ones(2, 10)
DYNAMIC = {"images": {0: "batch"}, "mask": {0: "batch"}}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Scores().eval()


@pytest.fixture(scope="module")
def scores(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("scores") / "scores.onnx"
    return export(model, (X, 3), path, kwargs={"mask": MASK}, dynamic_shapes=DYNAMIC)


def test_it_is_called_like_the_model_and_answers_in_its_structure(model, scores):
    assert verify(model, scores, (X, 3), {"mask": MASK})
    more = torch.cat([X, X, X])
    assert verify(model, scores, (), {"images": more, "scale": 3, "mask": torch.ones(6, 10)})
    assert scores(X, 3, mask=MASK)["rest"][1:] == (None, 3)


def test_the_repr_is_the_report(scores):
    assert repr(scores) == (
        f"scores.onnx: opset {scores.opset}, IR {scores.proto.ir_version}, 6 nodes, "
        "weights 5.98 kB in 1 file, CPUExecutionProvider\n"
        "input   images float32[batch, 1, 8, 8]\n"
        "input   mask float32[batch, 10]\n"
        f"output  {scores.outputs[0].name} float32[batch, 10]\n"
        f"output  {scores.outputs[1].name} float32[batch, 144]\n"
        "nodes   Add 1, Conv 1, Gemm 1, Mul 1, Relu 1, Reshape 1"
    )


def test_a_graph_and_its_model_give_the_same_file(model, scores, tmp_path):
    graph = capture(model, (X, 3), {"mask": MASK}, dynamic_shapes=DYNAMIC)
    again = export(graph, f=tmp_path / "again.onnx")
    assert again.operations == scores.operations
    assert again.inputs == scores.inputs


def test_one_file_loads_from_an_empty_folder(scores, model, tmp_path):
    copy = shutil.copy(scores.path, tmp_path / "copy.onnx")
    logits, hidden = load(copy)(X, MASK)
    assert verify(lambda: model(X, 3, mask=MASK)["logits"], lambda: logits, ())
    assert hidden.shape == (2, 144)
    assert torch.equal(load(copy)(images=X, mask=MASK)[0], logits)


def test_weights_past_the_limit_lie_beside_the_file_and_a_folder_of_that_name_stands(
    model, tmp_path, monkeypatch
):
    monkeypatch.setattr(artifact, "ONE_FILE_LIMIT", 100)
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "thesis.txt").write_text("three years")
    for _ in range(2):  # the second time, the first export is there
        big = export(model, X, tmp_path / "big.onnx")
        assert [file.name for file in big.files] == ["big.onnx", "big.onnx.data"]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["big", "big.onnx", "big.onnx.data"]
        assert verify(model, big, X)
    assert (tmp_path / "big" / "thesis.txt").read_text() == "three years"


@pytest.mark.parametrize("limit", [100, artifact.ONE_FILE_LIMIT])
def test_a_file_of_weights_that_is_not_the_models_is_not_overwritten(limit, tmp_path, monkeypatch):
    monkeypatch.setattr(artifact, "ONE_FILE_LIMIT", limit)
    other = tmp_path / "m.onnx.data"
    other.write_text("measurements")
    with pytest.raises(InputError, match=r"m\.onnx\.data"):
        export(nn.Linear(64, 64).eval(), torch.ones(1, 64), tmp_path / "m.onnx", external_data=True)
    assert other.read_text() == "measurements"
    assert list(tmp_path.iterdir()) == [other]


def test_one_file_above_the_limit_is_refused_before_the_work(model, tmp_path, monkeypatch):
    monkeypatch.setattr(artifact, "ONE_FILE_LIMIT", 100)
    monkeypatch.setattr(artifact, "capture", None)
    with pytest.raises(InputError, match="external_data"):
        export(model, X, tmp_path / "big.onnx", external_data=False)


class By(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def test_an_artifact_stays_its_model_when_another_is_exported_to_its_path(tmp_path):
    first = export(By(2.0), X, tmp_path / "m.onnx")
    second = export(By(5.0), X, tmp_path / "m.onnx")
    assert torch.equal(first(X), X * 2)
    assert torch.equal(second(X), X * 5)


def _run(made, tmp_path):
    return made(X)


def _race(made, tmp_path):
    return made.timed_call((X,), {}).prepare()


def _save(made, tmp_path):
    return made.save(tmp_path / "copy.onnx")


@pytest.mark.parametrize(
    ("loaded", "use"),
    [
        (True, _run),
        (True, _race),
        (False, _race),
        (False, _save),
        (False, lambda made, _: made.proto),
        (False, lambda made, _: view(made)),
        (False, lambda made, _: trace(made)),
    ],
)
def test_what_reads_a_file_that_has_changed_says_so(loaded, use, tmp_path):
    made = export(By(2.0), X, tmp_path / "m.onnx")
    made = load(made.path) if loaded else made
    export(By(5.0), X, tmp_path / "m.onnx")
    with pytest.raises(LoadError, match=r"m\.onnx.*has changed"):
        use(made, tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX alone has pipes")
def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="pipe"):
        export(By(2.0), X, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").is_fifo()


def test_an_artifact_whose_file_is_gone_still_answers_and_has_a_repr(tmp_path):
    made = export(By(2.0), X, tmp_path / "m.onnx")
    made.path.unlink()
    assert torch.equal(made(X), X * 2)
    assert "no longer there" in repr(made)
    with pytest.raises(LoadError, match="no longer there"):
        made.save(tmp_path / "copy.onnx")


def test_a_model_that_returns_no_tensor_has_no_file(tmp_path):
    class Nothing(nn.Module):
        def forward(self, x):
            return None

    for dynamo in (True, False):
        with pytest.raises(ExportError, match="no tensor"):
            export(Nothing(), X, tmp_path / "m.onnx", dynamo=dynamo)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_only_touched_is_the_same(tmp_path):
    made = export(By(2.0), X, tmp_path / "m.onnx")
    made.path.write_bytes(made.path.read_bytes())
    assert made.operations == {"Mul": 1}


def test_weights_that_have_changed_are_noticed_too(tmp_path):
    made = export(
        nn.Linear(64, 64).eval(), X.reshape(-1, 64), tmp_path / "m.onnx", external_data=True
    )
    data = made.files[1]
    data.write_bytes(bytes(data.stat().st_size))
    with pytest.raises(LoadError, match=r"m\.onnx\.data"):
        made.timed_call((X.reshape(-1, 64),), {}).prepare()


def test_without_a_path_the_file_goes_with_the_artifact():
    made = export(By(2.0), X)
    folder = made.path.parent
    assert torch.equal(load(made.path)(X), X * 2)
    del made
    gc.collect()
    assert not folder.exists()


def test_a_failed_export_leaves_no_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(CaptureError):
        export(Branch(), torch.ones(3))
    assert list(tmp_path.iterdir()) == []


def test_a_saved_copy_can_leave_out_what_the_exporter_notes(tmp_path):
    made = export(By(2.0), X, tmp_path / "m.onnx")
    full = made.save(tmp_path / "full.onnx")
    bare = made.save(tmp_path / "bare.onnx", metadata=False)
    assert torch.equal(load(bare)(X), X * 2)
    assert b"test_artifact.py" in full.read_bytes()
    assert b"test_artifact.py" not in bare.read_bytes()


def test_a_copy_saved_with_weights_outside_can_be_loaded(tmp_path):
    linear, x = nn.Linear(64, 64).eval(), torch.ones(1, 64)
    made = export(linear, x, tmp_path / "m.onnx")
    outside = load(made.save(tmp_path / "n.onnx", external_data=True))
    assert [file.name for file in outside.files] == ["n.onnx", "n.onnx.data"]
    assert verify(linear, outside, x)
    copy = outside.save(tmp_path / "o.onnx")
    inside = outside.save(tmp_path / "p.onnx", external_data=False)
    assert [file.name for file in load(copy).files] == ["o.onnx", "o.onnx.data"]
    assert [file.name for file in load(inside).files] == ["p.onnx"]
    assert verify(linear, load(inside), x)


def test_an_entry_times_a_session_of_its_own_with_the_threads_asked_for(scores):
    ready = scores.timed_call((X, 3), {"mask": MASK}, threads=2).prepare()
    session = ready.run.func.__self__
    assert (session.get_session_options().intra_op_num_threads, ready.threads) == (2, 2)
    assert session is not scores.session
    assert all(isinstance(out, np.ndarray) for out in ready.run())
    assert ready.timed == (
        "session.run: NumPy in and out, no copies from or to tensors, ONNX Runtime's defaults"
    )


class Narrow(nn.Module):
    """Takes and gives what NumPy has no dtype for; one Cast each way, which the CPU has."""

    def forward(self, x):
        wide = torch.exp(x.float())
        return wide, wide.to(x.dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_dtypes_that_numpy_lacks_go_in_and_out_wherever_a_call_is_made(dtype, tmp_path):
    x = torch.linspace(-2, 2, 6).to(dtype).reshape(2, 3).T  # not contiguous
    narrow = export(Narrow().eval(), x, tmp_path / "narrow.onnx", dynamic_shapes={"x": {0: "n"}})
    assert verify(Narrow().eval(), narrow, x)
    assert [out.dtype for out in narrow(x[:2])] == [torch.float32, dtype]
    inside = verify(Narrow().eval(), narrow, x, values=True)
    assert {step.value.partition("[")[0] for step in inside.steps} == {
        "float32",
        str(dtype).removeprefix("torch."),
    }
    assert inside
    for part in (narrow, narrow.using(bound=True)):
        ready = pickle.loads(pickle.dumps(part.timed_call((x,), {}))).prepare()
        ready.run()
    timed = narrow.timed_call((x,), {}).prepare().timed
    assert timed.startswith("run_with_ort_values: NumPy lacks a dtype")
    assert profile(narrow, x, seconds=0.01).recording.kernels


def test_the_tracer_bakes_a_branch_that_capture_refuses_and_cond_keeps(tmp_path):
    up, down = torch.ones(3), -torch.ones(3)
    with pytest.warns(torch.jit.TracerWarning):
        traced = export(Branch().eval(), up, tmp_path / "traced.onnx", dynamo=False)
    assert verify(Branch().eval(), traced, up)
    assert not verify(Branch().eval(), traced, down)
    with pytest.raises(CaptureError):
        export(Branch().eval(), up, tmp_path / "refused.onnx")
    kept = export(Cond().eval(), up, tmp_path / "kept.onnx")
    assert verify(Branch().eval(), kept, up)
    assert verify(Branch().eval(), kept, down)
    assert kept.operations["If"] == 1


def test_what_torch_says_about_the_users_line_comes_through(tmp_path):
    with pytest.warns(torch.jit.TracerWarning, match="boolean might cause the trace") as caught:
        export(Branch().eval(), torch.ones(3), tmp_path / "traced.onnx", dynamo=False)
    assert [Path(warning.filename).name for warning in caught] == ["models.py"]


def test_the_tracer_drops_an_unused_input_and_is_called_like_the_model_all_the_same(tmp_path):
    class Half(nn.Module):
        def forward(self, used, unused, flag="x"):
            return used * 2

    half = export(Half().eval(), (X, MASK), tmp_path / "half.onnx", dynamo=False)
    assert [value.name for value in half.inputs] == ["used"]
    assert torch.equal(half(X, MASK), X * 2)


def test_the_tracer_names_dynamic_dimensions_too(tmp_path):
    traced = export(
        nn.ReLU().eval(),
        X,
        tmp_path / "relu.onnx",
        dynamo=False,
        dynamic_shapes={"input": {0: "batch"}},
    )
    assert repr(traced.inputs[0]) == "input float32[batch, 1, 8, 8]"


def test_an_export_says_nothing(tmp_path):
    code = (
        "import torch, onnx_workbench as ow\n"
        "ow.export(torch.nn.GELU().eval(), torch.ones(2), 'gelu.onnx', opset_version=18)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "TQDM_DISABLE": "1"},  # on a slow machine the bar would show
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")


# What bad input gets


def refused(error, call, *args, **kwargs):
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_an_argument_that_was_captured_is_missing(scores):
    assert refused(InputError, scores, X, 3) == (
        "This call lacks 'mask', unlike the one that was captured, which had 'images', 'scale', "
        "'mask'. Pass the same arguments, or capture the model again with these."
    )


def test_an_argument_that_was_not_captured_is_given(model, tmp_path):
    plain = export(model, X, tmp_path / "plain.onnx")
    assert plain(X, mask=None)["rest"][2] == 3  # the default, spelled out
    assert refused(InputError, plain, X, mask=MASK) == (
        "This call has 'mask', unlike the one that was captured, which had 'images'. "
        "Pass the same arguments, or capture the model again with these."
    )


def test_another_value_of_a_baked_argument(scores):
    assert refused(InputError, scores, X, 4, mask=MASK) == (
        "The argument 'scale' is 4, and 3 was baked into the graph when it was captured. Pass that "
        "value, capture the model again with this one, or make the argument a tensor."
    )


def test_another_nesting(scores):
    assert refused(InputError, scores, [X], 3, mask=MASK) == (
        "The arguments have the structure ([tensor], tensor, mask=tensor), and the model was "
        "captured with (tensor, tensor, mask=tensor). Pass the same nesting, or capture the model "
        "again with these arguments."
    )


@pytest.mark.parametrize(
    ("images", "have", "hint"),
    [
        (X.double(), "float64[2, 1, 8, 8]", r"torch\.float32"),
        (X[..., :4], "float32[2, 1, 8, 4]", "dynamic_shapes"),
        (X.to("meta"), "on meta", r"\.cpu\(\)"),
        (X.to_sparse(), "sparse", "to_dense"),
        (X.to(torch.complex64), "complex64[2, 1, 8, 8]", "view_as_real"),
    ],
)
def test_input_that_the_file_does_not_take(scores, images, have, hint):
    with pytest.raises(InputError, match=hint) as caught:
        scores(images, 3, mask=MASK)
    assert have in caught.value.message
    assert "images float32[batch, 1, 8, 8]" in caught.value.message


def test_sizes_that_fail_inside_onnx_runtime(scores, capfd):
    with pytest.raises(RunError) as caught:
        load(scores.path)(X, torch.ones(3, 10))
    assert "images float32[2, 1, 8, 8], mask float32[3, 10]" in caught.value.message
    assert "`dynamic_shapes`" in caught.value.hint
    assert capfd.readouterr().err == ""


def test_two_sizes_of_one_name_are_refused(scores):
    message = refused(InputError, scores, X, 3, mask=torch.ones(3, 10))
    assert message.startswith("images.shape[0] is 2 and mask.shape[0] is 3, and both are 'batch'")


def test_a_loaded_file_counts_its_inputs(scores):
    assert refused(InputError, load(scores.path), X) == (
        "scores.onnx takes 'images', 'mask', and was called with 1 positional argument and the "
        "names []. Pass one tensor for each input, in that order or by name."
    )
    assert refused(InputError, load(scores.path), X, [1]) == (
        "The input 'mask' is a list, and the file takes mask float32[batch, 10]. "
        "Pass a torch.Tensor."
    )


def test_a_path_that_cannot_be(tmp_path):
    relu = nn.ReLU().eval()
    assert refused(InputError, export, relu, X, tmp_path / "no" / "m.onnx") == (
        f"The folder {str(tmp_path / 'no')!r} of 'm.onnx' does not exist. "
        "Make it first, or pass a path in a folder that exists."
    )
    (tmp_path / "d.onnx").mkdir()
    assert refused(InputError, export, relu, X, tmp_path / "d.onnx") == (
        f"{str(tmp_path / 'd.onnx')!r} is a folder, and a file is to be written there. "
        "Pass another name."
    )


@pytest.mark.parametrize("where", ["mkdtemp", "to_proto"])
def test_a_full_disk_leaves_what_was_there(where, tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"what was there")

    def full(*_, **__):
        if where == "to_proto":
            (next(tmp_path.glob(".m.onnx-*")) / "m.onnx").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = (tempfile, "mkdtemp") if where == "mkdtemp" else (onnx_ir, "to_proto")
    monkeypatch.setattr(*target, full)
    assert refused(ExportError, export, nn.ReLU().eval(), X, path) == (
        f"m.onnx could not be written to {str(tmp_path)!r}: No space left on device. What was "
        "there before is still there.\n"
        "What helps: make room or get the right to write there, or pass another path."
    )
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("m.onnx", b"what was there")]


def test_the_warning_about_training_mode_points_at_the_users_line(tmp_path):
    for dynamo in (True, False):
        with pytest.warns(TrainingModeWarning) as caught:
            export(nn.ReLU(), X, tmp_path / "m.onnx", dynamo=dynamo)
        assert [warning.filename for warning in caught] == [__file__]


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx_ir, "to_proto", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(nn.ReLU().eval(), X, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "way"),
    [(9, "down."), (99, "up. It is labelled opset 18 and holds Gelu, which came with opset 20.")],
)
def test_an_opset_that_was_not_written_is_an_error_not_a_log_line(asked, way, tmp_path):
    message = refused(
        ExportError, export, nn.GELU().eval(), X, tmp_path / "m.onnx", opset_version=asked
    )
    assert message == (
        f"You asked for opset {asked} and the exporter wrote opset 18, without an error of its "
        f"own: it could not convert the graph {way}\n"
        "What helps: ask for opset 18, or leave `opset_version` out; check() shows the highest "
        "that this stack writes and loads."
    )
    assert list(tmp_path.iterdir()) == []


def test_an_opset_that_can_be_written_is_the_one_in_the_file(tmp_path):
    for opset in (18, 20):
        made = export(nn.GELU().eval(), X, tmp_path / f"{opset}.onnx", opset_version=opset)
        assert made.opset == opset
    assert load(tmp_path / "20.onnx").operations == {"Gelu": 1}


def test_an_opset_is_a_whole_number(tmp_path):
    assert refused(
        InputError, export, nn.ReLU().eval(), X, tmp_path / "m.onnx", opset_version="18"
    ) == ("`opset_version` is '18', and it takes a whole number such as 18, or None.")


def test_a_provider_that_is_not_installed_is_refused_before_any_work(tmp_path):
    message = refused(InputError, export, Branch(), X, tmp_path / "m.onnx", provider="NoProvider")
    assert message.startswith("The execution provider 'NoProvider' is not in this onnxruntime, ")
    assert message.endswith(
        ". Choose one of these, or install the onnxruntime package that has it "
        "(CUDAExecutionProvider comes with onnxruntime-gpu)."
    )
    assert refused(InputError, load, Path(__file__), provider="CPUExecutionprovider").endswith(
        ". Did you mean 'CPUExecutionProvider'?"
    )


def test_the_call_of_a_graph_is_its_own_or_fits_it(model, tmp_path):
    graph = capture(model, X)
    assert export(graph, X, tmp_path / "m.onnx").graph is graph
    with pytest.raises(InputError):
        export(graph, (X, MASK, MASK), tmp_path / "m.onnx")


@pytest.mark.parametrize("content", [b"no model at all", b"", "half"])
def test_a_file_that_is_no_model_or_half_of_one(content, scores, tmp_path):
    path = tmp_path / "m.onnx"
    half = scores.path.read_bytes()[: scores.path.stat().st_size // 2]
    path.write_bytes(half if content == "half" else content)
    message = refused(LoadError, load, path)
    assert re.search("truncated|no ONNX model", message)
    assert message.startswith("load was passed 'm.onnx' (")


def test_a_file_whose_weights_were_left_behind(model, tmp_path, monkeypatch):
    monkeypatch.setattr(artifact, "ONE_FILE_LIMIT", 100)
    big = export(model, X, tmp_path / "big.onnx")
    big.files[1].unlink()
    assert refused(LoadError, load, big.path) == (
        "big.onnx could not be loaded: its weights are in a file of their own, 'big.onnx.data', "
        "which is not beside it.\nWhat helps: copy both files, or export again into one."
    )


def test_a_file_of_a_future_opset(scores, tmp_path):
    proto = onnx.load(scores.path)
    proto.opset_import[0].version = 999
    onnx.save(proto, tmp_path / "m.onnx")
    future = load(tmp_path / "m.onnx")
    message = refused(LoadError, lambda: future.session)
    assert message.startswith(
        "m.onnx could not be loaded: it asks for more than this onnxruntime knows: "
    )
    assert message.endswith(
        "\nWhat helps: export with a lower `opset_version` (check() shows the highest that "
        "loads), or upgrade onnxruntime."
    )


def test_no_file_at_all(tmp_path):
    assert refused(InputError, load, tmp_path / "m.onnx") == (
        f"There is no file 'm.onnx' in {str(tmp_path)!r}. "
        "Pass the path of an .onnx file, or make one with export()."
    )


def test_an_operator_without_translation_is_named(tmp_path):
    with torch.library._scoped_library("workbench_test", "DEF") as library:
        library.define("swishy(Tensor x) -> Tensor")
        library.impl("swishy", lambda x: x * x.sigmoid(), "CompositeExplicitAutograd")
        torch.library.register_fake("workbench_test::swishy", torch.empty_like, lib=library)

        class Swishy(nn.Module):
            def forward(self, x):
                return torch.ops.workbench_test.swishy(x)

        message = refused(ExportError, export, Swishy().eval(), X, tmp_path / "m.onnx")
    told, code, hint = message.splitlines()
    assert re.fullmatch(
        r"The operator workbench_test.swishy has no translation into ONNX at test_artifact.py:\d+",
        told,
    )
    assert code.strip() == "return torch.ops.workbench_test.swishy(x)"
    assert "`custom_translation_table`" in hint
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_checker_rejects_is_not_published(tmp_path, monkeypatch):
    """An operator that its opset does not have: what torch.onnx can write without an error."""
    node = onnx.helper.make_node("Gelu", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:])
    opset = onnx.helper.make_opsetid("", 18)
    wrong = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    monkeypatch.setattr(onnx_ir, "to_proto", lambda _: wrong)
    message = refused(
        ExportError, export, nn.GELU().eval(), X, tmp_path / "m.onnx", opset_version=18
    )
    assert message.startswith(
        "The exporter wrote a file that onnx.checker rejects: It is labelled opset 18 and holds "
        "Gelu, which came with opset 20."
    )
    assert message.endswith(
        "\nWhat helps: ask for another opset; check() shows which this stack writes and loads."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_onnx_runtime_rejects_is_not_published(tmp_path):
    message = refused(ExportError, export, nn.Linear(8, 2).eval(), X.double(), tmp_path / "m.onnx")
    assert message.startswith("ONNX Runtime rejects what the exporter wrote. m.onnx could not be ")
    assert list(tmp_path.iterdir()) == []


def test_a_nested_argument_takes_nested_dynamic_dimensions(tmp_path):
    class Pair(nn.Module):
        def forward(self, pair):
            return pair[0] + pair[1]

    pair = export(
        Pair().eval(),
        ([X, X],),
        tmp_path / "pair.onnx",
        dynamic_shapes={"pair": [{0: "n"}, {0: "n"}]},
    )
    assert [value.shape[0] for value in pair.inputs] == ["n", "n"]
    assert torch.equal(pair([X[:1], X[:1]]), 2 * X[:1])
    path, wrong = tmp_path / "p.onnx", {"pair": [{0: "n"}]}
    message = refused(
        InputError, export, Pair().eval(), ([X, X],), path, dynamic_shapes=wrong, dynamo=False
    )
    assert message.startswith("`dynamic_shapes` has [{0: 'n'}] for 'pair', which is a list of 2")


def test_a_model_that_takes_any_number_of_arguments_is_exported(tmp_path):
    class Sum(torch.nn.Module):
        def forward(self, *tensors):
            return tensors[0] + tensors[1]

    a, b = torch.ones(2), torch.full((2,), 2.0)
    artifact = export(Sum().eval(), (a, b), tmp_path / "sum.onnx")
    assert artifact(a, b).tolist() == [3, 3]
    assert [feed.tolist() for feed in artifact.feeds(a, b).values()] == [[1, 1], [2, 2]]


# A copy, and what it says of its author


class Described(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x.sinh(), lambda x: x.cosh(), (x,))


def test_a_copy_without_metadata_says_nothing_of_the_machine_and_computes_the_same(tmp_path):
    made = export(Described().eval(), torch.ones(3), tmp_path / "a.onnx")
    whole, bare = (
        load(made.save(tmp_path / name, metadata=kept))
        for name, kept in (("whole.onnx", True), ("bare.onnx", False))
    )
    here = str(Path(__file__).parent).encode()
    assert here in whole.path.read_bytes()
    assert whole.proto == made.proto
    for word in (here, Path(__file__).name.encode(), b"x.sinh()", b"pkg.torch"):
        assert word not in bare.path.read_bytes()
    assert torch.equal(bare(torch.ones(3)), made(torch.ones(3)))


def test_a_copy_takes_its_weights_along(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    made = export(nn.Linear(8, 8).eval(), torch.ones(8), tmp_path / "a.onnx")
    onnx.save(
        made.proto, folder / "m.onnx", save_as_external_data=True, location="w.bin",
        size_threshold=0,
    )  # fmt: skip
    copy = load(load(folder / "m.onnx").save(tmp_path / "new.onnx", metadata=False))
    shutil.rmtree(folder)
    assert [file.name for file in copy.files] == ["new.onnx", "new.onnx.data"]
    assert torch.equal(copy(torch.ones(8)), made(torch.ones(8)))


@pytest.mark.parametrize("path", ["no/such/m.onnx", "", None, "a\0.onnx"])
def test_a_copy_to_no_path_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = export(nn.ReLU().eval(), torch.ones(3), "a.onnx")
    with pytest.raises(InputError):
        made.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]


def test_a_large_file_keeps_its_weights_out_of_the_proto(tmp_path):
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
    values = np.arange(5_000_000, dtype=np.float32)
    tensor = onnx.TensorProto(name="w", dims=values.shape, data_type=onnx.TensorProto.FLOAT)
    tensor.float_data.extend(values)
    ends = [onnx.helper.make_tensor_value_info(n, tensor.data_type, values.shape) for n in "xy"]
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [tensor])
    opsets = [onnx.helper.make_opsetid("", 20)]
    onnx.save(
        onnx.helper.make_model(graph, ir_version=10, opset_imports=opsets), tmp_path / "f.onnx"
    )
    artifact = load(tmp_path / "f.onnx")
    assert len(artifact.proto.graph.initializer[0].float_data) == len(values)
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
def test_a_file_with_an_attribute_that_no_operator_has_is_rejected(rows, tmp_path, monkeypatch):
    to_proto = onnx_ir.to_proto

    def wrong(model):
        proto = to_proto(model)
        proto.graph.node[0].attribute.add(name="speed", type=onnx.AttributeProto.INT, i=9)
        return proto

    monkeypatch.setattr(onnx_ir, "to_proto", wrong)
    with pytest.raises(ExportError) as caught:
        export(nn.Linear(2100, rows).eval(), torch.ones(1, 2100), tmp_path / "m.onnx")
    assert caught.value.step == "check"
    assert "speed" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(params=["one file", "weights beside it"])
def linked(request, tmp_path):
    """A folder of links, as a download cache is, whose nodes have no names."""
    cache, folder = tmp_path / "cache", tmp_path / "folder"
    cache.mkdir()
    folder.mkdir()
    outside, path = request.param != "one file", tmp_path / "m.onnx"
    export(nn.Linear(2200, 2000).eval(), torch.ones(1, 2200), path, external_data=outside)
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        node.ClearField("name")
    onnx.save(model, path)
    for number, file in enumerate(sorted(tmp_path.glob("m.onnx*"))):
        (folder / file.name).symlink_to(file.rename(cache / f"blob{number}"))
    return load(folder / "m.onnx")


def test_a_large_model_behind_links_is_profiled_and_raced(linked):
    x = torch.ones(1, 2200)
    assert profile(linked, x, seconds=0.01).unattributed == 0
    raced = race({"a": linked, "b": load(linked.path)}, x, quick=True, seconds=0.01)
    assert raced.baseline == "a"
    assert raced.ratio("b")


def test_weights_behind_links_are_read_or_the_error_says_what_helps(linked, tmp_path):
    goal = tmp_path / "copy.onnx"
    if len(linked.files) == 1:
        linked.save(goal, external_data=True)
        assert torch.equal(load(goal)(torch.ones(1, 2200)), linked(torch.ones(1, 2200)))
        return
    for call in (lambda: linked.model_proto, lambda: linked.save(goal, external_data=False)):
        with pytest.raises(LoadError, match="link"):
            call()
    assert not goal.exists()
