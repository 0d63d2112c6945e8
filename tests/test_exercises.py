"""Every exercise: the blank fails, the solution passes, each typical slip has a hint of its own."""

import functools
import math
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from onnx_workbench import export, lessons, load, stack
from onnx_workbench.errors import InputError
from onnx_workbench.lessons import course
from onnx_workbench.lessons.exercises import batch, breaks, node, ratio
from onnx_workbench.lessons.exercises import clocks as clocks_room
from onnx_workbench.lessons.task import Exercise
from onnx_workbench.lessons.workbook import EXERCISES
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


@pytest.mark.parametrize("number", ["06", "1", 1, ""])
def test_an_unknown_number_lists_the_known_ones(number):
    with pytest.raises(InputError) as caught:
        lessons.exercise(number)
    assert str(caught.value) == (
        f"There is no exercise {number!r}. There are '01', '02', '03', '04', '05', '07'; "
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
        "Right. That was the last one.\nYour progress could not be saved"
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
    return export(model or digits.model, name, digits.images[:2], dynamic=axes, opset=opset)


def test_each_wrong_file_of_03_has_its_own_hint():
    static = hint("03", exported(dynamic=False))
    assert static.startswith("It does not run with batch 1: ")
    assert static.endswith("when you export: dynamic={'images': {0: 'batch'}}.")
    default = exported(opset=None)
    assert hint("03", default) == (
        f"Its opset is {default.opset}, and 18 is asked for: pass opset=18."
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
    wanted, *others = (name for name, origin in origins.items() if origin.wanted)
    assert others == [], "the answer must be one node"
    same_line = [name for name, o in origins.items() if o.text == node.LINE and name != wanted]
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
