import nbformat
import pytest
import torch
from nbclient import NotebookClient

from onnx_workbench import lessons
from onnx_workbench.errors import InputError

VIEW = "application/vnd.jupyter.widget-view+json"


# ---------------------------------------------------------------- the pad


def test_the_pad_starts_with_a_real_digit_already_read():
    pad = lessons.draw_digit(lessons.digits().model)
    assert pad.pixels == pad.samples[0]
    assert len(pad.samples) == 10
    assert pad.digit == lessons.digits().test_labels[0]
    assert sum(pad.probabilities) == pytest.approx(1)
    assert repr(pad) == "A pad to draw a digit on. It shows a 6; the reader says 6."


def test_the_samples_are_one_of_each_digit():
    pad = lessons.draw_digit(lessons.digits().model)
    images = torch.tensor(pad.samples).reshape(10, 1, 8, 8)
    assert sorted(lessons.digits().model(images).argmax(1).tolist()) == list(range(10))


def test_the_reader_is_handed_one_image_of_the_pixels_as_they_change():
    seen = []

    def reader(images):
        seen.append(images)
        return torch.eye(10)[[len(seen) % 10]] * 9

    pad = lessons.draw_digit(reader)
    pad.pixels = [index / 63 for index in range(64)]
    assert [(image.shape, image.dtype) for image in seen] == [((1, 1, 8, 8), torch.float32)] * 2
    assert seen[1].flatten().tolist() == pytest.approx(pad.pixels)
    assert pad.digit == 2
    assert repr(pad) == "A pad to draw a digit on. The reader says 2."


def test_a_reader_that_fails_is_told_on_the_pad_and_the_next_drawing_is_read():
    def reader(images):
        if images.sum() == 0:
            raise RuntimeError("an empty page")
        return torch.eye(10)[[4]]

    pad = lessons.draw_digit(reader)
    pad.pixels = [0.0] * 64
    assert (pad.probabilities, pad.digit, pad.error) == ([], None, "RuntimeError: an empty page")
    assert repr(pad) == "A pad to draw a digit on. RuntimeError: an empty page."
    pad.pixels = [1.0] * 64
    assert (pad.digit, pad.error) == (4, "")


def test_logits_of_another_shape_are_told_on_the_pad():
    pad = lessons.draw_digit(lambda images: torch.zeros(1, 3))
    assert pad.error == "RuntimeError: shape '[10]' is invalid for input of size 3"


def test_what_cannot_be_called_is_no_reader():
    with pytest.raises(InputError, match="got a str"):
        lessons.draw_digit("reader.onnx")


def test_a_page_without_a_kernel_gets_the_drawing_as_text_and_picture():
    pad = lessons.draw_digit(lessons.digits().model)
    data, _ = pad._repr_mimebundle_()
    assert set(data) == {"text/plain", "image/svg+xml", VIEW}
    assert data["text/plain"] == repr(pad)
    assert data["image/svg+xml"].startswith("<svg ")


# ---------------------------------------------------------------- explore


def controls(shown):
    return {control.description: control for control in shown.children[:-1]}


def test_moving_a_control_runs_the_function_again():
    shown = lessons.explore(lambda batch, kind: f"{batch} {kind}", batch=[1, 8], kind=["a", "b"])
    assert repr(shown) == "batch=1 of 1, 8\nkind='a' of 'a', 'b'\n1 a"
    controls(shown)["batch"].value = 8
    controls(shown)["kind"].value = "b"
    assert shown.kwargs == {"batch": 8, "kind": "b"}
    assert shown.result == "8 b"
    assert shown.out.outputs[0]["data"] == {"text/plain": "8 b\n"}
    assert shown._repr_mimebundle_()["text/plain"].endswith("\n8 b")


def test_numbers_get_a_slider_and_words_get_buttons():
    shown = lessons.explore(lambda **_: "", batch=[1, 2.5], kind=["a", 1], flag=[True, False])
    assert {name: type(control).__name__ for name, control in controls(shown).items()} == {
        "batch": "SelectionSlider",
        "kind": "ToggleButtons",
        "flag": "ToggleButtons",
    }


def test_what_a_function_prints_is_shown_and_none_is_not():
    assert repr(lessons.explore(lambda n: print(n + 1), n=[1])) == "n=1 of 1\n2"


@pytest.mark.parametrize("error", [ZeroDivisionError("by 0"), KeyboardInterrupt("by 0")])
def test_an_error_is_shown_and_the_next_choice_runs(error):
    def run(n):
        if n == 0:
            raise error
        return n

    shown = lessons.explore(run, n=[0, 2])
    assert repr(shown) == f"n=0 of 0, 2\n{type(error).__name__}: by 0"
    controls(shown)["n"].value = 2
    assert repr(shown) == "n=2 of 0, 2\n2"


CELL = """
from onnx_workbench import lessons
from matplotlib import pyplot as plt
shown = lessons.explore({function}, n=[1, 2])
shown
"""
KINDS = {
    "lambda n: plt.figure().subplots()": ("(a plot)", "image/png"),
    "lambda n: __import__('IPython').display.HTML('<b>1</b>')": ("<IPython", "text/html"),
}


@pytest.mark.parametrize("function", KINDS)
def test_a_notebook_shows_a_result_in_the_widget_and_nowhere_else(function):
    """Its outputs must be the same with a page (nbclient plays one) and without one (nbval)."""
    cells = [
        CELL.format(function=function),
        "plt.get_fignums(), sorted(shown.out.outputs[0]['data'])",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, kernel_name="python3").execute()
    (shown,), (state,) = (cell.outputs for cell in notebook.cells)
    text, kind = KINDS[function]
    assert shown.data["text/plain"].startswith(f"n=1 of 1, 2\n{text}")
    assert VIEW in shown.data
    assert (kind in shown.data) == (kind == "image/png")
    assert state.data["text/plain"] == f"([], {sorted([kind, 'text/plain'])})"


@pytest.mark.parametrize("choices", [{}, {"batch": []}])
def test_without_a_choice_there_is_nothing_to_explore(choices):
    with pytest.raises(InputError, match="nothing to choose from"):
        lessons.explore(print, **choices)
