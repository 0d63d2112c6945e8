"""The codes of findings: each has a paragraph, and some model for which the audit finds it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import onnx
import pytest
import torch
from models import ODD, caching, checked, module, padded, parsed
from more_traps import UNTAUGHT
from onnxscript import opset20 as op
from torch import nn
from torch.ao.quantization import FakeQuantize

import onnx_workbench as ow
from onnx_workbench import __main__ as terminal
from onnx_workbench.lessons.traps import TRAPS
from onnx_workbench.report.codes import CODES, NOT_TRIED, STOPPED, explained
from onnx_workbench.report.finding import FAULTS
from onnx_workbench.report.stages import STAGES, Case, Stage

X, ROWS = torch.linspace(0.1, 1, 12).reshape(4, 3), {"x": {0: "rows"}}
EVERY_STAGE = (STOPPED, NOT_TRIED)


def keeps(self, x):
    """Stores tensors three ways, counts its calls, and makes a table once, at need."""
    if self.table is None:
        self.table = torch.ones(3)
    self.calls += 1
    self.last = x + self.table
    self.kept["x"] = x
    self.sum.add_(x[0])
    return x * 2


@module
def recalls(self, x):
    self.scale = getattr(self, "scale", 1.0) + 1.0
    return x * self.scale


@module
def square(self, x, y):
    return (x * 2 if x.shape[0] == x.shape[1] else x * 3), y + 1


@module
def apart(self, x, y):
    """Another model where both change their size, which capture does not see."""
    if torch.compiler.is_exporting() or len({x.shape[0], y.shape[0], 4, 5}) < 4:
        return x.sum(0) + y.sum(0) * 2
    return x.sum(0) + y.sum(0) * 3


TABLE = ODD | {
    torch.ops.aten.sin.default: lambda x: op.Mul(op.Sin(x), op.CastLike(1.1, x)),
    torch.ops.aten.tanh.default: lambda x: op.Mul(
        op.Tanh(x), op.Div(op.CastLike(op.Size(x), x), op.CastLike(12.0, x))
    ),
}
TRANSLATED = {"custom_translation_table": TABLE}
SQUARE = {"x": {0: "a", 1: "b"}, "y": {0: "c"}}


@module
def tries(self, x):
    try:
        return x * 2 if x.sum() < 0 else x * 3  # values
    except RuntimeError:
        return x * 3


def exporting(one, other):
    return module(lambda self, x: one(x) if torch.compiler.is_exporting() else other(x))


def fails(x):
    raise RuntimeError("boom")


def case(codes, model, args=X, said="", line=None, repair="", **options):
    return pytest.param(codes, model, args, options, said, line, repair, id=codes)


ATTENTION = nn.functional.scaled_dot_product_attention
OTHER = exporting(torch.relu, torch.neg)
QUOTED = nn.ModuleDict({"a'\"": nn.Linear(3, 2)})
CASES = [
    case("OW002", module(lambda self, x: x @ torch.ones(5, 5)), X, "RuntimeError", "x @ torch"),
    case("OW002", module(lambda self, x: sys.exit(0)), X, "SystemExit", "sys.exit(0)"),
    case(
        *("OW102", module(lambda self, x, y: x + y), (X, X)),
        dynamic_shapes=({0: "a"}, {0: "b"}),
    ),
    case("OW106", nn.Sequential(FakeQuantize(quant_min=0, quant_max=255)).eval()),
    case("OW107", module(lambda self, x: x + torch.ones(3, device="meta"))),
    case("OW115", tries, X, "hides", "# values", "torch.where"),
    case("OW190", exporting(fails, torch.relu)),
    case(  # onnxscript wants four axes
        *("OW201", module(lambda self, x: ATTENTION(x, x, x)), torch.ones(2, 3, 4)),
        *("dot_product_attention", "ATTENTION(x, x, x)"),
    ),
    case("OW203", module(lambda self, x: 3)),
    case("OW304", nn.Tanh().eval(), dynamic_shapes=({0: "rows"},), **TRANSLATED),
    case("OW305", OTHER, X, "wrong at the example's own size", dynamic_shapes=ROWS),
    case("OW306", square, (torch.rand(4, 4), torch.rand(3)), dynamic_shapes=SQUARE),
    case(
        *("OW307", module(lambda self, x, rows: checked(x, rows)), (X, torch.tensor([4]))),
        dynamic_shapes={**ROWS, "rows": None},
        **TRANSLATED,
    ),
    case("OW308", apart, (X, torch.rand(5, 3)), dynamic_shapes=({0: "a"}, {0: "b"})),
    case("OW309", module(lambda self, x: padded(x) + 1), **TRANSLATED),
    case("OW401", OTHER, X, "differs", "is_exporting()", "torch.export already gives other"),
    case("OW403", recalls, X, "keeps state", "self.scale = "),
    case("OW404", module(lambda self, x: x / 0), X, "no finite number", None, "Pass"),
    case("OW404", module(lambda self, x: x[x > 9].exp()), X, "is empty", None, "Pass"),
    case("OW501", module(lambda self, x: x.sin()), **TRANSLATED),
    case("OW600", nn.ReLU().eval(), X, "IR 10: loads in ONNX Runtime 1.18", opset_version=18),
    case("OW901", module(lambda self: torch.arange(3.0)), (), "no kernel runs"),
]
ON_FILES = {"OW005", "OW602"}
OF_ATTRIBUTES = {"OW003", "OW004"}
OF_TIMES = {"OW902"}  # test_hotspots.py makes them up


@pytest.mark.parametrize(("code", "model", "args", "options", "said", "line", "repair"), CASES)
def test_a_model_of_each_kind_gets_its_code(code, model, args, options, said, line, repair):
    needed = {"model", "capture", "export", CODES[code].stage}
    skip = {stage.name for stage in STAGES} - needed
    report = ow.audit(model, args, skip=skip, **options)
    found = next(f for f in report.findings if f.code == code and said in f.sentence)
    assert (found in report.faults) is (found.verdict in FAULTS)
    assert repair in found.repair
    if line:
        assert line in found.line.text


def test_an_attribute_that_forward_stores_tensors_in_is_a_risk_on_its_line(recwarn):
    model = module(keeps, table=None, calls=0, kept={}, sum=torch.zeros(3))
    report = ow.audit(model, X, skip={stage.name for stage in STAGES[2:]})
    assert {finding.code for finding in report.findings} >= OF_ATTRIBUTES
    assert {(f.verdict, f.line.text) for f in report.faults} == {
        ("risk", "self.last = x + self.table"),
        ("risk", 'self.kept["x"] = x'),
        ("risk", "self.sum.add_(x[0])"),
    }
    assert "'kept'" in report.faults[0].sentence
    assert not [w for w in recwarn if "assign" in str(w.message)], "the findings say the same"


def test_state_in_an_object_of_the_users_is_found_on_its_line(recwarn):
    report = ow.audit(caching(), X, skip={"opsets", "portability", "latency", "hot lines"})
    stored = {f.line.text: f.sentence for f in report.findings if f.code == "OW003"}
    assert "'all' of a Cache" in stored.pop("self.all.append(x)")
    (sentence,) = stored.values()
    assert "'last' of a Cache" in sentence
    found = {finding.code: finding for finding in report.findings}
    assert found["OW403"].line.text in ("self.all.append(x)", *stored)
    assert "no side effects" not in found["OW100"].sentence
    assert not [w for w in recwarn if "assign" in str(w.message)], "the findings say the same"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (module(lambda self, x: torch.func.grad(lambda v: (v**3).sum())(x)), "torch.func"),
        (module(lambda self, x: self.parts["a'\""](x), parts=QUOTED), "contains a quote"),
    ],
    ids=["grad", "quote"],
)
def test_a_graph_that_cannot_be_decomposed_is_a_finding_of_the_export_alone(model, said):
    skip = {stage.name for stage in STAGES} - {"model", "capture", "export"}
    (found,) = ow.audit(model, X, skip=skip).faults
    assert (found.code, said in found.sentence) == ("OW201", True)


def test_two_runs_that_differ_without_a_random_operator_are_not_called_random():
    numbers = iter(range(9))
    model = module(lambda self, x: x + next(numbers))
    skip = {stage.name for stage in STAGES} - {"model", "capture", "export", "numbers"}
    (found,) = ow.audit(model, X, skip=skip).faults
    assert found.code == "OW402"
    assert "no operator draws" in found.sentence


def test_a_file_gets_its_codes(tmp_path):
    text = "(int64[1] i) => (float[1] y) <float[2] w = {1, 2}> { y = Gather(w, i) }"
    onnx.save(parsed(text), tmp_path / "picks.onnx")
    exported = ow.export(nn.Linear(3, 2).eval(), X)
    skip = {stage.name for stage in STAGES} - {"model", "portability"}
    found = ow.audit(ow.load(tmp_path / "picks.onnx"), torch.tensor([7]), skip=skip).findings
    found += ow.audit(ow.load(exported.path), X, skip=skip).findings
    assert {finding.code for finding in found} >= ON_FILES
    assert any(f.sentence.startswith("it holds 1 node with source lines") for f in found)


def test_a_stage_that_raises_or_finds_nothing_says_so_with_the_digit_of_the_stage():
    def breaks(case):
        raise RuntimeError("no such luck\nand more") from KeyError("because")
        yield

    case = Case(nn.ReLU().eval(), (X,), {}, None, None, None, None, Path())
    for digit, (stage, *_) in enumerate(STAGES):
        for counts, last, verdict in ((True, STOPPED, "broken"), (False, NOT_TRIED, "not tried")):
            [finding] = Stage(stage, breaks, counts=counts)(case)
            assert (finding.code, finding.stage) == (f"OW{digit}{last}", stage)
            assert (finding.verdict, finding.sentence) == (verdict, "KeyError: 'because'")
    [finding] = Stage("size", lambda case: iter(()))(case)
    assert finding.code == "OW799"


def test_every_code_is_made_and_every_code_made_is_known():
    sound = {f"OW{digit}00" for digit in range(10)}  # test_report.py looks at these
    tried = {*sound, *(case.id for case in CASES), *ON_FILES, *OF_ATTRIBUTES, *OF_TIMES}
    tried |= {trap.code for trap in (*TRAPS, *UNTAUGHT)}
    assert {code for code in CODES if not code.endswith(EVERY_STAGE)} == tried - {"OW190"}
    sources = Path(ow.__file__).parent.rglob("*.py")
    named = set(re.findall(r'"(OW\d{3})"', " ".join(p.read_text("utf-8") for p in sources)))
    assert named <= set(CODES)


def test_explain_prints_the_paragraph_of_the_page_and_refuses_what_is_no_code(capsys):
    assert terminal.main(["explain", "OW101"]) == 0
    printed = capsys.readouterr().out
    page = (Path(ow.__file__).parent / "report" / "codes.md").read_text("utf-8")
    assert printed.splitlines()[0].startswith("OW101 capture, broken: Python needs a value")
    assert printed.split("\n\n", 1)[1].strip() in page
    assert [code for code in CODES if len(CODES[code].text.split()) < 9] == []
    assert terminal.main(["explain", "OW1O1"]) == 2
    assert "OW101" in capsys.readouterr().err
    assert "OW799 size, not tried" in explained("OW799")
