"""Every exercise: the blank fails, the solution passes, each typical slip has a hint of its own."""

import ast
import functools
import inspect
import math
import statistics
import textwrap
from dataclasses import replace
from pathlib import Path
from string import Template

import numpy as np
import onnx
import pytest
import torch
from onnxscript import opset20 as op

from onnx_workbench import audit, export, lessons, load, stack
from onnx_workbench.errors import InputError
from onnx_workbench.hotspots import Spot
from onnx_workbench.lessons import course
from onnx_workbench.lessons.exercises import (
    batch,
    clocks,
    hot,
    length,
    node,
    ratio,
    rigged,
    simulated,
    softmax,
)
from onnx_workbench.lessons.workbook import EXERCISES, Exercise
from onnx_workbench.source import Line
from onnx_workbench.stack import Clocks, Reading, Stack

LOOKED = functools.cache(stack.check)
"""One look at the stack serves the whole file: it takes seconds."""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(stack, "check", LOOKED)
    monkeypatch.setenv("ONNX_WORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def hint(number, answer):
    verdict = lessons.exercise(number).check(answer)
    assert not verdict, f"{answer!r} passed"
    assert lessons.progress().solved == frozenset()
    return verdict.text


def check_hints(number, table):
    """Each wrong answer of the table gets a hint that holds these words."""
    for answer, *words in table:
        text = hint(number, answer)
        for word in words:
            assert str(word) in text, f"{answer!r}: {text}"


WRONG_KINDS = [
    ("01", "an int", ["high", True, [18], 20.0]),
    ("02", "function", [torch.ones(3), 3]),
    ("03", "ow.export()", ["reader.onnx", 18, torch.nn.ReLU()]),
    ("04", "a string", [7]),
    ("05", "one number", ["fast", [1.4, 2]]),
    ("05b", "your benchmark and the flaws", [3, len, (len, "threads"), (1, {"mode"}), (len, 2)]),
    ("05c", "transformer.py:12", [1.0, True]),
    ("06", "an instance of torch.nn.Module", [3, torch.nn.ReLU]),
    ("07", "(line, function)", [7, (7,), [7, len]]),
    ("08", "function", [3, {"demo::swishy": len}]),
    ("09", "ow.audit()", ["green"]),
]


@pytest.mark.parametrize(("number", "words", "answers"), WRONG_KINDS, ids=EXERCISES)
def test_an_answer_of_another_kind_is_told_what_is_expected(number, words, answers):
    check_hints(number, [(answer, words) for answer in answers])


def test_every_lesson_but_the_map_ends_in_an_exercise():
    assert {course.lesson(number) for number in EXERCISES} == course.LESSONS.keys() - {"00"}
    assert tuple(EXERCISES) == course.SOLVABLE


@pytest.mark.parametrize("number", EXERCISES)
def test_a_blank_gets_the_hint_how_to_begin(number):
    task = lessons.exercise(number)
    check_hints(number, [(blank, task.hint) for blank in (..., None, "", "  ")])
    assert task.hint.startswith(("Begin with ", "Open "))


@pytest.mark.parametrize("number", EXERCISES)
def test_the_solution_passes_and_is_recorded(number):
    task = lessons.exercise(number)
    verdict = task.check(task.solution().value)
    assert verdict, verdict
    assert lessons.progress().solved == {number}


def test_a_task_reads_as_text_and_as_markdown():
    task = lessons.exercise("03")
    assert repr(task).startswith("Exercise 03: Any batch, one file\n\nExport the")
    assert task._repr_markdown_().startswith("**Exercise 03: Any batch, one file**\n\nExport the")
    assert repr(task.solution()).startswith("import onnx_workbench as ow\n")
    assert task.solution()._repr_markdown_() == f"```python\n{task.solution()}\n```"


@pytest.mark.parametrize("number", ["66", "1", 1, ""])
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
        "05b": [f"{simulated.TRUTH} times"],
        "06": [f"{length.LONGEST} rows", f"{length.EXAMPLE} words"],
        "02": textwrap.dedent(inspect.getsource(lessons.exercise("02").given)).splitlines()[1:],
    }
    for number, facts in said.items():
        assert all(fact in lessons.exercise(number).text for fact in facts), number
    attention = inspect.getsource(type(lessons.encoder().model.blocks[1].attention))
    assert attention.count(node.LINE) == 1
    assert lessons.encoder().model.get_submodule(node.BLOCK)


@pytest.mark.parametrize("path", sorted(Path(batch.__file__).parent.glob("*.md")))
def test_each_hint_of_a_judge_stands_on_its_page_with_the_values_that_it_needs(path):
    page = next(task for task in EXERCISES.values() if task.judge.__module__.endswith(path.stem))
    tree, names = ast.parse(path.with_suffix(".py").read_text("utf-8")), set()
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "hint":
            name, values = call.args[0], {word.arg for word in call.keywords}
            if isinstance(name, ast.Constant):
                names.add(name.value)
                needed = set(Template(page.hints[name.value]).get_identifiers())
                assert None in values or needed == values, name.value
    computed = {"05": set(ratio.answers(ratio.given()))}.get(page.number, set())
    computed |= {name for name in page.hints if name.startswith(("innocent ", "missing "))}
    assert page.hints.keys() - names <= computed


# ---------------------------------------------------------------- verdicts


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


def test_a_verdict_shows_code_and_escapes_what_it_quotes():
    verdict = judged(lambda answer: iter([("wrong", {"answer": answer})])).check("<script>")
    assert repr(verdict) == "Not yet. `<script>` is wrong."
    assert "<b>Not yet.</b> <code>&lt;script&gt;</code> is wrong." in verdict._repr_html_()


def test_a_right_answer_that_cannot_be_saved_is_still_right(tmp_path):
    (tmp_path / "home").write_text("in the way")
    task = lessons.exercise("05")
    verdict = task.check(task.solution().value)
    assert verdict
    assert repr(verdict).startswith("Right. Next: exercise 05b")
    assert "could not be saved" in verdict.note


# ---------------------------------------------------------------- 01


def test_each_wrong_clock_of_01_has_its_own_hint(monkeypatch):
    read = Clocks(Reading(20, 10), Reading(22, 10), knows=Reading(26, 13), loads=Reading(24, 11))
    packages = [p for p in LOOKED().packages if p.name == "torch"]
    monkeypatch.setattr(clocks, "facts", lambda: Stack(tuple(packages), (), read, ""))
    version = packages[0].version
    wrong = [
        (version, "version of a package"),
        (float(".".join(version.split(".")[:2])), "version of a package"),
        (20, "by default"),
        (24, "ONNX Runtime would load"),
        (26, "onnx package defines"),
        (13, "IR version"),
        (9, "lower than needed"),
        (99, "does not write opset 99"),
    ]
    check_hints("01", wrong)
    assert lessons.exercise("01").check(22)


# ---------------------------------------------------------------- 02


def test_each_wrong_function_of_02_has_its_own_hint():
    right = lessons.exercise("02").solution().value

    def empty(image): ...

    def breaks(image):
        image = image * 2
        if image.mean() > 1:
            return image - 1
        return image + 0.25

    wrong = [
        (empty, "returns None"),
        (breaks, "still breaks at test_exercises.py:", "if image.mean() > 1:", "torch.where"),
        (lambda image: image * 2 - 1, "On a dark image", "25 of 25 differ"),
        (lambda image: image * 2 + 0.25, "On a bright image", "25 of 25 differ"),
        (lambda image: right(image).double(), "a is float32[1, 5, 5], b is float64[1, 5, 5]"),
        (lambda image: right(image)[0], "a is float32[1, 5, 5], b is float32[5, 5]"),
    ]
    check_hints("02", wrong)


def test_torch_cond_solves_02_too():
    def steady(image):
        image = image * 2
        return torch.cond(image.mean() > 1, lambda x: x - 1, lambda x: x + 0.25, (image,))

    assert lessons.exercise("02").check(steady)


# ---------------------------------------------------------------- 03


def exported(model=None, opset=batch.OPSET, dynamic=True):
    digits = lessons.digits()
    axes = {"images": {0: "batch"}} if dynamic else None
    x = digits.images[:2]
    return export(model or digits.model, x, dynamic_shapes=axes, opset_version=opset)


def test_each_wrong_file_of_03_has_its_own_hint():
    right = exported()
    onnx.save(right.proto, "2.onnx", save_as_external_data=True, location="w", size_threshold=256)
    two = load("2.onnx")
    check_hints(
        "03",
        [
            (two, "2 files: 2.onnx and w"),
            (exported(dynamic=False), "batch 1", "{'images': {0: 'batch'}}"),
            (exported(opset=None), "opset_version=18"),
            (exported(type(lessons.digits().model)().eval()), "of 10 differ", "trained"),
        ],
    )


def test_a_loaded_file_solves_03_too():
    right = exported()
    assert lessons.exercise("03").check(load(right.path))


# ---------------------------------------------------------------- 04


def test_each_wrong_name_of_04_has_its_own_hint():
    origins = node.origins()
    line = {name: o for name, o in origins.items() if o.line and o.line.text == node.LINE}
    right = lessons.exercise("04").solution().value
    elsewhere = next(n for n, o in line.items() if o.operator == node.OPERATOR and n != right)
    operator = next(n for n, o in line.items() if o.operator != node.OPERATOR)
    other = next(name for name, o in origins.items() if o.operator == "Softmax")
    wrong = [
        (elsewhere, "in another block", node.BLOCK),
        (operator, "several nodes", node.OPERATOR),
        (other, "from another line", "transformer.py:", node.LINE),
        (origins[right].fx, "an FX node"),
        ("MatMul", "an operator", "24 nodes"),
        ("node_nothing", "no node 'node_nothing'"),
    ]
    check_hints("04", wrong)


# ---------------------------------------------------------------- 05


def test_each_slip_of_05_has_its_own_hint_and_lies_apart_from_the_others():
    answers, hints = ratio.answers(ratio.given()), lessons.exercise("05").hints
    right = answers.pop("right")
    check_hints("05", [(value, hints[name]) for name, value in answers.items()])
    check_hints("05", [(7, "none of the usual slips"), (math.nan, "none of the usual slips")])
    assert np.diff(np.log(sorted([right, *answers.values()]))).min() > 3 * ratio.CLOSE
    assert right == pytest.approx(1.4, rel=0.05)
    assert lessons.exercise("05").check(round(right, 2))
    assert np.array_equal(ratio.given().a, ratio.given().a)


# ---------------------------------------------------------------- 05b

FIVE = {"threads", "copy", "first call", "mode", "order"}
FIXED = """
def benchmark(model, open_session, x, clock):
    torch.set_num_threads(1)
    model.eval()
    session = open_session(threads=1)
    array = x.numpy()

    def seconds(call):
        start = clock()
        for _ in range(5):
            call()
        return clock() - start

    def ours(): model(x)
    def theirs(): session.run(None, {"x": array})
    with torch.inference_mode():
        ours(), theirs()
        rounds = [seconds(ours) / seconds(theirs) for _ in range(40)]
    return statistics.median(rounds)
"""


def fixed(*swaps):
    """The benchmark above, with lines put back to what they were before it was fixed."""
    source = FIXED
    for old, new in swaps:
        assert old in source
        source = source.replace(old, new)
    names = {"torch": torch, "statistics": statistics}
    exec(source, names)
    return names["benchmark"]


RUN = 'session.run(None, {"x": array})'
COPIED = ('{"x": array}', '{"x": array.copy()}')
CLONED = ("model(x)", "model(x.clone())")
ROUNDS = "[seconds(ours) / seconds(theirs) for _ in range(40)]"
ONE_BY_ONE = "[sum([seconds(ours) for _ in '_' * 40]) / sum([seconds(theirs) for _ in '_' * 40])]"
RIGGED = [
    ([("threads=1", "threads=4")], "threads", "PyTorch ran on 1, ONNX Runtime on 4"),
    ([("threads=1", "")], "PyTorch ran on 1, ONNX Runtime on 4"),
    ([("threads=1", "threads=0")], "PyTorch ran on 1, ONNX Runtime on 4"),
    ([("    model.eval()\n", "")], "201 of 201", "model.eval()"),
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
    ([("clock()", "0.0"), ("/ seconds", "- seconds")], "from `clock`"),
    ([(f"def theirs(): {RUN}", "theirs = ours")], "never runs ONNX Runtime"),
    ([("return statistics.median(rounds)", "return rounds")], "a list"),
    ([(RUN, 'session.run(None, {"x": x})')], "session.run takes NumPy arrays"),
]


def test_a_benchmark_of_05b_that_is_still_rigged_is_told_how():
    check_hints("05b", [((fixed(*swaps), FIVE), *words) for swaps, *words in RIGGED])


def test_05b_takes_another_honest_benchmark():
    two = fixed(("num_threads(1)", "num_threads(2)"), ("threads=1", "threads=2"))
    assert lessons.exercise("05b").check((fixed(), FIVE))
    assert lessons.exercise("05b").check((two, sorted(FIVE)))


def test_05b_tells_which_flaw_is_missing_and_which_is_none():
    old, hints = rigged.benchmark, lessons.exercise("05b").hints
    assert set(rigged.FLAWS) == FIVE
    said = {name: text.removeprefix("$count of the five") for name, text in hints.items()}
    wrong = [((old, FIVE - {flaw}), "1 of the five", said[f"missing {flaw}"]) for flaw in FIVE]
    fine = rigged.SUSPECTS.keys() - FIVE
    wrong += [((old, FIVE | {word}), word, said[f"innocent {word}"]) for word in fine]
    check_hints("05b", [*wrong, ((old, {*FIVE, "clock"}), "'clock' is not on the list")])
    check_hints("05b", [((old, FIVE), "the threads are still unequal")])


def test_the_rigged_benchmark_has_the_five_flaws_and_the_machine_sees_them():
    said, machine = simulated.run(rigged.benchmark)
    ours, theirs = machine.of("PyTorch"), machine.of("ONNX Runtime")
    assert said == pytest.approx(3.28, abs=0.01)
    assert ({call.threads for call in ours}, {call.threads for call in theirs}) == ({1}, {4})
    assert all(call.training and call.gradients for call in ours)
    assert [len(inputs) for inputs in machine.inputs.values()] == [1, 100]
    assert (len(ours), len(theirs), machine.turns) == (100, 100, 1)


def test_a_benchmark_of_05b_leaves_torch_as_it_was():
    def raises(model, open_session, x, clock):
        torch.set_num_threads(7)
        torch.set_grad_enabled(False)
        raise ValueError("no time")

    before = torch.get_num_threads()
    check_hints("05b", [((raises, FIVE), "ValueError: no time at test_exercises.py:")])
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (before, True)


# ---------------------------------------------------------------- 05c


def spot(number, ort, kernels=1, torch=1.0, noise=0.0):
    """Three runs of a line, of ``ort`` us each; the middle one is the typical."""
    line = Line("/home/ada/transformer.py", number, "forward", f"y{number} = f(x)")
    runs = tuple(ort + noise * swing for swing in (-1, 0, 1))
    names = tuple(f"k{number}_{i}" for i in range(kernels))
    return Spot(line.place, line, runs, ort, names, ("name",), fused=False, torch=torch)


QUIET = (spot(1, 50), spot(2, 20, torch=9.0), spot(3, 20, kernels=7), spot(4, 10))


@pytest.fixture
def right(monkeypatch):
    def right(answer, *spots):
        monkeypatch.setattr(hot, "measured", lambda: spots)
        return bool(lessons.exercise("05c").check(answer))

    return right


def test_each_wrong_line_of_05c_has_its_own_hint(monkeypatch):
    monkeypatch.setattr(hot, "measured", lambda: QUIET)
    check_hints(
        "05c",
        [
            (2, "PyTorch spends the longest", "20%"),
            (3, "more kernels", "7", "20%"),
            (4, "10%", "`share`"),
            ("def forward(x):", "no kernel"),
        ],
    )


def test_05c_takes_a_line_in_each_way_that_it_can_be_named(right):
    line = QUIET[0].line
    for answer in (1, "1", " y1 = f(x) ", "transformer.py:1", line, QUIET[0]):
        assert right(answer, *QUIET), answer


def test_05c_takes_a_line_that_cannot_be_told_from_the_first(right):
    loud = (spot(1, 50, noise=20), spot(2, 40), spot(3, 10))
    assert right(2, *loud)
    assert not right(3, *loud)
    assert not right(2, spot(1, 50, noise=2), *loud[1:])
    assert right(2, spot(1, 50.0), spot(2, 49.0))
    assert not right(2, spot(1, 52.0), spot(2, 48.0))


def test_a_machine_that_slows_down_changes_no_share_of_05c():
    slowed = tuple(
        replace(spot, runs=(spot.runs[0], 3 * spot.runs[1], 9 * spot.runs[2])) for spot in QUIET
    )
    assert hot.shares(slowed)[0].tolist() == [0.5, 0.5, 0.5]


# ---------------------------------------------------------------- 06


def positions(body):
    """A model of 06 whose ``forward`` is ``body(self, x)``."""
    return type("Fixed", (length.Positions,), {"forward": body})().eval()


def test_each_slip_of_06_has_its_own_hint():
    def decides(self, x):
        rows = self.table if x.shape[1] > 32 else self.table[:32]
        return x + rows[: x.shape[1]]

    wrong = [
        (length.given(), "With 1 word", "b is float32[2, 16, 8]", "broadcast"),
        (positions(lambda self, x: x + self.table[-x.shape[1] :]), "Word i gets row i"),
        (
            positions(lambda self, x: x + self.table[: min(x.shape[1], 16)]),
            *("With 17 words your model itself raises RuntimeError", "x.shape[1]"),
        ),
        (
            positions(lambda self, x: x + self.table[: int(x.shape[1])]),
            *("length is still frozen", "test_exercises.py:"),
        ),
        (
            positions(decides),
            *("ONNX Runtime is wrong with 33 words", "BROKEN", "rows = self.table if x.shape[1]"),
        ),
    ]
    check_hints("06", wrong)


# ---------------------------------------------------------------- 07


def test_each_wrong_line_of_07_has_a_hint_of_its_own():
    found = softmax.wrong()
    lines = {step.line for step in found.steps if step.line}
    wrong = {step.line for step in found.steps if step.wrong and step.line}
    passed = next(iter(wrong - {found.first.line, found.largest.line}))
    sound = next(iter(lines - wrong))
    told = [
        (found.largest, "largest error"),
        (found.largest.line.number, "largest error"),
        (passed, passed.place, "from wrong inputs"),
        (sound.place, sound.place, "agrees with PyTorch"),
        (7, "does not come from 7"),
    ]
    check_hints("07", [((line, op.Softmax), *words) for line, *words in told])


def test_each_wrong_translation_of_07_has_a_hint_of_its_own():
    told = [
        ({}, "must be a function"),
        (lambda x: x, "stops the exporter"),
        (softmax.given()[softmax.SOFTMAX], "first wrong value is still at", "`axis`"),
        (lambda x, dim, dtype=None: op.Softmax(x, axis=-1), "over dim=0 it is wrong"),
    ]
    line = softmax.wrong().first.line
    check_hints("07", [((line, function), *words) for function, *words in told])


# ---------------------------------------------------------------- 08


def test_each_wrong_translation_of_08_has_its_own_hint():
    def constant(x, beta):
        return op.Mul(x, op.Sigmoid(op.Mul(x, op.Constant(value_float=beta))))

    wrong = [
        (constant, "passes float32 and fails float16", "CastLike"),
        (lambda x, beta: op.Mul(x, op.Sigmoid(x)), "beta = 2.5 and float32"),
    ]
    check_hints("08", wrong)


# ---------------------------------------------------------------- 09

QUICK = {"opsets", "latency", "hot lines"}
BATCH = {"x": {0: "batch"}}


def audited(dynamic=BATCH, skip=(), change=lambda x: x + 1):
    class Fixed(type(lessons.exercise("09").given)):
        def forward(self, x):
            return (change(x) * self.weight).reshape(x.shape[0], -1)

    x = torch.ones(2, 4, 2)
    return audit(Fixed().eval(), x, dynamic_shapes=dynamic, skip={*QUICK, *skip})


def test_09_the_three_faults_are_told_worst_first():
    given = lessons.exercise("09").given
    answer = audit(given, torch.ones(2, 4, 2), dynamic_shapes=BATCH, skip=QUICK)
    assert {fault.line.text for fault in answer.faults} == {
        "rows = int(x.shape[0])",
        "x += 1",
        "x = F.dropout(x * self.weight, 0.1)",
    }
    check_hints("09", [(answer, "The first: ", answer.faults[0].sentence, answer.faults[0].repair)])


def test_09_a_green_audit_of_less_than_was_asked_is_found():
    wrong = [
        (audited(dynamic=None), "one batch size"),
        (audited(skip=("contract",)), "skip"),
        (audited(change=lambda x: x + 2), "computes something else"),
    ]
    check_hints("09", wrong)
