"""The audit: what it says of sound models, of failing stages, and what it leaves behind."""

import json
import re
import struct
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import zoo_factories
from onnxscript import opset20 as op
from torch import nn

from onnx_workbench import __main__ as terminal
from onnx_workbench import audit, export, load
from onnx_workbench.errors import InputError
from onnx_workbench.inspection import cells, stages
from onnx_workbench.inspection.finding import FAULTS, VERDICTS, Finding

QUICK = {"opsets", "latency", "hot lines"}
COUNTED = {"capture", "export", "contract", "numbers"}


@pytest.fixture(scope="module")
def sound():
    model, args, options = zoo_factories.sound()
    return audit(model, args, **options)


def by_stage(report):
    return {finding.stage: finding for finding in report.findings}


def test_every_stage_of_a_sound_model_is_tried_and_ok(sound):
    assert sound
    assert [f.stage for f in sound.findings] == [stage.name for stage in stages.STAGES]
    assert {f.verdict for f in sound.findings} == {"ok"}
    assert repr(sound).splitlines()[0] == "Doubled: nothing to mend"


def test_the_hot_line_is_the_line_of_the_model(sound):
    line = by_stage(sound)["hot lines"].line
    assert line.text == "return x * self.weight"


def test_an_audit_goes_on_after_a_failure_and_says_what_could_not_be_tried():
    report = audit(*flat(zoo_factories.broken()))
    found = by_stage(report)
    assert not report
    assert found["capture"].verdict == "broken"
    assert found["model"].verdict == "ok"
    assert (found["export"].verdict, found["export"].sentence) == (
        "not tried",
        "it needs the graph, and there is none",
    )
    assert report.findings[0].stage == "capture", "the worst comes first"
    assert set(found) == {stage.name for stage in stages.STAGES}


def flat(made):
    model, args, *_ = made
    return (model, *args)


def test_a_dimension_that_the_capture_refuses_does_not_end_the_audit():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows = nn.Parameter(torch.ones(4, 2))

        def forward(self, x):
            return x + self.rows

    x = torch.ones(4, 2)
    report = audit(Table().eval(), x, dynamic_shapes={"x": {0: "rows"}}, skip=QUICK)
    found = by_stage(report)
    assert found["capture"].verdict == "broken"
    assert (found["export"].verdict, found["numbers"].verdict) == ("ok", "ok")
    assert audit(Table().eval(), x, skip=QUICK), "torch's marks stay off the user's tensors"


def test_a_stage_that_raises_is_told_and_hides_no_other(monkeypatch):
    def breaks(case):
        raise RuntimeError("no such luck\nand more")
        yield

    table = tuple(s._replace(run=breaks) if s.name == "size" else s for s in stages.STAGES)
    monkeypatch.setattr(stages, "STAGES", table)
    report = audit(nn.ReLU().eval(), torch.ones(2), skip=QUICK)
    finding = by_stage(report)["size"]
    assert (finding.verdict, finding.sentence) == ("not tried", "RuntimeError: no such luck")
    assert by_stage(report)["portability"].verdict == "ok"


@pytest.mark.parametrize("stage", sorted(COUNTED))
def test_a_stage_that_counts_and_raises_or_says_nothing_makes_the_audit_false(stage, monkeypatch):
    def breaks(case):
        raise RuntimeError("no such luck") from KeyError("because")
        yield

    def silent(case):
        yield from ()

    for run, verdict in ((breaks, "broken"), (silent, "not tried")):
        table = tuple(s._replace(run=run) if s.name == stage else s for s in stages.STAGES)
        monkeypatch.setattr(stages, "STAGES", table)
        report = audit(Half().eval(), torch.ones(2), skip=QUICK)
        finding = by_stage(report)[stage]
        assert (bool(report), finding.verdict) == (False, verdict)
        assert "nothing to mend" not in repr(report)
        if run is breaks:
            assert finding.sentence == "KeyError: 'because'"


def test_no_green_where_no_file_was_made_or_the_question_was_not_asked():
    scripted = torch.jit.script(Half().eval())
    traced = torch.jit.trace(nn.Sequential(nn.ReLU()).eval(), torch.ones(2))
    sparse = torch.eye(2).to_sparse()
    for model, x, dynamic in (
        (scripted, torch.ones(2), None),
        (traced, torch.ones(2), None),
        (nn.ReLU().eval(), sparse, None),
        (nn.ReLU().eval(), torch.ones(2), {"input": {3: "n"}}),
    ):
        report = audit(model, x, dynamic_shapes=dynamic, skip=QUICK)
        assert not report, report
        assert "nothing to mend" not in repr(report)


def test_skipping_a_stage_does_not_excuse_those_that_need_it():
    report = audit(Half().eval(), torch.ones(2), skip=QUICK | {"capture"})
    assert {fault.stage for fault in report.faults} == {"export", "contract", "numbers"}
    assert repr(report).splitlines()[0] == "Half: 1 of 10 stages ran"


def test_a_model_that_fails_by_itself_is_told_with_its_line():
    class Fails(nn.Module):
        def forward(self, x):
            return x @ torch.ones(5, 5)

    finding = audit(Fails().eval(), torch.ones(2, 3), skip=QUICK).findings[0]
    assert finding.verdict == "broken"
    assert finding.sentence.startswith("The model itself fails on this call: RuntimeError: ")
    assert finding.line.text == "return x @ torch.ones(5, 5)"


def test_a_model_is_left_in_its_mode_and_its_inputs_as_they_were():
    class Writes(nn.Module):
        def forward(self, x):
            x += 1
            return x

    x, model = torch.zeros(2), Writes()
    assert not audit(model, x, skip=QUICK)
    assert model.training
    assert x.tolist() == [0.0, 0.0]


def test_a_file_is_audited_as_far_as_a_file_can_be(tmp_path):
    export(nn.Linear(4, 4).eval(), torch.ones(1, 4), tmp_path / "line.onnx")
    report = audit(load(tmp_path / "line.onnx"), torch.ones(1, 4))
    found = by_stage(report)
    assert report, report
    assert repr(report).splitlines()[0] == "line.onnx: 5 of 10 stages ran"
    assert found["numbers"].sentence == "it needs the model, and there is none"
    assert found["portability"].verdict == found["latency"].verdict == "ok"
    assert audit(load(tmp_path / "line.onnx"), torch.ones(1, 4), skip=COUNTED | QUICK)
    with pytest.raises(InputError, match="This is the audit of a file"):
        report.bundle(tmp_path / "bundle")


def test_the_releases_that_load_a_file_are_named():
    report = audit(nn.ReLU().eval(), torch.ones(2), opset_version=18, skip=QUICK)
    assert by_stage(report)["portability"].sentence == (
        "opset 18, IR 10: loads in ONNX Runtime 1.18 and newer; one file"
    )


def test_verdicts_are_ranked_and_the_worst_are_faults():
    assert VERDICTS[: len(FAULTS)] == FAULTS
    assert VERDICTS[-1] == "ok"


def test_what_is_no_model_is_refused():
    with pytest.raises(InputError) as caught:
        audit(torch.relu, torch.ones(2))
    assert str(caught.value) == (
        "audit() was given a builtin_function_or_method, and it takes a torch.nn.Module or an "
        "Artifact. Pass the model itself, or the .onnx file through load()."
    )


def test_a_stage_that_is_none_cannot_be_skipped():
    with pytest.raises(InputError) as caught:
        audit(nn.ReLU(), torch.ones(2), skip={"lunch"})
    assert str(caught.value) == (
        "`skip` names 'lunch', and the stages are model, capture, export, contract, numbers, "
        "opsets, portability, size, latency, hot lines."
    )


# ---------------------------------------------------------------- the report


def test_the_page_needs_nothing_else_and_escapes_what_comes_from_a_model(tmp_path):
    evil = type("<img src=x onerror=alert(1)>", (nn.ReLU,), {})
    page = audit(evil().eval(), torch.ones(2), skip=QUICK).save(tmp_path / "report.html")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "&lt;img src=x" in text
    assert not re.search(r"<img|<script|https?://|src=[^x]", text)
    assert list(tmp_path.iterdir()) == [page], "no draft is left"


def test_a_line_of_the_model_is_escaped_in_the_page():
    class Marked(nn.Module):
        def forward(self, x):
            if x.sum() > 0 and "<img src=y>":
                return x
            return x + 1

    page = audit(Marked().eval(), torch.ones(2), skip=QUICK)._repr_html_()
    assert "&lt;img src=y&gt;" in page
    assert "<img" not in page


def test_a_finding_of_an_error_has_its_reason_and_its_repair():
    error = InputError("It broke.", "another one.")
    assert Finding.of_error("size", error) == Finding(
        "size", "broken", "It broke.", None, "another one."
    )


# ---------------------------------------------------------------- the bundle


def run_bundle(folder):
    """In a fresh process, without this one's paths, from an empty folder."""
    empty = folder.parent / "empty"
    empty.mkdir()
    command = [sys.executable, "-I", str(folder / "repro.py")]
    return subprocess.run(command, cwd=empty, capture_output=True, text=True, timeout=300)


def namespace_of(folder):
    namespace = {"__file__": str(folder / "repro.py"), "__name__": "repro"}
    exec((folder / "repro.py").read_text(), namespace)
    return namespace


REPEAT = """
import contextlib, io, json, runpy, sys, traceback
import onnx, onnxruntime, torch
known, path = set(sys.modules), list(sys.path)
for asked in sys.stdin:
    code, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(json.loads(asked), run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            code = traceback.print_exc() or 1
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
    sys.path[:] = path
    for name in [name for name in sys.modules if getattr(sys.modules[name], "__file__", None)]:
        if name not in known and "source" in Path(sys.modules[name].__file__).parts:
            del sys.modules[name]
"""
"""Runs one script after another: torch is imported once, and each finds its own source."""


@pytest.fixture(scope="module")
def rerun(tmp_path_factory):
    command = [sys.executable, "-I", "-c", f"from pathlib import Path\n{REPEAT}"]
    folder = tmp_path_factory.mktemp("empty")
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:

        def run(bundle):
            print(json.dumps(str(bundle / "repro.py")), file=child.stdin, flush=True)
            return subprocess.CompletedProcess(bundle, *json.loads(child.stdout.readline()))

        yield run
        child.stdin.close()


def test_a_bundle_runs_by_itself_and_holds_no_weight(sound, tmp_path):
    folder = sound.bundle(tmp_path / "bundle")
    done = run_bundle(folder)
    assert done.returncode == 0, done.stderr
    assert ": agrees" in done.stdout
    held = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    assert torch.tensor([31337.25]).numpy().tobytes() not in held
    assert b"31337" not in held.replace((folder / "source/zoo_factories.py").read_bytes(), b"")
    assert struct.pack(">d", 31337.25) not in held, "as pickle writes a number"
    told, model = unpickled(folder, "model")
    assert told == ["float32[2] drawn anew: a weight"]
    assert model.weight.max() < 1
    assert (folder / "report.txt").read_text().startswith("Doubled: nothing to mend")


def test_a_bundle_of_a_broken_model_fails_as_the_model_does(tmp_path, rerun):
    report = audit(*flat(zoo_factories.broken()), skip=QUICK)
    archive = report.bundle(tmp_path / "bundle.zip")
    zipfile.ZipFile(archive).extractall(tmp_path / "there")
    done = rerun(tmp_path / "there" / "bundle")
    assert done.returncode == 1
    assert "if x.sum() > 0:" in done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bundle.zip", "there"]


def test_a_custom_operator_with_its_translation_is_sound_also_in_a_bundle(tmp_path, rerun):
    model, args, options = zoo_factories.custom()
    without = by_stage(audit(model, args, skip=QUICK))["export"]
    assert (without.verdict, "has no translation" in without.sentence) == ("broken", True)
    report = audit(model, args, **options, skip={"latency", "hot lines"})
    assert report, report
    assert by_stage(report)["opsets"].sentence.startswith("got 20; 18 loads, ")
    done = rerun(report.bundle(tmp_path / "bundle"))
    assert done.returncode == 0, done.stderr
    assert "float32[3, 2] as it was" in done.stdout


def test_a_bundle_shows_the_same_wrong_numbers_at_the_call_and_at_the_sizes_found(tmp_path, rerun):
    x = torch.zeros(6, 2)
    x[0, 0] = torch.nan  # agrees with itself
    call = x, torch.tensor([4.0, 2.0, 6.0]), torch.tensor([0, 1, 1])
    dynamic = {"x": {0: "rows"}}
    report = audit(zoo_factories.Guesses().eval(), call, dynamic_shapes=dynamic, skip=QUICK)
    found = by_stage(report)
    assert found["numbers"].verdict == found["contract"].verdict == "wrong"
    said = found["numbers"].sentence.partition("differs: ")[2].partition(", by up to ")[0]
    done = rerun(report.bundle(tmp_path / "bundle"))
    assert done.returncode == 1
    at, _, below = done.stdout.partition("called with [[1, 2], [3], [3]]\n")
    assert at.count(f": {said}, at most by ") == at.count(" differ, ") == 1
    assert at.count("agrees") == 2, "its own table has the infinities that it had"
    assert below.count(" differ, ") == 2


def test_what_is_large_is_drawn_anew_with_the_same_kind_of_numbers(tmp_path):
    x = torch.linspace(-3, 9, 3000).reshape(3, 1000)
    x[0, 0], x[0, 1], x[1, :5], x[2, :7] = torch.inf, -torch.inf, torch.nan, 0.0
    whole = torch.arange(2000) * 3 - 17
    report = audit(Kinds().eval(), (x, whole), skip=QUICK)
    folder = report.bundle(tmp_path / "bundle")
    told, drawn = unpickled(folder, "call")
    first, second = drawn["args"]
    for kind in (torch.isnan, torch.isposinf, torch.isneginf, lambda t: t == 0):
        assert kind(first).sum() == kind(x).sum()
    kept, ours = first[first.isfinite()], x[x.isfinite()]
    assert (kept.min(), kept.max()) == (ours.min(), ours.max())
    assert abs(kept.mean() - ours.mean()) < 0.5
    assert not torch.equal(first.nan_to_num(), x.nan_to_num())
    assert (second.min(), second.max(), second.dtype) == (-17, 5980, torch.int64)
    assert any(line.startswith("float32[3, 1000] drawn anew: {'mean'") for line in told)


class Kinds(nn.Module):
    def forward(self, x, whole):
        return x * 2, whole + 1


def unpickled(folder, name):
    value, told = namespace_of(folder)["read"](name)
    return told, value


def test_a_translation_that_cannot_be_found_by_name_is_told(tmp_path):
    model, args, options = zoo_factories.custom()
    [operator] = options["custom_translation_table"]
    table = {operator: lambda x: zoo_factories.thrice_in_onnx(x)}
    report = audit(model, args, custom_translation_table=table, skip=QUICK)
    assert report
    with pytest.raises(InputError, match="is not to be found by that name"):
        report.bundle(tmp_path / "bundle")


def test_indices_keep_their_range_and_ties_stay_ties(tmp_path, rerun):
    from onnx_workbench.lessons.traps import Tied

    tokens = torch.tensor([[5, 59, 7]])
    folder = audit(Tied().eval(), tokens, skip=QUICK).bundle(tmp_path / "bundle")
    assert rerun(folder).returncode == 0
    (_, model), (_, call) = unpickled(folder, "model"), unpickled(folder, "call")
    assert model.words.weight is model.head.weight
    assert torch.equal(call["args"][0], tokens)


def test_a_class_from_a_script_comes_with_the_bundle(tmp_path, rerun):
    (tmp_path / "script.py").write_text(
        "import torch\nfrom torch import nn\nimport onnx_workbench as ow\n"
        "from onnxscript import opset18 as op\nfrom beside import twice\n"
        "GAIN = len(open('script.py').read()) * 0 + 3\nOFFSETS = {}\n"
        "OFFSETS['x'] = torch.tensor(1.0)\n"
        "lib = torch.library.Library('written', 'DEF')\nlib.define('plus(Tensor x) -> Tensor')\n"
        "@torch.library.impl(lib, 'plus', 'CompositeExplicitAutograd')\n"
        "def _(x):\n    return x + OFFSETS['x']\n"
        "@torch.library.register_fake('written::plus')\n"
        "def _(x):\n    return torch.empty_like(x)\n"
        "def plus(x):\n    return op.Add(x, 1.0)\n"
        "class Net(nn.Module):\n    def forward(self, x):\n"
        "        return torch.ops.written.plus(twice(x)) * GAIN if hidden else x\n"
        "exec('hidden = object()')\ntraining = print('not in the bundle')\n"
        "table = {torch.ops.written.plus.default: plus}\n"
        "report = ow.audit(Net().eval(), torch.ones(2), custom_translation_table=table, "
        "skip={'opsets', 'latency', 'hot lines'})\nreport.bundle('bundle')\n"
    )
    (tmp_path / "beside.py").write_text("def twice(x):\n    return x * 2\n")
    subprocess.run([sys.executable, "script.py"], cwd=tmp_path, check=True, capture_output=True)
    said = "print('not in this bundle, since no statement binds it: hidden')"
    script = tmp_path / "bundle" / "source" / "notebook.py"
    assert (said in script.read_text(), "training" in script.read_text()) == (True, False)
    script.write_text(f"hidden = True\n{script.read_text()}")
    done = rerun(tmp_path / "bundle")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_bundle_shows_the_opset_that_was_not_written(tmp_path, rerun):
    report = audit(nn.ReLU().eval(), torch.ones(2), opset_version=9, skip=QUICK)
    assert by_stage(report)["export"].verdict == "broken"
    done = rerun(report.bundle(tmp_path / "bundle"))
    assert done.returncode == 1
    assert "asked for opset 9, and the file has 18" in done.stdout


class Half(nn.Module):
    def forward(self, x):
        return x.float().exp().to(x.dtype)


def test_a_bfloat16_model_is_audited_whole_and_its_bundle_runs(tmp_path, rerun):
    x = torch.linspace(-2, 2, 6, dtype=torch.bfloat16).reshape(3, 2)
    report = audit(Half().eval(), x, dynamic_shapes={"x": {0: "rows"}}, skip=QUICK)
    assert report, report
    assert "kept" in by_stage(report)["contract"].sentence
    done = rerun(report.bundle(tmp_path / "bundle"))
    assert (done.returncode, done.stdout.count(": agrees")) == (0, 1), done.stderr


def test_a_model_with_parametrizations_goes_into_a_bundle_whole(tmp_path):
    x = torch.ones(2, 2, 3)
    report = audit(zoo_factories.Normed().eval(), x, skip=QUICK)
    assert by_stage(report)["numbers"].verdict == "wrong"
    folder = report.bundle(tmp_path / "bundle")
    done = run_bundle(folder)
    assert (done.returncode, " differ, " in done.stdout) == (1, True), done.stderr
    _, model = unpickled(folder, "model")
    assert model.third is model.second
    assert (type(model).__name__, model(x).shape) == ("ParametrizedNormed", (2, 4, 3))


class Coarse(nn.Module):
    def forward(self, x):
        return (x.half() @ x.half().T).exp().float()


def test_a_bundle_has_the_tolerance_of_the_steps_not_of_the_result(tmp_path, rerun):
    x = torch.rand(9, 31, generator=torch.Generator().manual_seed(0)) / 6
    report = audit(Coarse().eval(), x, skip=QUICK)
    assert by_stage(report)["numbers"].verdict == "ok"
    done = rerun(report.bundle(tmp_path / "bundle"))
    assert (done.returncode, done.stdout.count(": agrees")) == (0, 1), done.stdout


def test_a_bundle_never_replaces_what_is_there(sound, tmp_path):
    (tmp_path / "bundle").mkdir()
    with pytest.raises(InputError) as caught:
        sound.bundle(tmp_path / "bundle")
    assert repr(str(tmp_path / "bundle")) in caught.value.message


def test_a_model_that_cannot_be_taken_apart_is_told(tmp_path):
    model = nn.ReLU().eval()
    model.hook = lambda x: x
    report = audit(model, torch.ones(2), skip=QUICK)
    with pytest.raises(InputError, match="ReLU cannot be taken apart: "):
        report.bundle(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- the terminal


def skipping(*words):
    return terminal.main(["audit", *words, "--skip", *QUICK])


def test_the_exit_code_is_0_for_a_sound_model_and_the_files_are_written(tmp_path, capsys):
    page, folder = tmp_path / "report.html", tmp_path / "bundle"
    words = ("zoo_factories:sound", "--report", str(page), "--bundle", str(folder))
    assert skipping(*words) == 0
    assert capsys.readouterr().out.startswith("Doubled: nothing to mend")
    assert page.exists()
    assert (folder / "repro.py").exists()


def test_a_factory_hands_over_what_audit_takes_by_name():
    assert skipping("zoo_factories:custom") == 0


def test_the_exit_code_is_1_for_findings(capsys):
    assert skipping("zoo_factories:broken") == 1
    assert "Branching: 1 finding" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("no_such_module:make", "The factory 'no_such_module:make' cannot be called: Module"),
        ("zoo_factories:nothing", "The factory 'zoo_factories:nothing' cannot be called: Attr"),
        ("zoo_factories", "'zoo_factories' names no function"),
        (":odd", "':odd' names no function"),
        ("zoo_factories:odd", "The factory 'zoo_factories:odd' returned a str, and it must"),
        ("zoo_factories:old", "The factory 'zoo_factories:old' returned (Doubled, tuple, int)"),
    ],
)
def test_the_exit_code_is_2_for_a_wrong_command(factory, said, capsys):
    assert skipping(factory) == 2
    assert capsys.readouterr().err.startswith(said)


def test_a_factory_that_exits_or_returns_an_option_that_is_none_is_a_wrong_command(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "shop.py").write_text(
        "import torch, sys\nmodel, call = torch.nn.ReLU().eval(), (torch.ones(2),)\n"
        "def ends(): sys.exit(0)\n"
        "def mistyped(): return model, call, {'dynamic_shape': {}}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("ends", "mistyped"):
        assert skipping(f"shop:{name}") == 2
        assert f"shop:{name}" in capsys.readouterr().err


class Interrupts(nn.Module):
    """Ctrl-C in the call of that number."""

    def __init__(self, at):
        super().__init__()
        self.left = at

    def forward(self, x):
        if not torch.compiler.is_compiling():
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return x * 2


@pytest.mark.parametrize("at", [1, 40])
def test_ctrl_c_ends_an_audit(at):
    skip = {stage.name for stage in stages.STAGES} - {"model", "capture", "export", "latency"}
    with pytest.raises(KeyboardInterrupt):
        audit(Interrupts(at).eval(), torch.ones(2), skip=skip)


def test_ctrl_c_in_the_terminal_is_no_finding(tmp_path, monkeypatch, capsys):
    (tmp_path / "stopped.py").write_text("def make(): raise KeyboardInterrupt\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert skipping("stopped:make") == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_command_is_there():
    done = subprocess.run(
        [sys.executable, "-m", "onnx_workbench", "audit", "--help"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0
    assert "package.module:factory" in done.stdout


def test_the_line_of_wrong_numbers_is_where_they_first_part_not_where_they_come_out():
    class Late(nn.Module):
        def forward(self, x, index):
            mean = torch.ones(2).scatter_reduce(0, index, x, "mean", include_self=False)  # here
            return (2 * mean).exp()

    call = torch.tensor([4.0, 2.0, 6.0]), torch.tensor([0, 1, 1])
    found = by_stage(audit(Late().eval(), call, skip=QUICK))["numbers"]
    assert found.verdict == "wrong"
    assert found.line.text.endswith("# here")
    assert "node_scatter_reduce is the first that is wrong" in found.sentence


class Fast(nn.Module):
    def forward(self, x):
        return x + 1 if torch.compiler.is_exporting() else x


def test_a_capture_that_goes_another_way_is_told_apart_from_a_wrong_translation():
    skip = {"opsets", "portability", "size", "latency", "hot lines"}
    report = audit(Fast().eval(), torch.ones(4, 2), dynamic_shapes={"x": {0: "n"}}, skip=skip)
    found = by_stage(report)
    assert found["numbers"].repair.startswith("torch.export already gives other numbers")
    assert found["contract"].sentence.startswith("x.shape[0] is wrong at the example's own size")
    assert found["contract"].line is None


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x * self.calls


def test_a_model_that_remembers_is_not_called_random():
    skip = {"opsets", "portability", "size", "latency", "hot lines"}
    found = by_stage(audit(Counts().eval(), torch.ones(2), skip=skip))["numbers"]
    assert found.sentence == "The model keeps state: two runs of it on the same inputs differ"
    assert found.line.text == "self.calls += 1"


class Constant(nn.Module):
    def forward(self):
        return torch.arange(3.0)


def test_a_file_without_nodes_has_no_hot_line():
    skip = {stage.name for stage in stages.STAGES} - {"model", "capture", "export", "hot lines"}
    found = by_stage(audit(Constant().eval(), skip=skip))["hot lines"]
    assert found.sentence == "no kernel runs: the file holds its result"


class Thin(nn.Module):
    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x)  # onnxscript wants four axes


def test_a_translation_that_refuses_a_call_is_told_once_by_operator_and_line():
    report = audit(Thin().eval(), torch.ones(2, 3, 4), dynamic_shapes={"x": {0: "n"}})
    fault, *left = report.faults
    assert [finding.stage for finding in left] == ["contract", "numbers"]
    said = "The translation of aten.scaled_dot_product_attention refuses this call: "
    assert fault.sentence.startswith(said)
    assert "scaled_dot_product_attention(x, x, x)" in fault.line.text
    assert by_stage(report)["contract"].verdict == "not tried"


class Brain(nn.Module):
    def forward(self, x):
        return x @ x


def test_a_kernel_that_the_provider_lacks_gets_the_dtypes_as_repair():
    report = audit(Brain().eval(), torch.ones(2, 2, dtype=torch.bfloat16))
    fault = report.faults[0]
    assert "no kernel for its dtypes: compute that step in float32" in fault.repair


def test_the_last_wording_of_a_cell_that_ran_again_stands_in_the_place_of_the_first(monkeypatch):
    texts = (
        "from __future__ import annotations\nimport torch\nwidth = 4",
        "lib = torch.library.Library('a')",
        "class Net:\n    size = width\n    step = 1",
        "lib = torch.library.Library('b')",
        "class Net:\n    size = width\n    def f(self):\n        local = 1\n        return deep",
        "deep = torch.tensor(2)\nlocal = print('said')\nprint(deep)",
        "deep = deep + 1",
    )
    shown = {f"<ipython-input-{i}>": [text] for i, text in enumerate(texts)}
    monkeypatch.setattr(cells, "linecache", SimpleNamespace(cache=shown, getlines=shown.get))
    main = SimpleNamespace(width=8, Net=object(), deep=torch.tensor(3), torch=torch, lib=None)
    monkeypatch.setitem(sys.modules, "__main__", main)
    made = cells.needed({"Net"})
    assert made.lacking == ()
    assert made.text.split("\n\n") == [
        "from __future__ import annotations",
        "width = 8",
        "import torch",
        "lib = torch.library.Library('b')",
        "class Net:\n    size = width",
        "    def f(self):\n        local = 1\n        return deep",
        "deep = torch.tensor(2)",
        "deep = deep + 1\n",
    ]


ATTRIBUTES = {stage.name for stage in stages.STAGES} - {"model", "capture", "numbers", "export"}


class Keeps(nn.Module):
    """Stores tensors three ways, counts its calls, and makes a table once, at need."""

    def __init__(self):
        super().__init__()
        self.table, self.calls, self.kept, self.sum = None, 0, {}, torch.zeros(2)

    def forward(self, x):
        if self.table is None:
            self.table = torch.ones(2)
        self.calls += 1
        self.last = x + self.table
        self.kept["x"] = x
        self.sum.add_(x)
        return x * 2


def test_an_attribute_that_forward_stores_tensors_in_is_a_risk_on_its_line():
    skip = {stage.name for stage in stages.STAGES} - {"model"}
    report = audit(Keeps().eval(), torch.ones(2), skip=skip)
    assert {(f.verdict, f.line.text) for f in report.faults} == {
        ("risk", "self.last = x + self.table"),
        ("risk", 'self.kept["x"] = x'),
        ("risk", "self.sum.add_(x)"),
    }
    assert report.faults[0].sentence == (
        "The model stores tensors in its attribute 'kept' in each call, and the file does not"
    )


class Recalls(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = 1.0

    def forward(self, x):
        self.scale += 1.0
        return x * self.scale


def test_a_number_that_a_call_stores_is_named_where_it_makes_the_results_differ():
    (fault,) = audit(Recalls().eval(), torch.ones(2), skip=ATTRIBUTES).faults
    assert fault.sentence == "The model keeps state: two runs of it on the same inputs differ"
    assert fault.line.text == "self.scale += 1.0"


def test_a_weight_that_a_hook_computes_anew_is_no_attribute_of_forward():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the old weight_norm, still in use
        model = nn.utils.weight_norm(nn.Linear(2, 2)).eval()
    assert audit(model, torch.ones(1, 2), skip=ATTRIBUTES)


@pytest.mark.parametrize("tolerance", [0.5, (0.5, 0.5)])
def test_a_tolerance_holds_in_every_stage_that_compares(tolerance):
    class Sines(nn.Module):
        def forward(self, x):
            return torch.sin(x)

    options = {
        "dynamic_shapes": {"x": {0: "n"}},
        "custom_translation_table": {
            torch.ops.aten.sin.default: lambda x: op.Mul(op.Sin(x), op.CastLike(1.1, x))
        },
        "skip": {"size", "latency", "hot lines"},
    }
    x = torch.linspace(0.1, 1, 6)
    assert audit(Sines().eval(), x, **options, tolerance=tolerance)
    without = audit(Sines().eval(), x, **options)
    assert {finding.stage for finding in without.faults} == {"numbers", "contract", "opsets"}
    assert all("by up to" in finding.sentence for finding in without.faults)


@pytest.mark.parametrize("tolerance", [[], float("nan"), -1])
def test_an_audit_checks_its_tolerance_before_anything_runs(tolerance):
    with pytest.raises(InputError, match="tolerance"):
        audit(nn.ReLU().eval(), torch.ones(2), tolerance=tolerance)


def test_the_audit_of_a_file_that_tells_of_its_author_says_so_and_its_page_does_not(tmp_path):
    artifact = export(torch.nn.Tanh().eval(), torch.ones(3), tmp_path / "a.onnx")
    bare = load(artifact.save(tmp_path / "bare.onnx", metadata=False))
    skip = {"latency", "hot lines"}
    for file, count in ((load(artifact.path), 1), (bare, 0)):
        report = audit(file, torch.ones(3), skip=skip)
        notes = [f for f in report.findings if "metadata=False" in f.sentence]
        assert [(f.stage, f.verdict) for f in notes] == [("portability", "ok")] * count
    found = replace(report.findings[0], sentence=f"it reads '{tmp_path}/my weights.bin' first")
    page = replace(report, findings=(found,)).save(tmp_path / "report.html").read_text()
    assert str(tmp_path) not in page
    assert "weights.bin" in page
