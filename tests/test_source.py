"""Whose line it is, what it is called, and which files may be read to show it."""

import os
import sysconfig
from pathlib import Path

import pytest
import torch

import onnx_workbench
from onnx_workbench import files
from onnx_workbench.errors import InputError
from onnx_workbench.source import (
    LARGEST_SOURCE,
    LONGEST_TEXT,
    MOST_FRAMES,
    Line,
    Sources,
    is_user_file,
    lines,
    unless_internal,
    user_line,
)

HERE, NET = __file__, "/home/ada/net.py"
STDLIB = str(Path(sysconfig.get_paths()["stdlib"], "functools.py"))
PACKAGE = Path(onnx_workbench.__file__).parent
PYTORCH = Path(torch.__file__).parent
MACHINERY, LINEAR = (f"{PYTORCH}/_ops.py", "__call__"), f"{PYTORCH}/nn/modules/linear.py"
SITE = "/usr/lib/python3/dist-packages"
VIT, ATTEND = f"{SITE}/timm/vit.py", (f"{SITE}/timm/attend.py", "attend")


def frames(*found):
    """A trace of files, or of files and functions; its line numbers count from 0."""
    rows = (one if isinstance(one, tuple) else (one, "forward") for one in found)
    return "\n".join(f'File "{file}", line {n}, in {name}' for n, (file, name) in enumerate(rows))


@pytest.mark.parametrize(
    ("files", "number"),
    [
        ([HERE, HERE, LINEAR, (STDLIB, "f")], 1),  # the innermost of the user
        ([NET, VIT], 0),
        # a library's model, whose line is in that library
        ([VIT, MACHINERY], 0),
        ([VIT, ATTEND], 1),  # its helper
        ([VIT, (f"{PYTORCH}/x.py", "y"), (f"{SITE}/sy/a.py", "b")], 0),  # not what torch calls
        ([LINEAR, MACHINERY], 0),  # a module of torch
    ],
)
def test_the_line_of_a_trace_is_the_users_or_that_of_a_librarys_model(files, number):
    line = user_line(frames(*files))
    assert line.number == number
    assert unless_internal(line) is line


def test_what_has_no_line_and_an_exception():
    assert user_line("") is user_line(None) is unless_internal(user_line(frames(MACHINERY))) is None
    # of libraries that have no model, the innermost
    assert user_line(frames((STDLIB, "f"), (LINEAR, "f"))).place == "torch/nn/modules/linear.py:1"

    def boom():
        raise RuntimeError

    with pytest.raises(RuntimeError) as caught:
        boom()
    line = user_line(caught.value.__traceback__)
    assert (line.function, line.text) == ("boom", "raise RuntimeError")


def test_the_users_line_names_the_librarys_below_it():
    line = user_line(frames(NET, VIT, LINEAR))
    assert (line.place, line.library.place) == ("net.py:0", "timm/vit.py:1")
    assert user_line(frames(NET)).library is None


@pytest.mark.parametrize(
    ("file", "users", "place"),
    [
        ("/tmp/ipykernel_71/33.py", True, "cell:4"),  # without its temporary path
        (r"C:\Temp\ipykernel_9\1.py", True, "cell:4"),
        ("<ipython-input-3-ab>", True, "cell:4"),
        (PACKAGE / "lessons" / "models.py", True, "onnx_workbench/lessons/models.py:4"),
        (PACKAGE / "graph.py", False, "onnx_workbench/graph.py:4"),
        ("/home/ada/.local/lib/python3.11/site-packages/net/model.py", False, "net/model.py:4"),
        ("C:\\py\\Lib\\site-packages\\net\\a.py", False, "net/a.py:4"),
        (f"{SITE}/net.py", False, "net.py:4"),
        (f"{SITE}/torchvision/models/resnet.py", False, "torchvision/models/resnet.py:4"),
        ("/home/ada/my-site-packages/model.py", True, "model.py:4"),
        ("D:\\ada\\a.py", True, "a.py:4"),
    ],
)
def test_whose_a_file_is_and_the_place_of_a_line_in_it(file, users, place):
    assert is_user_file(str(file)) is users
    assert Line(str(file), 4, "f", "").place in (place, place.rpartition("/")[2])


def test_what_pip_put_into_a_folder_is_a_package_and_what_lies_beside_it_is_the_users(
    tmp_path, monkeypatch
):
    written(
        tmp_path / "net-1.0.dist-info" / "RECORD", "net/a.py,sha256=x,3\nnet-1.0.dist-info/W,,\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not is_user_file(str(tmp_path / "net" / "a.py"))
    assert is_user_file(str(tmp_path / "app" / "a.py"))
    assert Line(str(tmp_path / "net" / "a.py"), 3, "f", "").place == "net/a.py:3"


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
    # of a model that another machine exported, by the end of its path
    written(named / "net" / "layer.py")
    away = quoted("C:\\Users\\ada\\net\\layer.py")
    assert sources.read(away) == TEXT.splitlines(keepends=True)
    assert not sources.read(quoted("/home/ada/net/other.py"))


@pytest.mark.parametrize("working", ["/", "~"])
def test_no_working_folder_opens_what_is_hidden_or_no_python_or_reads_otherwise(
    working, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(Path(working).expanduser())
    sources = Sources.of("model.onnx")
    hidden = written(tmp_path / ".aws" / "keys.py")
    link, fifo, loop = (tmp_path / f"{name}.py" for name in ("link", "fifo", "loop"))
    link.symlink_to(hidden)
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    for file in (
        *(hidden, link, loop, fifo, tmp_path, "/dev/zero", "a\0b.py", "x" * 5000 + ".py"),
        written(tmp_path / "credentials"),
        written(tmp_path / "notes.txt"),
        written(tmp_path / "changed.py", TEXT.replace("relu", "tanh")),
        written(tmp_path / "large.py", TEXT + "#" * LARGEST_SOURCE),
        f"{tmp_path}/.aws/../net.py",
    ):
        assert sources.read(quoted(file)) == []
    assert sources.read(quoted(written(tmp_path / "net.py")))
    assert sources.read(quoted(tmp_path / "net.py", text="")) == []
    named = written(tmp_path / ".work" / "named.py")  # a hidden folder that the user names is read
    assert Sources.of(b"", named.parent).read(quoted(named))
    assert not Sources.of(named.parent / "model.onnx").read(quoted(named))


@pytest.mark.parametrize("source", ["no/such/folder", __file__, 3, "a\0b", "~nobody-of-this-name"])
def test_a_source_that_is_no_folder_is_refused(source):
    with pytest.raises(InputError, match="source"):
        files.folder(source)


# Traces of any size and shape


def test_what_is_no_frame_gives_no_line():
    for text in (
        'File "x.py", line ' + "9" * 5000 + ", in f\n  a",
        'File "' * 50_000,
        'File "x.py", line 3\n' * 20_000,
        'File "x.py", line \u00b2, in f',
        'File "", line 3, in f',
        "",
    ):
        assert lines(text) == ()


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
