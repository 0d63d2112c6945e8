import os
import sysconfig
from pathlib import Path

import pytest
import torch

import onnx_workbench
from onnx_workbench.errors import InputError
from onnx_workbench.source import (
    LARGEST_SOURCE,
    LONGEST_TEXT,
    MOST_FRAMES,
    Line,
    Sources,
    is_users,
    lines,
    told,
    user_line,
)

HERE = str(Path(__file__))
STDLIB = str(Path(sysconfig.get_paths()["stdlib"], "functools.py"))
TORCH = str(Path(sysconfig.get_paths()["purelib"], "torch", "nn", "modules", "linear.py"))
PACKAGE = Path(onnx_workbench.__file__).parent


def trace(*files):
    return "".join(f'File "{file}", line {i}, in f\n    x\n' for i, file in enumerate(files, 1))


def test_the_innermost_frame_of_the_user_wins_over_a_library_below_it():
    assert user_line(trace(HERE, HERE, TORCH, STDLIB)).number == 2


def test_a_trace_of_libraries_alone_gives_the_innermost():
    assert user_line(trace(STDLIB, TORCH)).place == "torch/nn/modules/linear.py:2"


def test_an_empty_trace_has_no_line():
    assert user_line("") is None
    assert user_line(None) is None


def test_an_exception_leads_to_the_line_that_raised():
    def boom():
        raise RuntimeError

    try:
        boom()
    except RuntimeError as error:
        line = user_line(error.__traceback__)
    assert (line.function, line.text) == ("boom", "raise RuntimeError")


def test_the_package_is_a_library_and_its_lessons_are_the_users():
    assert not is_users(str(PACKAGE / "graph.py"))
    assert is_users(str(PACKAGE / "lessons" / "models.py"))


def test_a_package_of_another_place_is_a_library_too():
    for folder in ("/home/ada/.local/lib/python3.11/site-packages", "C:\\py\\Lib\\site-packages"):
        assert not is_users(f"{folder}/net/model.py")
    assert not is_users("/usr/lib/python3/dist-packages/net.py")
    assert is_users("/home/ada/my-site-packages/model.py")


def test_a_notebook_cell_is_named_without_its_temporary_path():
    for file in ("/tmp/ipykernel_71/33.py", r"C:\Temp\ipykernel_9\1.py", "<ipython-input-3-ab>"):
        assert Line(file, 4, "f", "").place == "cell:4"
        assert is_users(file)


PYTORCH = Path(torch.__file__).parent
SITE = "/usr/lib/python3/dist-packages"
VIT = f"{SITE}/timm/vit.py"


def frames(*found):
    return "\n".join(f'File "{file}", line {n}, in {name}' for n, (file, name) in enumerate(found))


@pytest.mark.parametrize(
    ("trace", "number"),
    [
        ([(VIT, "forward"), (f"{PYTORCH}/_ops.py", "__call__")], 0),
        ([(VIT, "forward"), (f"{SITE}/timm/attend.py", "attend")], 1),
        (
            [
                (VIT, "forward"),
                (f"{PYTORCH}/x.py", "y"),
                (f"{SITE}/sy/a.py", "b"),
            ],
            0,
        ),
        ([(f"{PYTORCH}/nn/linear.py", "forward"), (f"{PYTORCH}/_ops.py", "__call__")], 0),
        ([("/home/ada/net.py", "forward"), (VIT, "forward")], 0),
    ],
    ids=["library", "its helper", "not what torch calls", "a module of torch", "the user's first"],
)
def test_the_line_of_a_librarys_model_is_in_that_library(trace, number):
    line = user_line(frames(*trace))
    assert line.number == number
    assert told(line) is line


def test_torchs_own_machinery_is_no_line_of_a_model():
    assert told(user_line(frames((f"{PYTORCH}/_ops.py", "__call__")))) is None


# What may be shown around a line


TEXT = "def forward(x):\n    return x.relu()\n"


def written(path: Path, text: str = TEXT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def quoted(file, text="return x.relu()"):
    return [Line(str(file), 2, "forward", text)]


def test_a_loaded_files_source_is_read_below_its_own_folder_the_working_folder_and_source(
    tmp_path, monkeypatch
):
    here, model, named, other = (tmp_path / name for name in ("here", "model", "named", "other"))
    files = [written(folder / f"{folder.name}.py") for folder in (here, model, named, other)]
    monkeypatch.chdir(here)
    sources = Sources.of(str(model / "model.onnx"), named)
    assert [bool(sources.read(quoted(file))) for file in files] == [True, True, True, False]
    assert not Sources.of(b"bytes").read(quoted(files[1]))


def test_the_source_of_a_model_that_another_machine_exported_is_found_by_the_end_of_its_path(
    tmp_path,
):
    written(tmp_path / "net" / "layer.py")
    away = quoted("C:\\Users\\ada\\net\\layer.py")
    assert Sources.of(b"", tmp_path).read(away) == TEXT.splitlines(keepends=True)
    assert not Sources.of(b"", tmp_path).read(quoted("/home/ada/net/other.py"))


@pytest.mark.parametrize("working", ["/", "~"])
def test_no_working_folder_opens_what_is_hidden_or_no_python_or_reads_otherwise(
    working, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(Path(working).expanduser())
    sources = Sources.of("model.onnx")
    hidden = written(tmp_path / ".aws" / "keys.py")
    link = tmp_path / "link.py"
    link.symlink_to(hidden)
    fifo = tmp_path / "fifo.py"
    os.mkfifo(fifo)
    loop = tmp_path / "loop.py"
    loop.symlink_to(loop)
    for file in (
        hidden,
        written(tmp_path / "credentials"),
        written(tmp_path / "notes.txt"),
        written(tmp_path / "changed.py", TEXT.replace("relu", "tanh")),
        written(tmp_path / "large.py", TEXT + "#" * LARGEST_SOURCE),
        link,
        loop,
        fifo,
        tmp_path,
        "/dev/zero",
        "a\0b.py",
        "x" * 5000 + ".py",
        f"{tmp_path}/.aws/../net.py",
    ):
        assert sources.read(quoted(file)) == []
    assert sources.read(quoted(written(tmp_path / "net.py")))
    assert sources.read(quoted(tmp_path / "net.py", text="")) == []


def test_a_hidden_folder_that_the_user_names_is_read(tmp_path):
    file = written(tmp_path / ".work" / "net.py")
    assert Sources.of(b"", file.parent).read(quoted(file))
    assert not Sources.of(file.parent / "model.onnx").read(quoted(file))


@pytest.mark.parametrize("source", ["no/such/folder", __file__, 3, "a\0b", "~nobody-of-this-name"])
def test_a_source_that_is_no_folder_is_refused(source):
    with pytest.raises(InputError, match="source"):
        Sources.of(b"", source)


# Traces of any size and shape


@pytest.mark.parametrize(
    "text",
    [
        'File "x.py", line ' + "9" * 5000 + ", in f\n  a",
        'File "' * 50_000,
        'File "x.py", line 3\n' * 20_000,
        'File "x.py", line \u00b2, in f',
        'File "", line 3, in f',
        "",
    ],
)
def test_what_is_no_frame_gives_no_line(text):
    assert lines(text) == []


def test_of_a_long_trace_the_innermost_frames_are_read():
    trace = "".join(f'File "net.py", line {n}, in f\n  x\n' for n in range(300_000))
    found = lines(trace)
    assert (len(found), found[-1].number) == (MOST_FRAMES, 299_999)
    (long,) = lines('File "net.py", line 3, in f\n    ' + "x" * 90_000)
    assert len(long.text) == LONGEST_TEXT


def test_a_frame_may_stand_within_a_sentence_and_without_a_text():
    text = 'at File "a b.py", line 3, in <lambda>\nFile "c.py", line 4, in f\n\tx = 1\n\ty\n'
    found = [(line.file, line.number, line.function, line.text) for line in lines(text)]
    assert found == [("a b.py", 3, "<lambda>", ""), ("c.py", 4, "f", "x = 1")]


# Installed packages


def test_a_line_of_a_package_has_its_path_within_the_packages():
    assert Line(f"{SITE}/torchvision/models/resnet.py", 92, "f", "").place == (
        "torchvision/models/resnet.py:92"
    )
    assert Line("C:\\py\\Lib\\site-packages\\net\\a.py", 3, "f", "").place == "net/a.py:3"
    assert Line("D:\\ada\\a.py", 3, "f", "").place == "a.py:3"


def test_what_pip_put_into_a_folder_is_a_package_and_what_lies_beside_it_is_the_users(
    tmp_path, monkeypatch
):
    written(
        tmp_path / "net-1.0.dist-info" / "RECORD", "net/a.py,sha256=x,3\nnet-1.0.dist-info/W,,\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not is_users(str(tmp_path / "net" / "a.py"))
    assert is_users(str(tmp_path / "app" / "a.py"))
    assert Line(str(tmp_path / "net" / "a.py"), 3, "f", "").place == "net/a.py:3"


def test_the_users_line_names_the_librarys_below_it():
    text = frames(
        ("/home/ada/net.py", "forward"), (VIT, "forward"), (f"{PYTORCH}/nn/x.py", "forward")
    )
    line = user_line(text)
    assert (line.place, line.library.place) == ("net.py:0", "timm/vit.py:1")
    assert user_line(frames(("/home/ada/net.py", "forward"))).library is None
