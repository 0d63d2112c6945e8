"""export() and Artifact: the file, the call, and what each wrong call says."""

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

from onnx_workbench import artifact, capture, export, load, profile, race, reader, trace, verify
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
RELU = nn.ReLU().eval()


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


def test_it_is_called_like_the_model_and_answers_in_its_structure(model, scores):
    assert verify(model, scores, (X, 3), {"mask": MASK})
    more = torch.cat([X, X, X])
    assert verify(model, scores, (), {"images": more, "scale": 3, "mask": torch.ones(6, 10)})
    assert scores(X, 3, mask=MASK)["rest"][1:] == (None, 3)


def test_repr_is_the_report(scores):
    assert repr(scores) == (
        f"scores.onnx: opset {scores.opset}, IR {scores.proto.ir_version}, 6 nodes, "
        "weights 5.98 kB in 1 file, CPUExecutionProvider\n"
        "input   images float32[batch, 1, 8, 8]\n"
        "input   mask float32[batch, 10]\n"
        f"output  {scores.outputs[0].name} float32[batch, 10]\n"
        f"output  {scores.outputs[1].name} float32[batch, 144]\n"
        "nodes   Add 1, Conv 1, Gemm 1, Mul 1, Relu 1, Reshape 1"
    )


def test_one_file_loads_from_an_empty_folder(scores, model, tmp_path):
    copy = shutil.copy(scores.path, tmp_path / "copy.onnx")
    logits, hidden = load(copy)(X, MASK)
    assert verify(lambda: model(X, 3, mask=MASK)["logits"], lambda: logits, ())
    assert hidden.shape == (2, 144)
    assert torch.equal(load(copy)(images=X, mask=MASK)[0], logits)


# Weights beside the file


def test_weights_past_the_limit_lie_beside_the_file(model, tmp_path, monkeypatch):
    monkeypatch.setattr(artifact, "ONE_FILE_LIMIT", 100)
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "thesis.txt").write_text("three years")
    for _ in range(2):  # the second time, the first export is there
        big = export(model, X, tmp_path / "big.onnx")
        assert [file.name for file in big.files] == ["big.onnx", "big.onnx.data"]
        assert names(tmp_path) == ["big", "big.onnx", "big.onnx.data"]
        assert verify(model, big, X)
    assert (tmp_path / "big" / "thesis.txt").read_text() == "three years"
    big.files[1].unlink()
    with pytest.raises(LoadError, match=r"big\.onnx\.data.*not beside it"):
        load(big.path)


@pytest.mark.parametrize("limit", [100, artifact.ONE_FILE_LIMIT])
def test_file_of_weights_that_is_not_the_models_is_not_overwritten(limit, tmp_path, monkeypatch):
    monkeypatch.setattr(artifact, "ONE_FILE_LIMIT", limit)
    other = tmp_path / "m.onnx.data"
    other.write_text("measurements")
    with pytest.raises(InputError, match=r"m\.onnx\.data"):
        export(nn.Linear(64, 64).eval(), torch.ones(1, 64), tmp_path / "m.onnx", external_data=True)
    assert other.read_text() == "measurements"
    assert names(tmp_path) == ["m.onnx.data"]


def test_one_file_above_the_limit_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(artifact, "ONE_FILE_LIMIT", 100)
    linear, calls = nn.Linear(64, 64).eval(), []
    linear.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(InputError, match="external_data"):
        export(linear, torch.ones(1, 64), tmp_path / "big.onnx", external_data=False)
    assert calls == []


# The file of an artifact


class By(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def test_artifact_stays_its_model_when_another_is_exported_to_its_path(tmp_path):
    first = export(By(2.0), X, tmp_path / "m.onnx")
    second = export(By(5.0), X, tmp_path / "m.onnx")
    assert torch.equal(first(X), X * 2)
    assert torch.equal(second(X), X * 5)


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize(
    "use",
    [
        lambda made, path: made.timed_call((X,), {}).prepare(),
        lambda made, path: made.save(path),
        lambda made, path: trace(made),
        lambda made, path: load(made.path).session and made.model_proto,
    ],
)
def test_what_reads_a_file_that_has_changed_says_so(loaded, use, tmp_path):
    made = export(By(2.0), X, tmp_path / "m.onnx")
    made = load(made.path) if loaded else made
    made.path.write_bytes(made.path.read_bytes())  # the same content is no change
    assert made.operations == {"Mul": 1}
    export(By(5.0), X, tmp_path / "m.onnx")
    made = artifact.replace(made)  # what was read already stays
    with pytest.raises(LoadError, match=r"m\.onnx.*has changed"):
        use(made, tmp_path / "copy.onnx")


def test_artifact_whose_file_is_gone_still_answers_and_has_a_repr(tmp_path):
    made = export(By(2.0), X, tmp_path / "m.onnx")
    made.path.unlink()
    assert torch.equal(made(X), X * 2)
    assert "no longer there" in repr(made)
    with pytest.raises(LoadError, match="no longer there"):
        made.save(tmp_path / "copy.onnx")


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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX alone has pipes")
def test_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="pipe"):
        export(By(2.0), X, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").is_fifo()


# Copies


def test_copy_saved_with_weights_outside_can_be_loaded(tmp_path):
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


class Described(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x.sinh(), lambda x: x.cosh(), (x,))


def test_copy_without_metadata_says_nothing_of_the_machine_and_computes_the_same(tmp_path):
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


@pytest.mark.parametrize("path", ["no/such/m.onnx", "", None, "a\0.onnx"])
def test_copy_to_no_path_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = export(nn.ReLU().eval(), torch.ones(3), "a.onnx")
    with pytest.raises(InputError):
        made.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]


# Calls


def test_entry_times_a_session_of_its_own_with_the_threads_asked_for(scores):
    ready = scores.timed_call((X, 3), {"mask": MASK}, threads=2).prepare()
    session = ready.run.func.__self__
    assert (session.get_session_options().intra_op_num_threads, ready.threads) == (2, 2)
    assert session is not scores.session
    assert all(isinstance(out, np.ndarray) for out in ready.run())
    assert ready.timed.startswith("session.run: NumPy in and out")


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


def test_graph_takes_its_own_call_or_one_that_fits(model, tmp_path):
    graph = capture(model, X)
    assert export(graph, X, tmp_path / "m.onnx").graph is graph
    with pytest.raises(InputError):
        export(graph, (X, MASK, MASK), tmp_path / "m.onnx")
    assert export(graph, f=tmp_path / "v.onnx", verify=True).graph is graph


# The tracer


def test_tracer_bakes_a_branch_that_capture_refuses_and_cond_keeps(tmp_path):
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


def test_tracer_drops_an_unused_input_names_dimensions_and_is_called_like_the_model(tmp_path):
    class Half(nn.Module):
        def forward(self, used, unused, flag="x"):
            return used * 2

    shapes = {"used": {0: "batch"}}
    half = export(Half(), (X, MASK), tmp_path / "m.onnx", dynamo=False, dynamic_shapes=shapes)
    assert repr(half.inputs) == "(used float32[batch, 1, 8, 8],)"
    assert torch.equal(half(X, MASK), X * 2)


def test_export_says_nothing(tmp_path):
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


@pytest.mark.parametrize("dynamo", [True, False])
def test_warning_about_training_mode_points_at_the_users_line(dynamo, tmp_path):
    with pytest.warns(TrainingModeWarning) as caught:
        export(nn.ReLU(), X, tmp_path / "m.onnx", dynamo=dynamo)
    assert [warning.filename for warning in caught] == [__file__]


# What bad input gets


def loaded(call):
    return lambda scores: call(load(scores.path))


LONG = torch.ones(3, 10)
WRONG = {
    "missing": (lambda s: s(X, 3), "lacks 'mask'", "'images', 'scale', 'mask'"),
    "extra": (lambda s: s(X, 3, mask=MASK, more=1), "more", "mask=None"),
    "baked": (lambda s: s(X, 4, mask=MASK), "'scale' is 4", "3 was baked"),
    "nesting": (lambda s: s([X], 3, mask=MASK), r"\(\[tensor\], tensor", r"\(tensor, tensor"),
    "double": (lambda s: s(X.double(), 3, mask=MASK), r"float64\[2, 1", r"torch\.float32"),
    "shape": (lambda s: s(X[..., :4], 3, mask=MASK), r"\[2, 1, 8, 4\]", "dynamic_shapes"),
    "device": (lambda s: s(X.to("meta"), 3, mask=MASK), "on meta", r"\.cpu\(\)"),
    "sparse": (lambda s: s(X.to_sparse(), 3, mask=MASK), "sparse", "to_dense"),
    "complex": (lambda s: s(X + 1j, 3, mask=MASK), "complex64", "view_as_real"),
    "two sizes": (lambda s: s(X, 3, mask=LONG), r"images.* is 2 and mask.* is 3", "'batch'"),
    "count": (loaded(lambda s: s(X)), "'images', 'mask'", "1 positional"),
    "list": (loaded(lambda s: s(X, [1])), "'mask' is a list", r"float32\[batch, 10\]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_call_that_does_not_fit_says_what_was_passed_and_expected(name, scores):
    call, *nouns = WRONG[name]
    with pytest.raises(InputError) as caught:
        call(scores)
    for noun in nouns:
        assert re.search(noun, str(caught.value)), str(caught.value)


def test_argument_that_was_not_captured_may_have_its_default(model, tmp_path):
    plain = export(model, X, tmp_path / "plain.onnx")
    assert plain(X, mask=None)["rest"][2] == 3
    with pytest.raises(InputError, match="has 'mask'"):
        plain(X, mask=MASK)


def test_sizes_that_fail_inside_onnx_runtime(scores, capfd):
    with pytest.raises(RunError) as caught:
        load(scores.path)(X, torch.ones(3, 10))
    assert "images float32[2, 1, 8, 8], mask float32[3, 10]" in caught.value.message
    assert "`dynamic_shapes`" in caught.value.hint
    assert capfd.readouterr().err == ""


def test_embedding_bag_without_a_bag_has_its_true_reason():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.bag = nn.EmbeddingBag(5, 3, mode="sum", include_last_offset=True)

        def forward(self, ids, offsets):
            return self.bag(ids, offsets)

    made = export(Bag().eval(), (torch.tensor([1, 2]), torch.tensor([0])))
    with pytest.raises(RunError) as caught:
        made(torch.tensor([1, 2]), torch.tensor([0]))
    assert "loop ran zero times" in caught.value.reason
    assert "two offsets" in caught.value.hint


def wrong_exports():
    table = {torch.ops.aten.sin: abs}
    yield "folder", {"f": "no/m.onnx"}, InputError, "'no' of 'm.onnx'"
    yield "opset", {"opset_version": "18"}, InputError, "opset_version.*'18'"
    yield "low", {"opset_version": 9}, ExportError, r"opset 9 .*wrote opset 18.* down\."
    yield "high", {"opset_version": 99}, ExportError, r"up\. It is labeled opset 18 and holds Gelu"
    yield "provider", {"provider": "NoProvider"}, InputError, "'NoProvider'.*onnxruntime-gpu"
    yield "case", {"provider": "CPUExecutionprovider"}, InputError, "mean 'CPUExecutionProvider'"
    yield (
        "packet",
        {"custom_translation_table": table},
        InputError,
        r"torch\.ops\.aten\.sin\.default",
    )
    yield "no table", {"custom_translation_table": [abs]}, InputError, "a list.*a dict"


@pytest.mark.parametrize(("options", "error", "words"), [w[1:] for w in wrong_exports()])
def test_export_that_cannot_be_is_a_planned_error(options, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        export(nn.GELU().eval(), X, **{"f": "m.onnx", **options})
    assert names(tmp_path) == []


def test_opset_that_can_be_written_is_the_one_in_the_file(tmp_path):
    for opset in (18, 20):
        made = export(nn.GELU().eval(), X, tmp_path / f"{opset}.onnx", opset_version=opset)
        assert made.opset == opset
    assert load(tmp_path / "20.onnx").operations == {"Gelu": 1}


def test_model_that_returns_no_tensor_has_no_file(tmp_path):
    class Nothing(nn.Module):
        def forward(self, x):
            return None

    for dynamo in (True, False):
        with pytest.raises(ExportError, match="no tensor"):
            export(Nothing(), X, tmp_path / "m.onnx", dynamo=dynamo)
    assert names(tmp_path) == []


@pytest.mark.parametrize("where", ["mkdtemp", "to_proto"])
def test_full_disk_leaves_what_was_there(where, tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"what was there")

    def full(*_, **__):
        if where == "to_proto":
            (next(tmp_path.glob(".m.onnx-*")) / "m.onnx").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = (tempfile, "mkdtemp") if where == "mkdtemp" else (onnx_ir, "to_proto")
    monkeypatch.setattr(*target, full)
    with pytest.raises(ExportError, match=r"m\.onnx could not be written.*No space left"):
        export(RELU, X, path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("m.onnx", b"what was there")]


def test_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx_ir, "to_proto", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(nn.ReLU().eval(), X, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"no model at all", b"", "half"])
def test_file_that_is_no_model_or_half_of_one(content, scores, tmp_path):
    path = tmp_path / "m.onnx"
    half = scores.path.read_bytes()[: scores.path.stat().st_size // 2]
    path.write_bytes(half if content == "half" else content)
    with pytest.raises(LoadError, match=r"^load was passed 'm\.onnx' .*(truncated|no ONNX model)"):
        load(path)
    with pytest.raises(InputError, match=r"no file 'none\.onnx'"):
        load(tmp_path / "none.onnx")


def test_threads_that_do_not_start_are_the_machines_matter(scores, monkeypatch):
    def refuses(*args, **kwargs):
        raise RuntimeError("pthread_create failed: Resource temporarily unavailable")

    monkeypatch.setattr("onnxruntime.InferenceSession", refuses)
    with pytest.raises(LoadError, match="starts no more threads") as caught:
        load(scores.path).session  # noqa: B018
    assert "check_model" not in caught.value.hint


def test_file_of_a_future_opset(scores, tmp_path):
    proto = onnx.load(scores.path)
    proto.opset_import[0].version = 999
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(LoadError, match="more than this onnxruntime knows") as caught:
        load(tmp_path / "m.onnx").session  # noqa: B018
    assert "`opset_version`" in caught.value.hint


def test_operator_without_translation_is_named_with_its_line(tmp_path):
    with torch.library._scoped_library("workbench_test", "DEF") as library:
        library.define("swishy(Tensor x) -> Tensor")
        library.impl("swishy", lambda x: x * x.sigmoid(), "CompositeExplicitAutograd")
        torch.library.register_fake("workbench_test::swishy", torch.empty_like, lib=library)

        class Swishy(nn.Module):
            def forward(self, x):
                return torch.ops.workbench_test.swishy(x)

        with pytest.raises(ExportError, match=r"workbench_test\.swishy has no transl") as caught:
            export(Swishy().eval(), X, tmp_path / "m.onnx")
    assert caught.value.line.text == "return torch.ops.workbench_test.swishy(x)"
    assert "`custom_translation_table`" in caught.value.hint
    assert names(tmp_path) == []


def test_file_that_the_checker_rejects_is_not_published(tmp_path, monkeypatch):
    """An operator that its opset does not have: what torch.onnx can write without an error."""
    head = '<ir_version: 10, opset_import: ["": 18]> '
    wrong = onnx.parser.parse_model(head + "g (float[2] x) => (float[2] y) { y = Gelu(x) }")
    monkeypatch.setattr(onnx_ir, "to_proto", lambda _: wrong)
    with pytest.raises(ExportError, match=r"onnx\.checker rejects: .*holds Gelu") as caught:
        export(nn.GELU().eval(), X, tmp_path / "m.onnx", opset_version=18)
    assert (caught.value.step, caught.value.got) == ("check", 18)
    assert names(tmp_path) == []


def test_file_that_onnx_runtime_rejects_is_not_published_and_has_its_line(tmp_path):
    with pytest.raises(
        ExportError, match=r"rejects what the exporter wrote\. m\.onnx could"
    ) as caught:
        export(nn.Linear(8, 2).eval(), X.double(), tmp_path / "m.onnx")
    assert (caught.value.step, names(tmp_path)) == ("load", [])
    assert caught.value.line.text.startswith("return F.linear")


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
def test_file_with_an_attribute_that_no_operator_has_is_rejected(rows, tmp_path, monkeypatch):
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


def test_large_model_behind_links_is_profiled_and_raced(linked):
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
