import pytest
import torch

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
    with pytest.raises(InputError) as caught:
        lessons.draw_digit("reader.onnx")
    assert str(caught.value) == (
        "draw_digit() was given a str, and it takes a callable from images to logits. "
        "Pass an Artifact, a model or a function."
    )


def test_a_page_without_a_kernel_gets_the_drawing_as_text_and_picture():
    pad = lessons.draw_digit(lessons.digits().model)
    data, _ = pad._repr_mimebundle_()
    assert set(data) == {"text/plain", "image/svg+xml", VIEW}
    assert data["text/plain"] == repr(pad)
    assert data["image/svg+xml"].startswith("<svg ")


# ---------------------------------------------------------------- explore


def test_moving_a_control_runs_the_function_again():
    shown = lessons.explore(lambda batch, kind: f"{batch} {kind}", batch=[1, 8], kind=["a", "b"])
    assert repr(shown) == "batch=1 of 1, 8\nkind='a' of 'a', 'b'\n1 a"
    shown.controls["batch"].value = 8
    shown.controls["kind"].value = "b"
    assert shown.chosen == {"batch": 8, "kind": "b"}
    assert shown.result == "8 b"
    assert ">8 b</pre>" in shown.screen.value


def test_numbers_get_a_slider_and_words_get_buttons():
    shown = lessons.explore(lambda **_: "", batch=[1, 2.5], kind=["a", 1], flag=[True, False])
    assert {name: type(control).__name__ for name, control in shown.controls.items()} == {
        "batch": "SelectionSlider",
        "kind": "ToggleButtons",
        "flag": "ToggleButtons",
    }


def test_text_of_a_result_is_escaped_and_its_own_html_is_kept():
    class Told:
        def _repr_html_(self):
            return "<b>mine</b>"

    results = {"text": "<script>", "own": Told()}
    shown = lessons.explore(lambda kind: results[kind], kind=["text", "own"])
    assert "&lt;script&gt;" in shown.screen.value
    shown.controls["kind"].value = "own"
    assert shown.screen.value == "<b>mine</b>"


def test_an_error_is_shown_inside_and_the_next_choice_runs():
    shown = lessons.explore(lambda by: 6 // by, by=[0, 2])
    assert isinstance(shown.error, ZeroDivisionError)
    assert repr(shown).startswith("by=0 of 0, 2\nZeroDivisionError: ")
    assert "ZeroDivisionError: " in shown.screen.value
    shown.controls["by"].value = 2
    assert (shown.error, shown.result) == (None, 3)


def test_the_screen_is_dimmed_while_the_function_runs():
    screens = []
    shown = lessons.explore(lambda n: screens.append(shown.screen.value if n else ""), n=[0, 1])
    shown.controls["n"].value = 1
    assert screens[1].startswith('<div style="opacity:.35">')
    assert "opacity" not in shown.screen.value


def test_an_interrupted_run_leaves_what_was_shown_before():
    def run(n):
        if n:
            raise KeyboardInterrupt
        return "first"

    shown = lessons.explore(run, n=[0, 1, 2])
    before = shown.screen.value
    with pytest.raises(KeyboardInterrupt):
        shown.controls["n"].value = 1
    assert shown.screen.value == before


def test_a_plot_becomes_a_picture_once():
    from matplotlib import pyplot as plt

    before = plt.get_fignums()
    shown = lessons.explore(lambda n: plt.figure().subplots(), n=[1])
    assert shown.screen.value.startswith('<img alt="plot" ')
    assert plt.get_fignums() == before, "an open figure is shown again by the inline backend"
    data = shown._repr_mimebundle_()
    assert data["text/plain"] == "n=1 of 1\n(a plot)"
    assert {"image/png", VIEW} <= set(data)


@pytest.mark.parametrize("choices", [{}, {"batch": []}])
def test_without_a_choice_there_is_nothing_to_explore(choices):
    with pytest.raises(InputError) as caught:
        lessons.explore(print, **choices)
    assert str(caught.value) == (
        "explore() was given nothing to choose from. Pass the values of each parameter, as in "
        "explore(run, batch=[1, 8, 64])."
    )
