"""Every exercise: the blank fails, the solution passes, each typical slip has a hint of its own."""

import functools
import math
import re
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnxscript import opset20 as op

from onnx_workbench import audit, export, lessons, load, stack
from onnx_workbench.errors import InputError
from onnx_workbench.lessons import course
from onnx_workbench.lessons.exercises import (
    batch,
    breaks,
    hot,
    length,
    mend,
    node,
    ratio,
    rigged,
    simulated,
)
from onnx_workbench.lessons.exercises import clocks as clocks_room
from onnx_workbench.lessons.task import Exercise
from onnx_workbench.lessons.workbook import EXERCISES
from onnx_workbench.lines.hotspots import Spot
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


# ---------------------------------------------------------------- every exercise


def test_every_lesson_but_the_map_ends_in_an_exercise():
    assert {course.lesson(number) for number in EXERCISES} == course.LESSONS.keys() - {"00"}
    assert tuple(EXERCISES) == course.SOLVABLE


@pytest.mark.parametrize("number", EXERCISES)
def test_a_blank_gets_a_hint_how_to_begin(number):
    task = lessons.exercise(number)
    for blank in (..., None, "", "  "):
        assert hint(number, blank) == task.start
    assert task.start.startswith(("Begin with ", "Open "))


@pytest.mark.parametrize("number", EXERCISES)
def test_the_solution_passes_and_is_recorded(number):
    task = lessons.exercise(number)
    verdict = task.check(task.solution().value)
    assert verdict, verdict
    assert repr(verdict).startswith("Right. ")
    assert lessons.progress().solved == {number}


@pytest.mark.parametrize("number", EXERCISES)
def test_the_task_reads_as_text_and_as_markdown(number):
    task = lessons.exercise(number)
    assert repr(task).startswith(f"Exercise {number}: {task.title}\n\n")
    assert task._repr_markdown_().startswith(f"**Exercise {number}: {task.title}**\n\n")
    assert task.solution()._repr_markdown_() == f"```python\n{task.solution().text}\n```"
    assert not re.search(r"\d\.\d+\.\d", task.text), "a task names no version"


@pytest.mark.parametrize("number", ["66", "1", 1, ""])
def test_an_unknown_number_lists_the_known_ones(number):
    with pytest.raises(InputError) as caught:
        lessons.exercise(number)
    assert str(caught.value) == (
        f"There is no exercise {number!r}. There are {', '.join(map(repr, EXERCISES))}; "
        "pass one of these, with its leading zero."
    )


def test_an_answer_that_raises_is_told_with_its_line():
    def judge(answer):
        return answer()

    def shaky():
        return [][3]

    task = Exercise("01", "Any", "Do.", start="Begin.", judge=judge, source="")
    assert task.check(shaky).text == (
        "Your answer raised IndexError: list index out of range at "
        f"test_exercises.py:{shaky.__code__.co_firstlineno + 1}\n    return [][3]"
    )


def test_an_interruption_is_no_wrong_answer():
    def judge(answer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Exercise("01", "Any", "Do.", start="Begin.", judge=judge, source="").check(1)


def test_what_a_verdict_quotes_is_escaped():
    verdict = lessons.exercise("04").check("<script>alert(1)</script>")
    assert "<script>" in repr(verdict)
    assert "<script>" not in verdict._repr_html_()
    assert "&lt;script&gt;" in verdict._repr_html_()


def test_a_right_answer_that_cannot_be_saved_is_still_right(tmp_path):
    (tmp_path / "home").write_text("in the way")
    task = lessons.exercise("05")
    verdict = task.check(task.solution().value)
    assert verdict
    assert repr(verdict).startswith(
        "Right. Next: exercise 05b, in this lesson.\nYour progress could not be saved"
    )


# ---------------------------------------------------------------- 01


def test_each_wrong_clock_of_01_has_its_own_hint():
    clocks = LOOKED().clocks
    torch_version = next(p.version for p in LOOKED().packages if p.name == "torch")
    wrong = {
        torch_version: f"{torch_version} is the version of a package.",
        float(".".join(torch_version.split(".")[:2])): "is the version of a package.",
        clocks.default.opset: "unless told otherwise. It loads, and a higher one does too.",
        clocks.loads.opset: f"ONNX Runtime would load opset {clocks.loads.opset}, but there is no",
        clocks.writes.ir: f"{clocks.writes.ir} is an IR version",
        "high": "An opset is a whole number, an int; this is a str.",
        True: "An opset is a whole number, an int; this is a bool.",
        9: "Opset 9 is lower than need be.",
        99: "No opset 99 comes out of this exporter",
    }
    for answer, expected in wrong.items():
        assert expected in hint("01", answer)


def test_the_hint_of_01_tells_what_onnx_knows_from_what_is_loaded(monkeypatch):
    clocks = Clocks(Reading(20, 10), Reading(22, 10), knows=Reading(26, 13), loads=Reading(24, 11))
    monkeypatch.setattr(clocks_room, "facts", lambda: Stack((), ("onnxruntime",), clocks, ""))
    assert "The onnx package has definitions up to opset 26." in hint("01", 26)
    assert "ONNX Runtime would load opset 24" in hint("01", 24)
    assert lessons.exercise("01").check(22)


# ---------------------------------------------------------------- 02


def test_a_function_of_02_that_still_breaks_is_told_where_and_why():
    def steady(image):
        image = image * 2
        if image.mean() > 1:
            return image - 1
        return image + 0.25

    text = hint("02", steady)
    assert text.startswith(
        "The numbers are right, and the graph still breaks at test_exercises.py:"
    )
    assert "if image.mean() > 1:" in text


def test_a_baked_branch_of_02_is_told_by_the_branch_that_is_wrong():
    dark = hint("02", lambda image: image * 2 - 1)
    bright = hint("02", lambda image: image * 2 + 0.25)
    assert dark.startswith("On a dark image the numbers differ: 25 of 25 differ.")
    assert bright.startswith("On a bright image the numbers differ: 25 of 25 differ.")


def test_another_shape_or_dtype_in_02_is_told():
    right = lessons.exercise("02").solution().value
    assert hint("02", lambda image: right(image).double()).startswith(
        "It returns another kind of value than brighten(): a is float32[1, 5, 5], b is float64"
    )
    assert "b is float32[5, 5]" in hint("02", lambda image: right(image)[0])


def test_02_takes_a_function_and_knows_an_empty_one():
    def steady(image): ...

    assert hint("02", steady) == breaks.EXERCISE.start
    assert hint("02", torch.ones(3)) == (
        "A function is asked for, and this is a Tensor: pass the function itself, without "
        "calling it."
    )


def test_torch_cond_solves_02_too():
    def steady(image):
        image = image * 2
        return torch.cond(image.mean() > 1, lambda x: x - 1, lambda x: x + 0.25, (image,))

    assert lessons.exercise("02").check(steady)


def test_the_task_of_02_shows_the_function_that_it_hands_out():
    import inspect
    import textwrap

    lines = textwrap.dedent(inspect.getsource(lessons.exercise("02").given)).splitlines()
    shown = [line for line in lines[1:] if '"""' not in line]
    for line in shown:
        assert line in lessons.exercise("02").text
    assert len(shown) == 4


# ---------------------------------------------------------------- 03


def exported(name="reader.onnx", model=None, opset=batch.OPSET, dynamic=True):
    digits = lessons.digits()
    axes = {"images": {0: "batch"}} if dynamic else None
    return export(
        model or digits.model, digits.images[:2], name, dynamic_shapes=axes, opset_version=opset
    )


def test_each_wrong_file_of_03_has_its_own_hint():
    static = hint("03", exported(dynamic=False))
    assert static.startswith("It does not run with batch 1: ")
    assert static.endswith("when you export: dynamic_shapes={'images': {0: 'batch'}}.")
    default = exported(opset=None)
    assert hint("03", default) == (
        f"Its opset is {default.opset}, and 18 is asked for: pass opset_version=18."
    )
    untrained = type(lessons.digits().model)().eval()
    assert re.fullmatch(
        r"It runs, and its numbers are not those of `digits.model`: [\d]+ of 10 differ. It reads "
        r"\d+% of the test digits, the model \d+%. Export the trained `digits.model`.",
        hint("03", exported(model=untrained)),
    )


def test_03_wants_what_export_returns():
    file = exported()
    assert hint("03", str(file.path)).startswith("That is a path.")
    assert hint("03", Path(file.path)).startswith("That is a path.")
    assert hint("03", lessons.digits().model).startswith("That is the PyTorch model itself.")
    assert hint("03", 18) == ("That is a int. Answer with what ow.export() returned, an Artifact.")


def test_a_file_of_03_with_its_weights_elsewhere_is_told():
    proto = exported().proto
    onnx.save(proto, "two.onnx", save_as_external_data=True, location="w.bin", size_threshold=256)
    assert hint("03", load("two.onnx")).startswith("It is 2 files, two.onnx and w.bin, and")


def test_a_loaded_file_solves_03_too():
    assert lessons.exercise("03").check(load(exported().path))


# ---------------------------------------------------------------- 04


def test_each_wrong_name_of_04_has_its_own_hint():
    origins = node.origins()
    wanted, *others = (name for name, origin in origins.items() if node.wanted(origin))
    assert others == [], "the answer must be one node"
    same_line = [
        name
        for name, o in origins.items()
        if o.line and o.line.text == node.LINE and name != wanted
    ]
    elsewhere = next(n for n in same_line if origins[n].operator == "MatMul")
    other_op = next(n for n in same_line if origins[n].operator != "MatMul")
    other_line = next(name for name, o in origins.items() if o.operator == "Softmax")
    wrong = {
        elsewhere: "The right line and the right operator, in another block: ",
        other_op: "The right line: it became more than one node, and ",
        other_line: f"{other_line!r} exists, and it comes from another line:\n    transformer.py:",
        origins[wanted].fx: f"{origins[wanted].fx!r} is the name of an FX node.",
        "MatMul": "'MatMul' is an operator, and 24 nodes of this graph have it.",
        "node_nothing": "There is no node 'node_nothing' in the encoder",
        7: "The name of a node is asked for, as a string; this is a int.",
    }
    for answer, expected in wrong.items():
        assert hint("04", answer).startswith(expected)


def test_the_line_of_04_is_a_line_of_the_encoder():
    import inspect

    source = inspect.getsource(type(lessons.encoder().model.blocks[1].attention))
    assert [line.strip() for line in source.splitlines()].count(node.LINE) == 1
    assert lessons.encoder().model.get_submodule(node.BLOCK)


# ---------------------------------------------------------------- 05


def test_each_slip_of_05_has_its_own_hint():
    times = ratio.recording()
    hints = [hint("05", mistake(times)) for mistake, _ in ratio.MISTAKES]
    assert hints == [text for _, text in ratio.MISTAKES]
    assert len(set(hints)) == len(hints)
    assert hint("05", 7).startswith("This is none of the usual slips.")
    assert hint("05", "fast") == "One number is asked for, and this is a str."
    assert hint("05", math.nan).startswith("This is none of the usual slips.")


def test_the_slips_of_05_lie_further_apart_than_an_answer_may_be_rounded():
    times = ratio.recording()
    values = sorted([ratio.honest(times), *(float(slip(times)) for slip, _ in ratio.MISTAKES)])
    assert np.diff(np.log(values)).min() > 3 * ratio.CLOSE
    assert lessons.exercise("05").check(round(ratio.honest(times), 2))


def test_the_honest_ratio_of_05_is_near_the_one_that_was_put_in():
    assert ratio.honest(ratio.recording()) == pytest.approx(1.4, rel=0.05)


# ---------------------------------------------------------------- 05b

FIVE = {"threads", "copy", "first call", "mode", "order"}
MENDED = """
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


def mended(*swaps):
    """The benchmark above, with lines put back to what they were before it was mended."""
    source = MENDED
    for old, new in swaps:
        assert old in source
        source = source.replace(old, new)
    names = {"torch": torch, "statistics": statistics}
    exec(source, names)
    return names["benchmark"]


ONE_BY_ONE = (
    "rounds = [seconds(ours) / seconds(theirs) for _ in range(40)]",
    "rounds = [sum([seconds(ours) for _ in '_' * 40]) / sum([seconds(theirs) for _ in '_' * 40])]",
)
STILL_RIGGED = {
    "threads": (
        [("threads=1", "threads=4")],
        "All five are named, and the threads are still unequal: PyTorch ran on 1, ONNX Runtime on "
        "4.",
    ),
    "threads by default": (
        [("threads=1", "")],
        "All five are named, and the threads are still unequal: PyTorch ran on 1, ONNX Runtime on "
        "4.",
    ),
    "as many threads as there are": (
        [("threads=1", "threads=0")],
        "All five are named, and the threads are still unequal: PyTorch ran on 1, ONNX Runtime on "
        "4.",
    ),
    "training": (
        [("    model.eval()\n", "")],
        "The model was in training mode in 201 of 201 calls: model.eval().",
    ),
    "gradients": (
        [("torch.inference_mode()", "torch.enable_grad()")],
        "The model is in eval mode, good. In 201 of 201 calls PyTorch still kept what gradients "
        "need, which ONNX Runtime never does: torch.inference_mode().",
    ),
    "copy": (
        [("{'x': array}".replace("'", '"'), '{"x": array.copy()}')],
        "ONNX Runtime got 201 inputs, each a copy of its own, and the other side none. Make the "
        "array once, before the clock starts.",
    ),
    "copy on the other side": (
        [("model(x)", "model(x.clone())")],
        "PyTorch got 201 inputs, each a copy of its own, and the other side none. Make the array "
        "once, before the clock starts.",
    ),
    "order": (
        [ONE_BY_ONE],
        "In 402 calls the turn changed 3 times. Let them run in turns, in 10 rounds or more, and "
        "divide within each round.",
    ),
    "first call": (
        [("ours(), theirs()", "pass"), ("statistics.median", "statistics.mean")],
        "The first call is still counted: it says 1.43 where first calls take long, and 1.25 where "
        "they do not. Call each once before the first round.",
    ),
    "drift": (
        [("range(5)", "range(50)"), ("range(40)", "range(10)")],
        "In turns, and it still follows the machine: it says 1.19 where that slows down, and 1.25 "
        "where it does not. Make the blocks shorter, or their order random; divide within each "
        "round, then take the median.",
    ),
    "upside down": (
        [("seconds(ours) / seconds(theirs)", "seconds(theirs) / seconds(ours)")],
        "That is upside down: PyTorch's time goes on top. A smaller time is better.",
    ),
    "uneven": (
        [("seconds(ours) / ", "2 * seconds(ours) / ")],
        "Equal terms now, and on a machine without any pitfall it says 2.50; the truth is 1.25. "
        "Time the calls alone, as many on each side.",
    ),
    "another clock": (
        [("clock()", "0.0"), ("/ seconds", "- seconds")],
        "All five are named. Take the time from `clock`, which is handed to your benchmark.",
    ),
    "one side missing": (
        [("def theirs(): session.run(None, {'x': array})".replace("'", '"'), "theirs = ours")],
        "All five are named. Your benchmark never runs ONNX Runtime.",
    ),
    "no number": (
        [("return statistics.median(rounds)", "return rounds")],
        "One number is asked of the benchmark, and it gave a list.",
    ),
}


@pytest.mark.parametrize("flaw", STILL_RIGGED)
def test_a_benchmark_of_05b_that_is_still_rigged_is_told_how(flaw):
    swaps, expected = STILL_RIGGED[flaw]
    assert hint("05b", (mended(*swaps), FIVE)) == expected


def test_05b_takes_another_honest_benchmark():
    two = mended(("num_threads(1)", "num_threads(2)"), ("threads=1", "threads=2"))
    assert lessons.exercise("05b").check((mended(), FIVE))
    assert lessons.exercise("05b").check((two, sorted(FIVE)))


def test_a_copy_on_both_sides_of_05b_is_fair_and_not_what_is_asked():
    both = [("model(x)", "model(x.clone())"), ('{"x": array}', '{"x": array.copy()}')]
    assert hint("05b", (mended(*both), FIVE)).startswith("Equal terms now, and on a machine")


def test_05b_tells_which_flaw_is_missing_and_which_is_none():
    old = rigged.benchmark
    for flaw in FIVE:
        assert hint("05b", (old, FIVE - {flaw})) == (
            f"1 of the five flaws not named yet. {rigged.NUDGES[flaw]}"
        )
    for word in rigged.SUSPECTS.keys() - FIVE:
        assert hint("05b", (old, FIVE | {word})) == (
            f"{word!r} is no flaw here. {rigged.INNOCENT[word]}"
        )
    assert hint("05b", (old, {*FIVE, "clock"})).startswith("'clock' is not on the list. Choose")
    assert hint("05b", (old, FIVE)).startswith("All five are named, and the threads are still")
    for answer in (old, 3, (old, "threads"), (1, FIVE), (old, 2), (old, FIVE, 3)):
        assert hint("05b", answer).startswith("Two things are asked for: ")


def test_each_suspect_of_05b_is_either_a_flaw_with_a_nudge_or_innocent():
    assert rigged.NUDGES.keys() == FIVE
    assert rigged.INNOCENT.keys() == rigged.SUSPECTS.keys() - FIVE


def test_the_rigged_benchmark_has_the_five_flaws_and_the_machine_sees_them():
    said, machine = simulated.run(rigged.benchmark)
    ours, theirs = machine.of("PyTorch"), machine.of("ONNX Runtime")
    assert said == pytest.approx(3.28, abs=0.01)
    assert ({call.threads for call in ours}, {call.threads for call in theirs}) == ({1}, {4})
    assert all(call.training and call.gradients for call in ours)
    assert (machine.copies("PyTorch"), machine.copies("ONNX Runtime")) == (1, 100)
    assert (len(ours), len(theirs), machine.turns) == (100, 100, 1)


def test_a_benchmark_of_05b_leaves_torch_as_it_was():
    def raises(model, open_session, x, clock):
        torch.set_num_threads(7)
        torch.set_grad_enabled(False)
        raise ValueError("no time")

    before = torch.get_num_threads()
    assert hint("05b", (raises, FIVE)).startswith("Your answer raised ValueError: no time at test_")
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (before, True)


def test_a_session_of_05b_takes_arrays_as_the_real_one_does():
    def tensors(model, open_session, x, clock):
        open_session(1).run(None, {"x": x})

    assert "session.run takes NumPy arrays, and got a Tensor" in hint("05b", (tensors, FIVE))


# ---------------------------------------------------------------- 05c


def spot(number, ort, kernels=1, torch=1.0, noise=0.0):
    """Three runs of a line, of ``ort`` us each; the middle one is the typical."""
    line = Line("/home/ada/transformer.py", number, "forward", f"y{number} = f(x)")
    runs = tuple(ort + noise * swing for swing in (-1, 0, 1))
    names = tuple(f"k{number}_{i}" for i in range(kernels))
    return Spot(line.place, line, runs, ort, names, ("name",), fused=False, torch=torch)


def asked(monkeypatch, answer, *spots):
    monkeypatch.setattr(hot, "measured", lambda: spots)
    return lessons.exercise("05c").check(answer)


QUIET = (spot(1, 50), spot(2, 20, torch=9.0), spot(3, 20, kernels=7), spot(4, 10))


@pytest.mark.parametrize(
    "answer", [1, "1", " y1 = f(x) ", "transformer.py:1", QUIET[0].line, QUIET[0]]
)
def test_05c_takes_a_line_in_each_way_that_it_can_be_named(monkeypatch, answer):
    assert asked(monkeypatch, answer, *QUIET)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            2,
            "PyTorch spends the longest on that line. In ONNX Runtime it takes 20 % of the time in "
            "kernels, and another line takes more: read the column ORT.",
        ),
        (
            3,
            "No line has more kernels, 7 kernels, and they are short: together 20 % of the time in "
            "kernels, and another line takes more. Count the time, not the kernels.",
        ),
        (
            4,
            "That line takes 10 % of the time in kernels, and another line takes more. Look down "
            "the column `share` of the report.",
        ),
        (
            "def forward(x):",
            "ONNX Runtime runs no kernel for 'def forward(x):'. Copy a line of the encoder from "
            "the report of ow.profile(): its text, its place or its number.",
        ),
        (
            1.0,
            "A line is asked for, and this is a float. Answer with its text, its place such as "
            "'transformer.py:12', or its number.",
        ),
        (
            True,
            "A line is asked for, and this is a bool. Answer with its text, its place such as "
            "'transformer.py:12', or its number.",
        ),
    ],
)
def test_each_wrong_line_of_05c_has_its_own_hint(monkeypatch, answer, expected):
    assert asked(monkeypatch, answer, *QUIET).text == expected


def test_05c_takes_a_line_that_the_noise_cannot_tell_from_the_first(monkeypatch):
    loud = (spot(1, 50, noise=20), spot(2, 40), spot(3, 10))
    assert asked(monkeypatch, 2, *loud)
    assert not asked(monkeypatch, 3, *loud)
    assert not asked(monkeypatch, 2, spot(1, 50, noise=2), *loud[1:])


def test_05c_takes_a_line_that_differs_by_less_than_matters(monkeypatch):
    assert asked(monkeypatch, 2, spot(1, 50.0), spot(2, 49.0))
    assert not asked(monkeypatch, 2, spot(1, 52.0), spot(2, 48.0))


def test_a_machine_that_slows_down_moves_no_share_of_05c():
    slowed = tuple(
        replace(spot, runs=(spot.runs[0], 3 * spot.runs[1], 9 * spot.runs[2])) for spot in QUIET
    )
    assert hot.shares(slowed[0], slowed) == (0.5, 0.5, 0.5)


# ---------------------------------------------------------------- 06


def positions(body):
    """A model of 06 whose ``forward`` is ``body(self, x)``."""
    return type("Mended", (length.Positions,), {"forward": body})().eval()


def test_06_takes_a_model():
    assert hint("06", length.Positions).startswith("That is the class.")
    assert hint("06", 3) == "That is a int. Answer with a torch.nn.Module."


def test_the_model_of_06_itself_broadcasts_one_word():
    assert hint("06", length.given()).startswith(
        "With 1 word it is wrong, and nothing is raised: a is float32[2, 1, 8], b is "
        "float32[2, 16, 8], where b is yours."
    )


def test_each_slip_of_06_has_its_own_hint():
    last = positions(lambda self, x: x + self.table[-x.shape[1] :])
    assert "numbers are wrong: " in hint("06", last)
    assert "Word i gets row i of the table" in hint("06", last)
    short = positions(lambda self, x: x + self.table[: min(x.shape[1], 16)])
    assert hint("06", short).startswith("With 17 words your model itself raises RuntimeError: ")
    frozen = positions(lambda self, x: x + self.table[: int(x.shape[1])])
    assert hint("06", frozen).startswith(
        "PyTorch's own numbers are right, and the length is still frozen.\nMended could not be "
        "captured at test_exercises.py:"
    )


def test_a_decision_on_the_length_in_06_is_told_with_its_line():
    def forward(self, x):
        rows = self.table if x.shape[1] > 32 else self.table[:32]
        return x + rows[: x.shape[1]]

    told = hint("06", positions(forward))
    assert told.startswith("It was exported, and ONNX Runtime is wrong with 33 words.\nBROKEN: ")
    assert "rows = self.table if x.shape[1] > 32 else self.table[:32]" in told


def test_the_file_of_06_is_run_and_not_only_the_model(monkeypatch):
    monkeypatch.setattr(length, "_agrees", lambda file, words: words != 40)
    told = hint("06", positions(lambda self, x: x + self.table[: x.shape[1]]))
    assert told.startswith("It was exported, and ONNX Runtime is wrong with 40 words.\nKEPT: ")


# ---------------------------------------------------------------- 08


def test_08_a_constant_of_the_wrong_dtype_passes_float32_and_is_found():
    from onnxscript import opset20 as op

    def slip(x, beta):
        return op.Mul(x, op.Sigmoid(op.Mul(x, op.Constant(value_float=beta))))

    assert hint("08", slip).startswith("It passes float32 and fails float16: a number that you")


def test_08_a_translation_that_forgets_beta_is_found():
    from onnxscript import opset20 as op

    found = hint("08", lambda x, beta: op.Mul(x, op.Sigmoid(x)))
    assert found.startswith("It runs, and with beta = 2.5 and float32 its numbers are not those")


def test_08_what_is_no_function_is_told():
    assert hint("08", 3) == "That is a int. Answer with a function of (x, beta)."
    assert hint("08", {"demo::swishy": 1}).startswith("Answer with the function alone")


# ---------------------------------------------------------------- 09

QUICK = {"opsets", "latency", "hot lines"}


@functools.cache
def audited(dynamic=True, skip=(), change=lambda x: x + 1):
    class Mended(type(lessons.exercise("09").given)):
        def forward(self, x):
            return (change(x) * self.weight).reshape(x.shape[0], -1)

    batch = {"x": {0: "batch"}} if dynamic else None
    return audit(Mended().eval(), torch.ones(2, 4, 2), dynamic_shapes=batch, skip={*QUICK, *skip})


def test_09_the_three_faults_are_told_worst_first():
    given = lessons.exercise("09").given
    answer = audit(given, torch.ones(2, 4, 2), dynamic_shapes={"x": {0: "batch"}}, skip=QUICK)
    assert {fault.line.text for fault in answer.faults} == {
        "rows = int(x.shape[0])",
        "x += 1",
        "x = F.dropout(x * self.weight, 0.1)",
    }
    assert "The first: A dimension that was asked to stay dynamic" in hint("09", answer)


def test_09_a_green_audit_of_less_than_was_asked_is_found():
    assert hint("09", audited(dynamic=False)).startswith("It is green for one batch size alone.")
    assert hint("09", audited(skip=("contract",))).startswith("It is green because stages were")
    assert "computes something else" in hint("09", audited(change=lambda x: x + 2))
    assert hint("09", "green") == "That is a str. Answer with what ow.audit() returned."


# ---------------------------------------------------------------- 07: the wrong translation


def softmax(x, dim, dtype=None):
    return op.Softmax(x, axis=dim)


@pytest.fixture(scope="module")
def planted():
    """The encoder with the wrong translation, compared once for all."""
    return mend._compared(mend.planted())


@pytest.fixture
def once(planted, monkeypatch):
    """The judge looks at that comparison; a translation of the learner's is compared anew."""
    compare = mend._compared
    monkeypatch.setattr(
        mend, "_compared", lambda table, seed=0: compare(table, seed) if seed else planted
    )


@pytest.mark.usefixtures("once")
def test_each_wrong_line_of_07_has_a_hint_of_its_own(planted):
    first, wrong = planted.first.line, [step for step in planted.steps if step.wrong]
    sound = next(step.line for step in planted.steps if step.line and not step.wrong)
    passed = next(
        step.line
        for step in wrong
        if step.line and step.line.number not in (first.number, planted.largest.line.number)
    )
    told = {
        planted.first: "The first of the pair is a step, and its line is asked for",
        planted.largest.line: f"{planted.largest.line.place} has the largest error of all.",
        planted.largest.line.number: f"{planted.largest.line.place} has the largest error of all.",
        passed: f"What {passed.place} makes is wrong, and so is what it was made of",
        sound.place: f"All that {sound.place} makes agrees with PyTorch.",
        7: "The first wrong value does not come from 7. Export the encoder",
    }
    for line, words in told.items():
        assert hint("07", (line, softmax)).startswith(words)


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(
    ("function", "words"),
    [
        ({mend.SOFTMAX: softmax}, "The line is right. The second must be a function, not a dict."),
        (lambda x: x, "The line is right, and your translation stops the exporter: "),
        (mend.planted()[mend.SOFTMAX], "The line is right, and with your translation the first "),
        (
            lambda x, dim, dtype=None: op.Softmax(x, axis=-1),
            "The line is right, and so is the encoder with your translation. But the function "
            "stands for every softmax, and over dim=0 it is wrong: pass on `dim`.",
        ),
    ],
    ids=["a dict", "other arguments", "still wrong", "one axis"],
)
def test_each_wrong_translation_of_07_has_a_hint_of_its_own(planted, function, words):
    assert hint("07", (planted.first.line, function)).startswith(words)


@pytest.mark.usefixtures("once")
def test_the_line_of_07_may_be_given_as_it_is_by_number_or_by_place(planted):
    line = planted.first.line
    for given in (line, line.number, line.place):
        assert mend._line(given) is None
    for answer in (line, (line,), [line, softmax]):
        assert hint("07", answer).startswith("A pair is asked for, (line, function), and this is a")
