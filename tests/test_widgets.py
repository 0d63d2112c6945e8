import pytest
import torch

from onnx_workbench import lessons
from onnx_workbench.errors import InputError
from onnx_workbench.viewer.still import outputs

VIEW = "application/vnd.jupyter.widget-view+json"


# ---------------------------------------------------------------- the pad


def test_the_pad_starts_with_a_real_digit_already_read_and_has_one_of_each():
    digits = lessons.digits()
    pad = lessons.draw_digit(digits.model)
    assert pad.pixels == pad.samples[0]
    assert pad.digit == digits.test_labels[0]
    assert sum(pad.probabilities) == pytest.approx(1)
    images = digits.test_images.flatten(1).tolist()
    labels = [int(digits.test_labels[images.index(sample)]) for sample in pad.samples]
    assert sorted(labels) == list(range(10))
    samples = torch.tensor(pad.samples).reshape(10, 1, 8, 8)
    assert digits.model(samples).argmax(dim=1).tolist() == labels
    (picture, _), (widget, _) = outputs(pad, repr(pad), pad._still())
    assert set(picture) == {"text/plain", "image/svg+xml", "image/png"}
    assert set(widget) == {VIEW}


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
        return torch.zeros(1, 3) if images.sum() == 0 else torch.eye(10)[[4]]

    pad = lessons.draw_digit(reader)
    pad.pixels = [0.0] * 64
    why = "RuntimeError: shape '[10]' is invalid for input of size 3"
    assert (pad.probabilities, pad.digit, pad.error) == ([], None, why)
    assert repr(pad) == f"A pad to draw a digit on. {why}."
    pad.pixels = [1.0] * 64
    assert (pad.digit, pad.error) == (4, "")
    with pytest.raises(InputError, match="got a str"):
        lessons.draw_digit("reader.onnx")


# ---------------------------------------------------------------- explore


def controls(shown):
    return {control.description: control for control in shown.children[:-1]}


def test_moving_a_slider_or_pressing_a_button_runs_the_function_again():
    choices = {"batch": [1, 2.5], "kind": ["a", "b"], "flag": [True, False]}
    shown = lessons.explore(lambda batch, kind, flag: f"{batch} {kind}", **choices)
    assert repr(shown).startswith("batch=1 of 1, 2.5\nkind='a' of 'a', 'b'\nflag=True of ")
    assert [type(control).__name__ for control in controls(shown).values()] == [
        "SelectionSlider",
        *["ToggleButtons"] * 2,
    ]
    controls(shown)["batch"].value = 2.5
    controls(shown)["kind"].value = "b"
    assert shown.kwargs == {"batch": 2.5, "kind": "b", "flag": True}
    assert shown.result == "2.5 b"
    assert shown.out.outputs[0]["data"] == {"text/plain": "2.5 b\n"}
    assert shown._repr_mimebundle_()["text/plain"].endswith("\n2.5 b")


@pytest.mark.parametrize("error", [ZeroDivisionError("by 0"), KeyboardInterrupt("by 0")])
def test_an_error_is_shown_and_the_next_choice_runs(error):
    def run(n):
        if n == 0:
            raise error
        print(n)  # shown, and its None is not

    shown = lessons.explore(run, n=[0, 2])
    assert repr(shown) == f"n=0 of 0, 2\n{type(error).__name__}: by 0"
    controls(shown)["n"].value = 2
    assert repr(shown) == "n=2 of 0, 2\n2"


@pytest.mark.parametrize("choices", [{}, {"batch": []}, {"batch": 64}])
def test_without_a_choice_there_is_nothing_to_explore(choices):
    with pytest.raises(InputError, match="nothing to choose from"):
        lessons.explore(print, **choices)
