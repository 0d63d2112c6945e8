"""The audit: what it says of sound models, of failing stages, and what it leaves behind."""

import json
import linecache
import re
import runpy
import struct
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import zoo_factories
from jsonschema import Draft202012Validator
from models import Branch, module
from onnxscript import opset20 as op
from torch import nn

from onnx_workbench import __main__ as terminal
from onnx_workbench import audit, export, load
from onnx_workbench.errors import InputError
from onnx_workbench.lessons.traps import Tied
from onnx_workbench.report import AuditError, Finding, formats, page
from onnx_workbench.report.stages import STAGES
from onnx_workbench.source import Line

QUICK = {"opsets", "latency", "hot lines"}
NAMES = [stage.name for stage in STAGES]


@pytest.fixture(autouse=True)
def path_of_its_own(monkeypatch):
    """A repro.py that runs in this process puts its folder on the path."""
    monkeypatch.setattr(sys, "path", [*sys.path])


def all_but(*names):
    return set(NAMES) - set(names)


def by_stage(report):
    return {finding.stage: finding for finding in report.findings}


@pytest.fixture(scope="module")
def sound():
    model, args, options = zoo_factories.sound()
    return audit(model, args, **options)


@pytest.fixture(scope="module")
def broken():
    return audit(*zoo_factories.broken())


class Half(nn.Module):
    def forward(self, x):
        return x.float().exp().to(x.dtype)


class Sizes(nn.Module):
    def forward(self, x):
        return x.shape, x > 1, x.shape[0] / 2, x * 2


class Fixed(nn.Module):
    def forward(self, x):
        return x.shape[0], None, x * 2, 3


# ---------------------------------------------------------------- stages


def test_every_stage_of_a_sound_model_runs_and_is_ok(sound):
    assert sound
    assert [f.stage for f in sound.findings] == NAMES
    assert {f.verdict for f in sound.findings} == {"ok"}
    assert [f.code for f in sound.findings] == [f"OW{digit}00" for digit in range(10)]
    assert repr(sound).splitlines()[0] == "Doubled: nothing to fix"
    assert by_stage(sound)["hot lines"].line.text == "return x * self.weight"


def test_audit_goes_on_after_a_failure_and_lists_what_it_could_not_try(broken):
    found = by_stage(broken)
    assert not broken
    assert set(found) == set(NAMES)
    assert broken.findings[0].stage == "capture", "the worst comes first"
    assert (found["capture"].verdict, found["model"].verdict) == ("broken", "ok")
    assert found["export"].verdict == "not tried"
    assert "graph" in found["export"].sentence
    untried = [one for one in broken.to_dict()["findings"] if one["verdict"] == "not tried"]
    assert len(untried) == 8
    for shown in (repr(broken), broken._repr_html_()):
        assert shown.count("not tried") == 1, "one row for all of them"


def test_a_dimension_that_capture_refuses_does_not_end_the_audit():
    x = torch.ones(4, 2)
    table = module(lambda self, x: x + self.rows, rows=nn.Parameter(x.clone()))
    skip = QUICK | {"contract"}
    found = by_stage(audit(table, x, dynamic_shapes={"x": {0: "rows"}}, skip=skip))
    assert found["capture"].verdict == "broken"
    assert (found["export"].verdict, found["numbers"].verdict) == ("ok", "ok")
    assert "with fixed sizes" in found["export"].sentence
    marked = audit(table, x, skip=all_but("model", "capture"))
    assert marked, "torch's marks stay off the user's tensors"


@pytest.mark.parametrize(
    ("x", "options", "head"),
    [
        (torch.eye(2).to_sparse(), {"skip": QUICK}, ""),
        (torch.ones(2), {"skip": QUICK, "dynamic_shapes": {"x": {3: "n"}}}, ""),
        (torch.ones(2), {"skip": QUICK | {"capture"}}, "Half: 1 of 10 stages ran"),
    ],
    ids=["sparse", "no such axis", "skipped"],
)
def test_an_audit_without_a_file_is_not_sound(x, options, head):
    report = audit(Half().eval(), x, **options)
    assert {"export", "contract", "numbers"} <= {fault.stage for fault in report.faults}
    assert repr(report).startswith(head)
    assert "nothing to fix" not in repr(report)


def test_an_audit_that_skips_stages_that_count_says_how_many_ran():
    report = audit(Half().eval(), torch.ones(2), skip=all_but("model"))
    assert report
    assert repr(report).splitlines()[0] == "Half: 1 of 10 stages ran"


def test_model_and_inputs_are_left_as_they_were():
    x, model = torch.zeros(2), module(lambda self, x: x.add_(1)).train()
    assert not audit(model, x, skip=all_but("model", "capture"))
    assert model.training
    assert x.tolist() == [0.0, 0.0]


def test_what_cannot_be_timed_is_not_tried_with_the_reason():
    report = audit(module(lambda self, x: x.abs()), torch.ones(2, dtype=torch.complex64))
    latency = by_stage(report)["latency"]
    assert latency.verdict == "not tried"
    assert "could not be timed" in latency.sentence


def test_a_file_is_audited_as_far_as_a_file_can_be(tmp_path):
    export(nn.Linear(4, 4).eval(), torch.ones(1, 4), tmp_path / "line.onnx")
    file = load(tmp_path / "line.onnx")
    report = audit(file, torch.ones(1, 4))
    found = by_stage(report)
    assert repr(report).splitlines()[0] == "line.onnx: 5 of 10 stages ran"
    assert "model" in found["numbers"].sentence
    assert found["portability"].verdict == found["latency"].verdict == "ok"
    skip = {"capture", "export", "contract", "numbers"}
    assert audit(file, torch.ones(1, 4), skip=skip | QUICK)
    with pytest.raises(InputError, match="its own repro"):
        report.bundle(tmp_path / "bundle")


# ---------------------------------------------------------------- what it finds


TWO, COARSE = torch.ones(2), torch.ones(2, 2, dtype=torch.bfloat16)
LATE = torch.tensor([4.0, 2.0, 6.0]), torch.tensor([0, 1, 1])
ROWS = {"dynamic_shapes": {"x": {0: "rows"}}}


def test_a_decision_that_is_checked_or_counted_is_not_called_lost():
    def forward(self, x):
        some = (x.sum() != 0).item()
        torch._check(some)
        self.calls.add_((x.mean() != 0).item())
        return x * 2

    model = module(forward)
    model.register_buffer("calls", torch.zeros(()))
    found = audit(model, torch.ones(3), skip=all_but("model", "capture"))
    assert "OW115" not in {one.code for one in found.findings}


def test_a_weight_that_a_hook_computes_is_no_attribute_of_forward():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old weight_norm, still in use
        model = nn.utils.weight_norm(nn.Linear(2, 2)).eval()
        assert audit(model, torch.ones(1, 2), skip=all_but("model", "capture", "export", "numbers"))


def test_a_tolerance_holds_in_every_stage_that_compares():
    wrong = lambda x: op.Mul(op.Sin(x), op.CastLike(1.1, x))  # noqa: E731
    report = audit(
        module(lambda self, x: torch.sin(x)),
        torch.linspace(0.1, 1, 6),
        dynamic_shapes=({0: "n"},),
        custom_translation_table={torch.ops.aten.sin.default: wrong},
        skip={"portability", "size", "latency", "hot lines"},
        tolerance=(0.5, 0.5),
    )
    assert {f.stage for f in report.findings} >= {"numbers", "contract", "opsets"}
    assert not report.faults
    assert by_stage(report)["numbers"].numbers["error"] > 0.05


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
    with pytest.raises(KeyboardInterrupt):
        audit(Interrupts(at).eval(), TWO, skip=all_but("model", "capture", "export", "latency"))


@pytest.mark.parametrize("shapes", [{"input": None}, {"input": {0: None}}, ({},), {}])
def test_shapes_that_name_no_dimension_ask_for_none(shapes):
    report = audit(nn.ReLU().eval(), TWO, dynamic_shapes=shapes, skip=QUICK)
    assert by_stage(report)["contract"].code == "OW300"
    assert report


# ---------------------------------------------------------------- as data


def as_data(report):
    return json.loads(json.dumps(report.to_dict(), allow_nan=False))


def test_the_data_is_what_the_schema_says_and_the_schema_says_something(sound, broken):
    schema = json.loads((Path(page.__file__).parent / "report.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    check = Draft202012Validator(schema)
    nan = module(lambda self, x: torch.sqrt(x) if torch.compiler.is_exporting() else x)
    reports = [
        sound,
        broken,
        audit(nan, -TWO, skip=all_but("model", "capture", "export", "numbers")),
    ]
    for report in reports:
        check.validate(as_data(report))
    assert reports[2].to_dict()["findings"][0]["numbers"]["error"] == "inf"
    good = as_data(sound)
    finding = good["findings"][0]
    for wrong in (
        {**good, "schema": 2},
        {**good, "more": 1},
        {**good, "stages": {}},
        {**good, "findings": [{**finding, "code": "E1"}]},
        {**good, "findings": [{**finding, "numbers": {"error": None}}]},
    ):
        assert not check.is_valid(wrong)


MODULE = """
import torch

class Net(torch.nn.Module):
    def forward(self, x, mask):
        {line}
        return x
"""


def net(folder, line, above=""):
    path = folder / "net.py"
    path.write_text(above + MODULE.format(line=line))
    linecache.checkcache()
    return runpy.run_path(str(path))["Net"]().eval()


def test_an_edit_above_renews_no_finding_and_an_edit_of_the_line_does(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    call, skip = (TWO, torch.ones(2)), all_but("model", "capture")
    old = audit(net(tmp_path, "x += 1"), call, skip=skip)
    (tmp_path / "known.json").write_text(json.dumps(old.to_dict()))
    assert {one["file"] for one in old.to_dict()["findings"] if one["line"]} == {"net.py"}
    moved = audit(net(tmp_path, "x += 1", "# above\n" * 9), call, skip=skip)
    assert moved.faults[0].line.number == old.faults[0].line.number + 9
    for known in (old, old.to_dict(), tmp_path / "known.json"):
        same = moved.compare(known)
        assert (len(same.gone), len(same.new), len(same.kept)) == (0, 0, 2)
        moved.raise_for_findings(baseline=known)
    edited = audit(net(tmp_path, "x += 2"), call, skip=skip)
    changes = edited.compare(old)
    assert not changes
    assert [one["text"] for one in (*changes.new, *changes.gone)] == ["x += 2", "x += 1"]
    assert repr(changes).startswith("1 gone, 1 new, 1 in both\n")
    with pytest.raises(AuditError, match="OW110") as caught:
        edited.raise_for_findings(baseline=old)
    assert caught.value.line.text == "x += 2"
    assert len(caught.value.findings) == 1
    edited.raise_for_findings(ignore={"OW110", "OW112"})
    for wrong in ("OW110", {"OW1"}):
        with pytest.raises(InputError, match="`ignore`"):
            edited.raise_for_findings(ignore=wrong)


UNPLACED = {"fault": True, "code": "OW110", "file": "net.py", "text": "x += 1", "about": "x"}


@pytest.mark.parametrize(
    "text",
    [
        None,
        "[]",
        "no json",
        '{"schema": 9, "findings": []}',
        '{"schema": 1, "findings": [{"fault": true}]}',
        json.dumps({"schema": 1, "findings": [UNPLACED | {"code": ["OW110"]}]}),
        json.dumps({"schema": 1, "findings": [UNPLACED]}),
    ],
)
def test_what_is_no_report_is_no_baseline(text, tmp_path, sound):
    path = tmp_path / "known.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as caught:
        sound.compare(path)
    assert "--format json" in caught.value.hint
    assert "indices" not in str(caught.value)


# ---------------------------------------------------------------- the page


def test_the_page_and_the_cell_have_all_that_was_found(broken):
    cell, text = broken._repr_html_(), page.document(broken)
    for shown in (cell, text):
        for words in ("OW101", "<mark>", "if x.sum() &gt; 0:", "torch.where", "could not run"):
            assert words in shown
        assert broken.when in shown
        assert f"torch {version('torch')}" in shown
    assert "<script" not in cell
    assert "button" not in cell
    assert not re.search(r"<h\d", cell), "it stays out of the notebook's table of contents"


def test_the_graph_is_colored_by_time_and_its_boxes_have_their_rows_on_the_floor(sound):
    drawn = page.graph(sound, linked=True)
    assert re.findall(r'data-rows="([^"]*)"', drawn) == ["0"]
    assert 'aria-label="Mul' in drawn
    assert page.scale({"x": 1.0}).color("x") in drawn
    assert "<a" not in page.graph(sound)
    assert sound.sheet["floors"][4]["rows"][0]["m"] == "Mul"
    assert sound.sheet["floors"][6]["rows"][0]["s"] > 0


def test_page_needs_nothing_else_and_escapes_what_comes_from_a_model(tmp_path):
    class Marked(nn.Module):
        def forward(self, x):
            if x.sum() > 0 and "<img src=y>":
                return x
            return x + 1

    evil = type("<img src=x onerror=alert(1)>", (Marked,), {})
    report = audit(evil().eval(), TWO, skip=all_but("model", "capture"))
    text = report.save(tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    for html in (text.partition('<script type="module">')[0], report._repr_html_()):
        assert "&lt;img src=x" in html
        assert "&lt;img src=y&gt;" in html
        assert not re.search(r"<img src|<script|https?://", html)
    assert text.count("<script") == text.count("</script") == 1


def test_what_a_file_says_of_its_author_is_reported_and_not_in_the_page(tmp_path):
    artifact = export(nn.Tanh().eval(), torch.ones(3), tmp_path / "a.onnx")
    bare = load(artifact.save(tmp_path / "bare.onnx", metadata=False))
    for file, count in ((load(artifact.path), 1), (bare, 0)):
        report = audit(file, torch.ones(3), skip=all_but("portability"))
        notes = [f.verdict for f in report.findings if "metadata=False" in f.sentence]
        assert notes == ["ok"] * count
    said = f"it reads '{tmp_path}/my weights.bin' first"
    line = Line(f"{tmp_path}/net.py", 3, "forward", f"x = open('{tmp_path}/my weights.bin')")
    found = Finding("OW601", said, line, said, numbers={"bytes": 3})
    told = replace(report, findings=(found, replace(found, code="OW602")))
    html, cell = told.save(tmp_path / "report.html").read_text(), told._repr_html_()
    for shown in (html, cell, json.dumps(told.to_dict())):
        assert str(tmp_path) not in shown
        assert "weights.bin" in shown


# ---------------------------------------------------------------- the bundle

SCRIPT = """
import torch
from torch import nn
import onnx_workbench as ow
from onnxscript import opset18 as op
from beside import twice

SECRET, GAIN = 31337.25, len(open("script.py").read()) * 0 + 3

@torch.library.custom_op("written::plus", mutates_args=())
def plus(x: torch.Tensor) -> torch.Tensor:
    return x + GAIN  # a comment

@plus.register_fake
def _(x):
    return torch.empty_like(x)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([31337.25, 2.0]))

    def forward(self, x):
        return torch.ops.written.plus(twice(x)) * self.weight

ow.audit(
    Net().eval(),
    torch.ones(3, 2),
    dynamic_shapes=({0: "rows"},),
    custom_translation_table={torch.ops.written.plus.default: lambda x: op.Add(x, 3.0)},
    skip={"capture", "export", "contract", "numbers", "portability", "opsets", "size", "latency",
          "hot lines"},
).bundle("bundle.zip")
"""


def test_a_bundle_of_a_script_runs_by_itself_in_another_folder(tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "beside.py").write_text("def twice(x):\n    return x * 2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    runpy.run_path("script.py", run_name="__main__")
    there = tmp_path / "there"
    zipfile.ZipFile(tmp_path / "bundle.zip").extractall(there)
    folder = there / "bundle"
    alone = "import gc, runpy, sys\ngc.disable()\nsys.modules['onnx_workbench'] = None\n"
    alone += "runpy.run_path(sys.argv[1], {}, '__main__')"
    command = [sys.executable, "-I", "-c", alone, str(folder / "repro.py")]
    done = subprocess.run(command, cwd=there, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert ": agrees" in done.stdout
    assert "the file takes ['[rows,2]']" in done.stdout
    source = (folder / "source" / "notebook.py").read_text()
    assert "# a comment" in source
    assert "SECRET" not in source
    versions = folder / "versions.json"
    versions.write_text(versions.read_text().replace('"python": "3.', '"python": "2.'))
    with pytest.raises(SystemExit, match=r"Python 2\."):
        runpy.run_path(str(folder / "repro.py"))["main"]()


def bundled(model, args, folder, **options):
    """The report, its bundle's namespace, and what the bundle holds."""
    report = audit(model, args, skip=options.pop("skip", QUICK), **options)
    path = report.bundle(folder / "bundle")
    names = runpy.run_path(str(path / "repro.py"))
    return report, names["main"], names["load"]()


def test_a_bundle_keeps_ties_and_indices_and_no_number_of_a_weight(sound, tmp_path):
    tokens = torch.tensor([[5, 59, 7]])
    _, _, held = bundled(Tied().eval(), tokens, tmp_path, skip=all_but("model"))
    assert held["model"].words.weight is held["model"].head.weight
    assert torch.equal(held["args"][0], tokens)
    folder = sound.bundle(tmp_path / "sound")
    pickled = (folder / "call.pkl").read_bytes()
    for secret in (torch.tensor([31337.25]).numpy().tobytes(), struct.pack(">d", 31337.25)):
        assert secret not in pickled
    assert (folder / "report.txt").read_text().startswith("Doubled: nothing to fix")
    for wrong, said in ((folder, "exists"), (3, "no")):
        with pytest.raises(InputError, match=said):
            sound.bundle(wrong)


def test_a_bundle_fails_as_the_model_does(tmp_path):
    _, main, _ = bundled(*zoo_factories.broken(), tmp_path, skip=all_but("model"))
    with pytest.raises(Exception, match=re.escape("if x.sum() > 0:")):
        main()


def test_a_bundle_shows_the_wrong_numbers_at_the_call_and_at_the_sizes_found(tmp_path, capsys):
    x = torch.zeros(6, 2)
    x[0, 0] = torch.nan  # agrees with itself
    model = zoo_factories.Guesses().eval()
    report, main, _ = bundled(model, (x, *LATE), tmp_path, **ROWS)
    found = by_stage(report)
    assert found["numbers"].verdict == found["contract"].verdict == "wrong"
    assert main() == 1
    at, _, smaller = capsys.readouterr().out.partition("called with [[1, 2], [3], [3]]\n")
    assert (at.count(" differ, "), at.count("agrees")) == (1, 2)
    assert smaller.count(" differ, ") == 2


@pytest.mark.parametrize(
    ("model", "x", "options", "code", "said"),
    [
        (nn.ReLU(), TWO, {"opset_version": 9}, 1, "opset asked for: 9; opset of the file: 18"),
        (Half(), COARSE, {}, 0, ": agrees"),
        (zoo_factories.Coarse(), torch.arange(93).reshape(3, 31) / 558, {}, 0, ": agrees"),
        (zoo_factories.Normed(), torch.ones(2, 2, 3), {}, 1, " differ, "),
        (zoo_factories.Masked(), TWO, {}, 1, " differ, "),
        (Sizes(), TWO, ROWS, 0, "output 3: agrees"),
    ],
    ids=["opset", "bfloat16", "float16 steps", "parametrizations", "masked", "sizes"],
)
def test_a_bundle_judges_as_the_audit_does(model, x, options, code, said, tmp_path, capsys):
    report, main, held = bundled(model.eval(), x, tmp_path, **options)
    assert main() == code == (not report)
    assert said in capsys.readouterr().out
    if isinstance(model, zoo_factories.Normed):
        assert held["model"].third is held["model"].second


@pytest.mark.filterwarnings("error::onnx_workbench.errors.TrainingModeWarning")  # a finding
@pytest.mark.parametrize("options", [{}, ROWS], ids=["fixed size", "dynamic size"])
def test_a_bundle_leaves_fixed_numbers_out_of_the_result(options, tmp_path, capsys):
    _, main, _ = bundled(Fixed(), TWO, tmp_path, **options)
    assert main() == 0
    assert capsys.readouterr().out.count(": agrees") == 1 + bool(options)


class Kinds(nn.Module):
    def forward(self, x, whole):
        return x * 2, whole + 1


def test_large_inputs_are_drawn_anew_with_the_same_kind_of_numbers(tmp_path):
    x = torch.linspace(-3, 9, 3000).reshape(3, 1000)
    x[0, 0], x[0, 1], x[1, :5], x[2, :7] = torch.inf, -torch.inf, torch.nan, 0.0
    whole = torch.arange(2000) * 3 - 17
    _, _, held = bundled(Kinds().eval(), (x, whole), tmp_path, skip=all_but("model"))
    first, second = held["args"]
    for kind in (torch.isnan, torch.isposinf, torch.isneginf, lambda t: t == 0):
        assert kind(first).sum() == kind(x).sum()
    kept, ours = first[first.isfinite()], x[x.isfinite()]
    assert (kept.min(), kept.max()) == (ours.min(), ours.max())
    assert abs(kept.mean() - ours.mean()) < 0.5
    assert not torch.equal(first.nan_to_num(), x.nan_to_num())
    assert (second.min(), second.max(), second.dtype) == (-17, 5980, torch.int64)


# ---------------------------------------------------------------- the terminal


def skipping(*words):
    return terminal.main(["audit", *words, "--skip", *QUICK])


def test_a_baseline_lets_a_known_fault_pass(tmp_path, capsys):
    assert skipping("zoo_factories:broken", "--format", "json") == 1
    said = capsys.readouterr().out
    assert json.loads(said)["verdict"] == "faults"
    known = tmp_path / "known.json"
    known.write_text(said)
    assert skipping("zoo_factories:broken", "--baseline", str(known)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 findings to fix, 4 known, 0 ignored"
    for wrong in (("--ignore", "OW1"), ("--baseline", str(tmp_path / "absent.json"))):
        assert skipping("zoo_factories:stopped", *wrong) == 2, "before the factory is called"


def test_annotations_stand_on_the_line_in_the_repository_and_leave_out_ignored_codes(capsys):
    assert skipping("zoo_factories:broken", "--format", "github", "--ignore", "OW299") == 1
    first, *others, last = capsys.readouterr().out.splitlines()
    number = Branch.forward.__code__.co_firstlineno + 1
    where = f"file=tests/models.py,line={number},title=OW101 Python needs a value"
    assert first.startswith(f"::error {where}")
    assert "%0A" in first
    assert all(line.startswith("::error title=OW") for line in others)
    assert last == "3 findings to fix, 0 known, 1 ignored"
    risk = Finding("OW112", "50 %, in x", Line("<stdin>", 1, "f", "g"), "a: b")
    assert [*formats.github([risk])] == [
        "::warning file=cell,line=1,title=OW112 An input is unused::50 %25, in x%0Aa: b"
    ]


def test_exit_code_is_0_for_a_sound_model_its_opset_counts_and_the_files_are_written(
    tmp_path, capsys
):
    page, folder = tmp_path / "report.html", tmp_path / "bundle"
    words = ("--report", str(page), "--bundle", str(folder), "--opset", "18", "--format", "json")
    assert skipping("zoo_factories:custom", *words) == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [f["numbers"]["opset"] for f in found if f["code"] == "OW600"] == [18]
    assert page.exists()
    assert (folder / "report.txt").read_text().startswith("Custom: nothing to fix")
    assert (folder / "source" / "zoo_factories.py").exists()


def test_the_versions_are_told():
    command = [sys.executable, "-m", "onnx_workbench", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"torch {version('torch')}" in done.stdout


@pytest.mark.parametrize(
    ("factory", "code", "noun"),
    [
        ("no_such_module:make", 2, "ModuleNotFoundError"),
        ("zoo_factories:nothing", 2, "AttributeError"),
        ("zoo_factories", 2, "names no function"),
        (":odd", 2, "names no function"),
        ("zoo_factories:odd", 2, "a str"),
        ("zoo_factories:old", 2, "(Doubled, tuple, int)"),
        ("zoo_factories:numbered", 2, "(Doubled, tuple, dict)"),
        ("zoo_factories:ends", 2, "SystemExit"),
        ("zoo_factories:mistyped", 2, "dynamic_shape"),
        ("zoo_factories:stopped", 130, "interrupted"),
    ],
)
def test_a_wrong_command_and_ctrl_c_are_no_findings(factory, code, noun, capsys):
    assert skipping(factory) == code
    said = capsys.readouterr().err
    assert noun in said
    assert code == 130 or repr(factory) in said


def test_stages_that_a_factory_skips_are_a_set(capsys):
    assert skipping("zoo_factories:skips") == 2
    assert "`skip` is 'latency'" in capsys.readouterr().err
