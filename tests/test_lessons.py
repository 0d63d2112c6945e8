import base64
import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from models import module
from PIL import Image

from onnx_workbench import export, lessons, verify
from onnx_workbench.errors import InputError, WorkbenchError
from onnx_workbench.lessons import course, reader
from onnx_workbench.lessons.course import Progress


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ONNX_WORKBENCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# ---------------------------------------------------------------- digits


def test_the_reader_reads_scaled_digits_that_it_never_saw():
    digits = lessons.digits()
    assert digits.accuracy(lambda images: torch.zeros(len(images), 10)) < 0.2
    assert not digits.model.training
    assert not any(p.requires_grad for p in digits.model.parameters())
    assert digits.images.shape == (1437, 1, 8, 8)
    assert (digits.images.dtype, digits.labels.dtype) == (torch.float32, torch.int64)
    assert (digits.images.min(), digits.images.max()) == (0, 1)
    seen = {image.numpy().tobytes() for image in digits.images}
    assert not seen & {image.numpy().tobytes() for image in digits.test_images}


def test_where_no_svg_may_be_shown_the_digits_are_a_png_with_their_labels(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: shown.append(data))
    lessons.digits()._ipython_display_()
    (data,) = shown
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("L")
    labels = picture.crop((0, picture.height * 9 // 11, *picture.size))
    assert labels.getextrema()[0] < 128
    assert "1,437 handwritten digits" in capsys.readouterr().out


@pytest.fixture
def left_as_it_was():
    """An unusual random state and number of threads, which must still be there afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    torch.manual_seed(20)
    state = torch.get_rng_state()
    yield
    threads = torch.get_num_threads()
    torch.set_num_threads(before)
    assert threads == 3
    assert torch.equal(torch.get_rng_state(), state)


def test_training_again_gives_the_same_bits_also_after_an_interruption(monkeypatch, left_as_it_was):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    first = lessons.digits()
    assert lessons.digits() is first
    reader.digits.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lessons.digits()
    assert torch.get_num_threads() == 3
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(21)
        again = lessons.digits()
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    assert torch.equal(first.test_images, again.test_images)


def test_missing_data_is_told_with_the_command_that_fixes_it(monkeypatch):
    def gone():
        raise FileNotFoundError("digits.csv.gz not found")

    monkeypatch.setattr("sklearn.datasets.load_digits", gone)
    with pytest.raises(WorkbenchError) as caught:
        reader.digits.__wrapped__()
    assert "digits.csv.gz not found" in caught.value.message
    assert "pip install --force-reinstall --no-deps scikit-learn" in caught.value.hint


@pytest.mark.parametrize(
    ("predict", "given"),
    [
        (lambda x: x, "a Tensor of shape [360, 1, 8, 8]"),
        (lambda x: x.numpy(), "ndarray"),
        (lambda x: None, "NoneType"),
    ],
)
def test_accuracy_wants_ten_logits_an_image(predict, given):
    with pytest.raises(InputError) as caught:
        lessons.digits().accuracy(predict)
    assert given in caught.value.message
    assert "[360, 10]" in caught.value.message


def test_a_picture_holds_the_gray_values_of_its_digits():
    images = torch.zeros(2, 1, 8, 8)
    images[:, 0, 2, 5] = 0.5
    drawn = reader.svg(images, ["<7>", "1"])
    assert drawn.count("<path") == 2
    assert '<path fill-opacity="0.50" d="M5 2h1v1h-1z"/>' in drawn
    assert '<path fill-opacity="0.50" d="M14 2h1v1h-1z"/>' in drawn, "one digit further right"
    assert "&lt;7&gt;" in drawn


# ---------------------------------------------------------------- encoder


def test_the_encoder_is_the_same_every_time(left_as_it_was):
    one = lessons.encoder()
    with torch.random.fork_rng():
        torch.manual_seed(21)
        two = lessons.encoder()
    assert torch.equal(one.inputs[0], two.inputs[0])
    assert verify(one.model, two.model, one.inputs, tolerance=(0, 0))
    assert not one.model.training


def test_attention_is_what_torch_calls_attention():
    attention = lessons.encoder().model.blocks[0].attention
    words = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))
    heads = [attention.split(layer(words)) for layer in (attention.query, attention.key)]
    value = attention.split(attention.value(words))
    mixed = torch.nn.functional.scaled_dot_product_attention(*heads, value)
    expected = attention.out(mixed.transpose(1, 2).reshape(2, 5, 32))
    torch.testing.assert_close(attention(words), expected)


# ---------------------------------------------------------------- photographs


def test_no_crop_is_in_both_sets():
    photographs = lessons.photographs()
    crops, calibration = photographs.crops, photographs.calibration
    assert (crops.shape, crops.dtype) == ((200, 224, 224, 3), torch.uint8)
    assert not {c.numpy().tobytes() for c in crops} & {c.numpy().tobytes() for c in calibration}
    assert photographs.temple.shape == photographs.flower.shape == (1, 427, 427, 3)


def test_the_best_class_of_each_crop_is_that_of_a_file():
    photographs = lessons.photographs()
    model = module(lambda self, photos: photos.float().mean(dim=(1, 2)))
    file = export(model, photographs.crops[:2], dynamic_shapes={"photos": {0: "batch"}})
    best = photographs.best(file)
    assert torch.equal(best, model(photographs.crops).argmax(dim=1))
    assert len(set(best.tolist())) > 1


def test_the_classifier_knows_both_photographs():
    photographs = lessons.photographs()
    both = torch.cat([photographs.temple, photographs.flower])
    assert [photographs.names[n] for n in photographs.model(both).argmax(1)] == ["palace", "daisy"]


# ---------------------------------------------------------------- progress


def test_progress_begins_empty_and_keeps_what_was_recorded(home):
    assert lessons.progress() == Progress()
    assert not home.exists(), "looking must not write"
    assert course.record("01") == course.record("03") == ""
    assert lessons.progress().solved == {"01", "03"}
    assert [file.name for file in home.iterdir()] == ["progress.json"]
    (home / "progress.json").write_text(json.dumps({"solved": ["01", "99", "05c"]}))
    assert lessons.progress().solved == {"01"}, "a number that is unknown, or was once, is ignored"


ALL = frozenset(course.SOLVABLE)


@pytest.mark.parametrize(
    ("solved", "after", "ticks"),
    [
        (frozenset(), "01", 0),
        (frozenset({"01"}), "02", 1),
        (ALL - {"05b"}, "05", len(course.LESSONS) - 2),  # a lesson of several exercises
        (ALL, None, len(course.LESSONS) - 1),
    ],
)
def test_the_map_ticks_what_is_solved_and_links_what_comes_next(solved, after, ticks):
    progress = Progress(solved)
    assert progress.next == after
    assert repr(progress).startswith(f"{len(solved)} of {len(ALL)} exercises solved")
    html = progress._repr_html_()
    assert repr(progress).count("[x]") == html.count("&#10003;") == ticks
    title = course.LESSONS.get(after, "")
    link = f'<b><a href="{course.notebook(after)}">{title}</a></b> &larr; next' if after else ""
    assert link in html
    assert html.count("next") == bool(after)


def test_after_the_last_exercise_comes_nothing():
    assert course.after(course.SOLVABLE[-1]) == "That was the last one."


@pytest.mark.parametrize("content", ["", "{", "[]", '{"solved": 3}', '{"solved": [[]]}', "\xff"])
def test_a_broken_file_counts_as_empty_and_says_so(home, content):
    home.mkdir()
    (home / "progress.json").write_bytes(content.encode("latin-1"))
    progress = lessons.progress()
    assert progress.solved == frozenset()
    assert f"{home / 'progress.json'} is broken" in progress.note
    assert repr(progress).endswith(progress.note)
    assert course.record("02") == ""
    assert lessons.progress() == Progress(frozenset({"02"}))


def test_a_failed_write_is_told_in_a_sentence_and_leaves_the_old_file(home, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    course.record("01")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert course.record("02").endswith("progress.json: No space left on device.")
    assert [file.name for file in home.iterdir()] == ["progress.json"]
    assert lessons.progress().solved == {"01"}
    shutil.rmtree(home)
    home.write_text("a file where the folder should be")
    assert course.record("01").endswith(f"{home / 'progress.json'}: File exists.")
    assert lessons.progress().solved == frozenset()
    assert "cannot be read: Not a directory." in lessons.progress().note


def test_the_home_folder_is_short_in_what_is_shown(monkeypatch, tmp_path):
    monkeypatch.delenv("ONNX_WORKBENCH_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    (tmp_path / ".onnx-workbench").mkdir()
    (tmp_path / ".onnx-workbench" / "progress.json").write_text("{")
    assert "in ~/.onnx-workbench/progress.json is broken" in lessons.progress().note
