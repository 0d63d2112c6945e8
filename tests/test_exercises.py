"""Every exercise: the blank fails, the solution passes, each typical slip has a hint of its own."""

import ast
import inspect
import math
import textwrap
from dataclasses import replace
from functools import cache
from pathlib import Path
from string import Template
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import quantize_dynamic, quantize_static
from onnxscript import opset20 as op
from torch import nn

import onnx_workbench as ow
from onnx_workbench import audit, export, lessons, load
from onnx_workbench.errors import InputError
from onnx_workbench.lessons import classifier, course
from onnx_workbench.lessons.exercises import (
    batch,
    clocks,
    five,
    green,
    hot,
    length,
    node,
    ratio,
    rigged,
    simulated,
    smaller,
    softmax,
)
from onnx_workbench.lessons.workbook import EXERCISES, Exercise
from onnx_workbench.source import Line
from onnx_workbench.stack import Clocks, Package, Reading, Stack

TORCH = Package("torch", "2.13.0", ">=2.9", "import torch")
READ = Clocks(Reading(20, 10), Reading(22, 10), knows=Reading(26, 13), loads=Reading(24, 11))
STACK = Stack((TORCH,), (), READ, "")
"""A real check takes seconds: tests/test_stack.py makes one."""


class Tiny(nn.Module):
    """A classifier with few weights; ``change`` gets its output. Lesson 11 exports the real one."""

    def __init__(self, change=lambda shares: shares):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.change = nn.Linear(3, 1000).requires_grad_(False), change
        self.eval()

    def forward(self, photos):
        return self.change(self.head(photos.float().mean((1, 2)) / 255).softmax(1))


CROPS = torch.linspace(0, 255, 4 * 300 * 400 * 3).to(torch.uint8).reshape(4, 300, 400, 3)
PHOTOS = classifier.Photographs(Tiny(), (), CROPS[:1], CROPS[1:2], CROPS, CROPS)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for module in (five, lessons):
        monkeypatch.setattr(module, "photographs", lambda: PHOTOS)
    monkeypatch.setattr(clocks, "facts", lambda: STACK)
    monkeypatch.setattr(ow, "check", lambda: STACK)
    monkeypatch.setenv("ONNX_WORKBENCH_HOME", str(tmp_path / "home"))
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)


@cache
def solved(number):
    """What the solution of an exercise gives."""
    return lessons.exercise(number).solution().value


def check_hints(number, table):
    """Each wrong answer of the table gets a hint that holds these words."""
    task = lessons.exercise(number)
    for answer, *words in table:
        feedback = task.check(answer)
        assert not feedback, f"{answer!r} passed"
        for word in words:
            assert str(word) in feedback.text, f"{answer!r}: {feedback.text}"
    assert lessons.progress().solved == frozenset()


WRONG_KINDS = [
    ("01", "an int", ["high", True, [18], 20.0]),
    ("02", "function", [torch.ones(3), 3]),
    ("03", "ow.export()", ["reader.onnx", 18, nn.ReLU()]),
    ("04", "a string", [7]),
    ("05", "one number; this is", ["fast", [1.4, 2], "2", math.nan, np.float64("inf")]),
    ("05b", "transformer.py:12", [1.0, True]),
    ("06", "an instance of torch.nn.Module", [3, nn.ReLU]),
    ("07", "(line, function)", [7, (7,), [7, len]]),
    ("08", "function", [3, {"demo::swishy": len}]),
    ("09", "ow.audit()", ["green"]),
    ("10", "your benchmark and the flaws", [3, len, (len, "threads"), (1, {"mode"}), (len, 2)]),
    ("11", "ow.export()", ["five.onnx", nn.ReLU()]),
    ("12", "ow.load()", ["int8.onnx", 0.97]),
]


@pytest.mark.parametrize(("number", "words", "answers"), WRONG_KINDS, ids=EXERCISES)
def test_a_blank_gets_the_hint_how_to_begin_and_another_kind_what_is_expected(
    number, words, answers
):
    first = lessons.exercise(number).hint
    assert first.startswith(("Begin with ", "Open "))
    check_hints(number, [(blank, first) for blank in (..., None, "", "  ")])
    check_hints(number, [(answer, words) for answer in answers])


def test_every_lesson_but_the_map_ends_in_an_exercise():
    assert {course.lesson(number) for number in EXERCISES} == course.LESSONS.keys() - {"00"}
    assert tuple(EXERCISES) == course.SOLVABLE


@pytest.mark.parametrize("number", EXERCISES)
def test_the_solution_passes_and_is_recorded(number):
    task = lessons.exercise(number)
    feedback = task.check(solved(number))
    assert feedback, feedback
    assert lessons.progress().solved == {number}
    assert task.solution()._repr_markdown_() == f"```python\n{task.solution()}\n```"


@pytest.mark.parametrize("number", ["66", 1])
def test_an_unknown_number_lists_the_known_ones(number):
    with pytest.raises(InputError) as caught:
        lessons.exercise(number)
    assert repr(number) in caught.value.message
    assert all(repr(known) in caught.value.hint for known in EXERCISES)


def test_the_pages_and_their_judges_agree():
    """What a task says in words, its judge has as a number or a line."""
    said = {
        "03": [f"opset {batch.OPSET}"],
        "04": [node.LINE, node.OPERATOR, node.BLOCK],
        "12": [f"{smaller.ACCURACY:.0%}".replace("%", " %"), f"{smaller.SHARE:.0%}"[:2] + " %"],
        "06": [f"{length.LONGEST} rows", f"{length.EXAMPLE} words"],
        "02": textwrap.dedent(inspect.getsource(lessons.exercise("02").given)).splitlines()[1:],
        "09": textwrap.dedent(inspect.getsource(green.Patient.forward)).splitlines()[1:],
        "10": [f"{simulated.TRUTH} times"],
    }
    for number, facts in said.items():
        assert all(fact in lessons.exercise(number).text for fact in facts), number


@pytest.mark.parametrize("path", sorted(Path(batch.__file__).parent.glob("*.md")))
def test_each_hint_of_a_judge_stands_on_its_page_with_the_values_that_it_needs(path):
    page = next(task for task in EXERCISES.values() if task.judge.__module__.endswith(path.stem))
    tree, names = ast.parse(path.with_suffix(".py").read_text("utf-8")), set()
    if page.kind is not object:
        names.add("kind")
        assert Template(page.hints["kind"]).get_identifiers() == ["kind"]
    for call in ast.walk(tree):
        kind = getattr(getattr(call, "func", None), "id", "")
        if kind in ("hint", "differs"):
            values = {word.arg for word in call.keywords}
            values |= {"reason"} if kind == "differs" else set()
            first = call.args[0]
            for part in [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]:
                if isinstance(part, ast.Constant):
                    names.add(part.value)
                    needed = set(Template(page.hints[part.value]).get_identifiers())
                    fits = needed <= values if kind == "differs" else needed == values
                    assert fits or None in values, part.value
    computed = {"05": set(ratio.answers(ratio.given()))}.get(page.number, set())
    computed |= {name for name in page.hints if name.startswith(("innocent ", "missing "))}
    assert page.hints.keys() - names <= computed


# ---------------------------------------------------------------- feedback


def judged(judge):
    hints = {"wrong": "`$answer` is wrong."}
    return Exercise("01", "Any", "Do.", "Begin.", "", hints, judge)


def test_an_answer_that_raises_is_told_with_its_line():
    def shaky():
        return [][3]

    task = judged(lambda answer: iter([answer()]))
    text = task.check(shaky).text
    assert "IndexError: list index out of range" in text
    assert f"test_exercises.py:{shaky.__code__.co_firstlineno + 1}\n    return [][3]" in text


def test_an_interruption_is_no_wrong_answer():
    def interrupted(answer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judged(interrupted).check(1)


def test_feedback_shows_code_and_escapes_what_it_quotes():
    feedback = judged(lambda answer: iter([("wrong", {"answer": answer})])).check("<script>")
    assert repr(feedback) == "Not yet. `<script>` is wrong."
    assert "<b>Not yet.</b> <code>&lt;script&gt;</code> is wrong." in feedback._repr_html_()


def test_a_right_answer_that_cannot_be_saved_is_still_right(tmp_path):
    (tmp_path / "home").write_text("in the way")
    feedback = judged(lambda answer: iter(())).check(1)
    assert feedback
    assert repr(feedback).startswith("Right. Next: lesson 02")
    assert "could not be saved" in feedback.note


# ---------------------------------------------------------------- 01 to 05


def test_each_wrong_clock_of_01_has_its_own_hint():
    wrong = [
        ("2.13.0", "version of a package"),
        (2.13, "version of a package"),
        (20, "by default"),
        (24, "ONNX Runtime would load"),
        (26, "onnx package defines"),
        (13, "IR version"),
        (9, "lower than needed"),
        (99, "does not write opset 99"),
    ]
    check_hints("01", wrong)


def test_each_wrong_function_of_02_has_its_own_hint():
    right, task = solved("02"), lessons.exercise("02")

    def empty(image): ...

    def steady(image):
        image = image * 2
        return torch.cond(image.mean() > 1, lambda x: x - 1, lambda x: x + 0.25, (image,))

    def per_pixel(image):
        return torch.where(image * 2 > 1, image * 2 - 1, image * 2 + 0.25)

    wrong = [
        (empty, "returns None"),
        (task.given, "still breaks at breaks.py:", "if image.mean() > 1:", "torch.where"),
        (lambda image: image * 2 - 1, "On a dark image", "25 of 25 differ. Keep"),
        (lambda image: image * 2 + 0.25, "On a bright image", "25 of 25 differ"),
        (lambda image: right(image).double(), "a is float32[1, 5, 5], b is float64[1, 5, 5]"),
        (
            lambda image: right(image)[0],
            "a is float32[1, 5, 5], b is float32[5, 5], where b is yours.",
        ),
        (per_pixel, "half dark image", "of 25 differ. brighten()", "the mean of the whole image"),
    ]
    check_hints("02", wrong)
    assert task.check(steady)


def test_each_wrong_file_of_03_has_its_own_hint_and_a_loaded_one_passes():
    digits, x = lessons.digits(), lessons.digits().images[:2]
    options = {"dynamic_shapes": {"images": {0: "batch"}}, "opset_version": batch.OPSET}
    right = export(digits.model, x, **options)
    onnx.save(right.proto, "2.onnx", save_as_external_data=True, location="w", size_threshold=256)
    wrong = [
        (load("2.onnx"), "2 files: 2.onnx and w"),
        (export(digits.model, x), "batch 1", "{'images': {0: 'batch'}}"),
        (export(digits.model, x, **{**options, "opset_version": None}), "opset_version=18"),
        (export(type(digits.model)().eval(), x, **options), "of 10 differ. Export the trained"),
    ]
    check_hints("03", wrong)
    assert lessons.exercise("03").check(load(right.path))


def test_each_wrong_name_of_04_has_its_own_hint():
    origins = node.origins()
    line = {name: o for name, o in origins.items() if o.line and o.line.text == node.LINE}
    products = [name for name, o in line.items() if o.operator == node.OPERATOR]
    wrong = [
        (products[0], "in another block", node.BLOCK),
        (next(iter(line.keys() - {*products})), "several nodes", node.OPERATOR),
        (
            next(name for name, o in origins.items() if o.operator == "Softmax"),
            *("from another line", "transformer.py:", node.LINE),
        ),
        (origins[products[0]].fx, "an FX node"),
        ("MatMul", "an operator", "24 nodes"),
        ("node_nothing", "no node 'node_nothing'"),
    ]
    check_hints("04", wrong)


def test_each_slip_of_05_has_its_own_hint_and_lies_apart_from_the_others():
    answers, hints = ratio.answers(ratio.given()), lessons.exercise("05").hints
    right = answers.pop("right")
    check_hints("05", [(value, hints[name]) for name, value in answers.items()])
    check_hints("05", [(1 / answers["mean"], hints["upside-down"])])
    check_hints("05", [(7, "none of the usual slips")])
    assert np.diff(np.log(sorted([right, *answers.values()]))).min() > 3 * ratio.CLOSE
    assert right == pytest.approx(1.4, rel=0.05)
    assert lessons.exercise("05").check(round(right, 2))
    assert np.array_equal(ratio.given().a, ratio.given().a)


# ---------------------------------------------------------------- 10

FIVE = {"threads", "copy", "first call", "mode", "order"}


def fixed(*swaps):
    """The benchmark of the solution, with lines put back to what they were before it was fixed."""
    source = str(lessons.exercise("10").solution())
    for old, new in swaps:
        assert old in source
        source = source.replace(old, new)
    exec(source, names := {})
    return names["benchmark"]


def raises(model, open_session, x, clock):
    torch.set_num_threads(7)
    torch.set_grad_enabled(False)
    raise ValueError("no time")


RUN = 'session.run(None, {"x": array})'
COPIED = ('{"x": array}', '{"x": array.copy()}')
CLONED = (".eval()(x)", ".eval()(x.clone())")
ROUNDS = "[seconds(ours) / seconds(theirs) for _ in range(40)]"
ONE_BY_ONE = "[sum([seconds(ours) for _ in '_' * 40]) / sum([seconds(theirs) for _ in '_' * 40])]"
RIGGED = [
    ([("threads=1", "threads=4")], "threads", "PyTorch ran on 1, ONNX Runtime on 4"),
    ([("threads=1", "")], "PyTorch ran on 1, ONNX Runtime on 4"),
    ([("threads=1", "threads=0")], "PyTorch ran on 1, ONNX Runtime on 4"),
    ([("model.eval()", "model")], "201 of 201", "model.eval()"),
    ([("torch.inference_mode()", "torch.enable_grad()")], "201 of 201", "inference_mode()"),
    ([COPIED], "ONNX Runtime got 201 inputs"),
    ([CLONED], "PyTorch got 201 inputs"),
    ([COPIED, CLONED], "without any pitfall"),
    ([(ROUNDS, ONE_BY_ONE)], "402 calls", "changed 3 times"),
    (
        [("ours(), theirs()", "pass"), ("statistics.median", "statistics.mean")],
        *("first call", "1.43", "1.25"),
    ),
    ([("range(5)", "range(50)"), ("range(40)", "range(10)")], "follows the machine", 1.19, 1.25),
    ([("seconds(ours) / seconds(theirs)", "seconds(theirs) / seconds(ours)")], "upside down"),
    ([("seconds(ours) / ", "2 * seconds(ours) / ")], "without any pitfall", "2.50", "1.25"),
    ([("return statistics.median(rounds)", "return 1.25")], "It says 1.25", "2.5"),
    ([("clock()", "0.0"), ("/ seconds", "- seconds")], "from `clock`"),
    ([(RUN, "ours()")], "never runs ONNX Runtime"),
    ([("return statistics.median(rounds)", "return rounds")], "a list"),
    ([(RUN, 'session.run(None, {"x": x})')], "session.run takes NumPy arrays"),
]


def test_a_benchmark_of_10_that_is_still_rigged_is_told_how():
    threads = torch.get_num_threads()
    check_hints("10", [((fixed(*swaps), FIVE), *words) for swaps, *words in RIGGED])
    check_hints("10", [((rigged.benchmark, FIVE), "the threads are still unequal")])
    check_hints("10", [((raises, FIVE), "ValueError: no time at test_exercises.py:")])
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (threads, True)
    two = fixed(("num_threads(1)", "num_threads(2)"), ("threads=1", "threads=2"))
    assert lessons.exercise("10").check((fixed(), FIVE))
    assert lessons.exercise("10").check((two, sorted(FIVE)))


def test_10_tells_which_flaw_is_missing_and_which_is_none():
    old, hints = rigged.benchmark, lessons.exercise("10").hints
    assert set(rigged.FLAWS) == FIVE
    said = {name: text.removeprefix("$count of the five") for name, text in hints.items()}
    wrong = [((old, FIVE - {flaw}), "1 of the five", said[f"missing {flaw}"]) for flaw in FIVE]
    fine = rigged.SUSPECTS.keys() - FIVE
    wrong += [((old, FIVE | {word}), word, said[f"innocent {word}"]) for word in fine]
    check_hints("10", [*wrong, ((old, {*FIVE, "clock"}), "'clock' is not on the list")])


# ---------------------------------------------------------------- 05b


def row(number, ort, kernels=1, torch=1.0, noise=0.0):
    """Three runs of a line, of ``ort`` us each; the middle one is the typical."""
    line = Line("/home/ada/transformer.py", number, "forward", f"y{number} = f(x)")
    return hot.Row(line, tuple(ort + noise * swing for swing in (-1, 0, 1)), kernels, torch)


ROWS = (row(1, 50), row(2, 20, torch=9.0), row(3, 20, kernels=7), row(4, 10))
LOUD = (row(1, 50, noise=20, torch=2.0), row(2, 40), row(3, 10))


@pytest.mark.parametrize(
    ("answer", "rows", "wrong"),
    [
        (1, ROWS, None),
        (ROWS[0], ROWS, None),
        (2, ROWS, "torch"),
        (3, ROWS, "kernels"),
        (4, ROWS, "less"),
        ("def forward(x):", ROWS, "silent"),
        (2, LOUD, None),
        (3, LOUD, "less"),
        (2, (row(1, 50, noise=2, torch=2.0), *LOUD[1:]), "less"),
        (2, (row(1, 50.0), row(2, 49.0)), None),
        (2, (row(1, 52.0, torch=2.0), row(2, 48.0)), "less"),
    ],
)
def test_05b_takes_each_line_that_cannot_be_told_from_the_first(answer, rows, wrong):
    found = next(hot.judged(answer, hot.Profile(rows)), (None, {}))
    assert found[0] == wrong


def test_the_recorded_profile_has_one_line_for_each_trap():
    """And a machine that slows down changes no share."""
    profile = hot.given()
    wrong = {name for row in profile.rows for name, _ in hot.judged(row.line, profile)}
    assert wrong == {"torch", "kernels", "less"}
    assert lessons.exercise("05b").check(max(profile.rows, key=lambda row: row.seconds).line.text)
    slowed = [hot.Row(r.line, (r.runs[0], 3 * r.runs[1]), 1, 1.0) for r in ROWS]
    assert hot.Profile(tuple(slowed)).shares[0].tolist() == [0.5, 0.5]


# ---------------------------------------------------------------- 06 to 09


def positions(body):
    """A model of 06 whose ``forward`` is ``body(self, x)``."""
    return type("Fixed", (length.Positions,), {"forward": body})().eval()


def test_each_slip_of_06_has_its_own_hint():
    def decides(self, x):
        rows = self.table if x.shape[1] > 32 else self.table[:32]
        return x + rows[: x.shape[1]]

    wrong = [
        (length.given(), "With 1 word", "b is float32[2, 16, 8], where b is yours", "broadcast"),
        (positions(lambda self, x: x + self.table[-x.shape[1] :]), "Word i gets row i"),
        (
            positions(lambda self, x: x + self.table[: min(x.shape[1], 16)]),
            *("At length 17 your model itself raises RuntimeError", "as `x` has words"),
        ),
        (
            positions(lambda self, x: x + self.table[: int(x.shape[1])]),
            *("length is still frozen", "test_exercises.py:"),
        ),
        (
            positions(decides),
            *("ONNX Runtime is wrong at length 33", "BROKEN", "rows = self.table if x.shape[1]"),
        ),
    ]
    check_hints("06", wrong)


def test_each_wrong_line_and_each_wrong_translation_of_07_has_a_hint_of_its_own():
    found = softmax.wrong()
    lines = {step.line for step in found.steps if step.line}
    wrong = {step.line for step in found.steps if step.wrong and step.line}
    passed = next(iter(wrong - {found.first.line, found.largest.line}))
    sound = next(iter(lines - wrong))
    places = [
        (found.largest, "largest error"),
        (found.largest.line.number, "largest error"),
        (passed, passed.place, "from wrong inputs"),
        (sound.place, sound.place, "agrees with PyTorch"),
        (7, "does not come from 7"),
    ]
    functions = [
        ({}, "must be a function"),
        (lambda x: x, "stops the exporter"),
        (softmax.given()[softmax.SOFTMAX], "first wrong value is still at", "`axis`"),
        (lambda x, dim, dtype=None: op.Softmax(x, axis=-1), "over dim=0 it is wrong"),
    ]
    line = found.first.line
    check_hints("07", [((place, op.Softmax), *words) for place, *words in places])
    check_hints("07", [((line, function), *words) for function, *words in functions])


def test_each_wrong_translation_of_08_has_its_own_hint():
    def uncast(x, beta):
        return op.Add(op.Mul(x, op.Sigmoid(op.Mul(x, beta))), beta)

    def constant(x, beta):
        return uncast(x, op.Constant(value_float=beta))

    wrong = [
        (uncast, "passes float32 and fails float16", "CastLike"),
        (constant, "passes float32 and fails float16", "CastLike"),
        (lambda x, beta: op.Mul(x, op.Sigmoid(op.Mul(x, beta))), "beta = 1.0 and float32"),
        (lambda x, beta: op.ReduceSum(x), "b is float32[1, 1], where b is yours"),
    ]
    check_hints("08", wrong)


def test_09_tells_the_three_faults_worst_first_and_finds_an_audit_of_less_than_was_asked():
    right, sick = solved("09"), lessons.exercise("09").given
    quick, batch = {"opsets", "latency", "hot lines"}, {"x": {0: "batch"}}
    answer = audit(sick, torch.ones(2, 4, 2), dynamic_shapes=batch, skip=quick)
    assert {fault.line.text for fault in answer.faults} == {
        "rows = int(x.shape[0])",
        "x += 1",
        "x = F.dropout(x * self.weight, 0.1)",
    }
    fewer = tuple(finding for finding in right.findings if finding.stage != "contract")
    flat, deep = (replace(right.case, subject=one().eval()) for one in (nn.Flatten, nn.Identity))
    wrong = [
        (answer, "3 lines to fix", answer.faults[0].sentence, answer.faults[0].repair),
        (replace(right, case=replace(right.case, dynamic_shapes=None)), "one batch size"),
        (replace(right, findings=fewer), "skip"),
        (replace(right, case=flat), "computes something else"),
        (replace(right, case=deep), "b is float32[1, 4, 2], where b is yours"),
    ]
    check_hints("09", wrong)


FREE = {"photos": {0: "batch", 1: "height", 2: "width"}}


def test_each_wrong_file_of_11_has_its_own_hint():
    def file(change, dynamic=FREE):
        return export(Tiny(change), PHOTOS.crops[:2], dynamic_shapes=dynamic)

    def best(shares):
        return tuple(shares.topk(5))

    def edited(name, edit):
        proto = right.model_proto
        edit(proto.graph)
        onnx.save(proto, name)
        return load(name)

    def of_floats(graph):
        graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT

    right = file(best)
    wrong = [
        (edited("floats.onnx", of_floats), "float32", "uint8"),
        (file(best, dynamic={"photos": {0: "batch"}}), "[1, 250, 300, 3]", '1: "height"'),
        (edited("one.onnx", lambda graph: graph.output.pop()), "one output", "topk"),
        (edited("turned.onnx", lambda graph: graph.output.reverse()), "probabilities come first"),
        (file(lambda shares: tuple(shares.topk(3))), "[1, 3]", "[1, 5]"),
        (file(lambda shares: best(900 * shares)), "add up to"),
        (file(lambda shares: (best(shares)[0], best(shares)[1].int())), "int32"),
        (file(lambda shares: best(shares.flip(1))), "differs from"),
        (file(lambda shares: best(shares.double())), "b is float64[1, 5], where b is yours"),
    ]
    check_hints("11", wrong)


def test_each_wrong_file_of_12_has_its_own_hint():
    digits, task = lessons.digits(), lessons.exercise("12")
    batch = {"images": {0: "batch"}}
    whole = export(task.given, digits.images[:2], "loud.onnx", dynamic_shapes=batch)
    export(task.given, digits.images[:2], "fixed.onnx")
    loud = [o.node for o in ow.trace(whole).origins if o.line and "* volume" in o.line.text]
    heavy = [node.name for node in whole.proto.graph.node if node.op_type == "Gemm"]

    def int8(name, path="loud.onnx", **options):
        pairs = iter([{"images": two.numpy()} for two in digits.images[:50].split(2)])
        examples = SimpleNamespace(get_next=lambda: next(pairs, None))
        quantize_static(path, name, examples, **options)
        return load(name)

    quantize_dynamic("loud.onnx", "dynamic.onnx")
    wrong = [
        (load("dynamic.onnx"), "quantize_static"),
        (whole, "Nothing in this file is quantized"),
        (int8("2.onnx", "fixed.onnx"), 'dynamic_shapes={"images"'),
        (int8("all.onnx"), "of the test digits", "the line before it"),
        (int8("few.onnx", nodes_to_exclude=[*loud, *heavy]), "of the bytes"),
    ]
    check_hints("12", wrong)
