"""One atomic write for everything: no link is followed, nothing half-written is left."""

import errno
import os
import tempfile
import threading
from functools import partial

import pytest
import torch
from models import parsed
from torch import nn

import onnx_workbench as ow
from onnx_workbench import files
from onnx_workbench.__main__ import main
from onnx_workbench.errors import ExportError, InputError
from onnx_workbench.timing.report import Race
from onnx_workbench.timing.results import Result

TINY = parsed("(float[2] x) => (float[2] y) { y = Relu(x) }")
QUICK = {"capture", "export", "contract", "numbers", "opsets", "latency", "hot lines"}


@pytest.fixture(scope="module")
def report():
    return ow.audit(nn.Tanh().eval(), torch.ones(3), skip=QUICK)


@pytest.fixture
def savers(report):
    return {
        "report": report.save,
        "view": lambda path: ow.view(TINY).save(path),
        "views": lambda path: ow.view(TINY).compare(TINY).save(path),
        "race": Race((Result("a"),)).save,
        "bundle": report.bundle,
    }


@pytest.fixture(scope="module")
def onnx():
    return ow.export(nn.ReLU().eval(), torch.ones(2))


def names(folder):
    return {entry.name for entry in folder.iterdir()}


DOORS = ("report", "view", "views", "race", "bundle")


@pytest.mark.parametrize("door", [*DOORS, "export", "tracer", "copy"])
def test_a_folder_that_cannot_be_written_to_is_told_before_the_work(
    door, savers, onnx, tmp_path, monkeypatch
):
    model, x, calls = nn.ReLU().eval(), torch.ones(2), []
    model.register_forward_hook(lambda *_: calls.append(1))
    savers |= {
        "export": lambda path: ow.export(model, x, path),
        "tracer": lambda path: ow.export(model, x, path, dynamo=False),
        "copy": onnx.save,
    }
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and allowed(path, mode))
    with pytest.raises(InputError, match=r"out\.html"):
        savers[door](tmp_path / "out.html")
    assert (names(tmp_path), calls) == (set(), [])


@pytest.mark.parametrize("door", ["report", "view", "race", "export", "copy"])
def test_a_folder_that_refuses_while_it_is_written_to_is_an_error_with_the_files_name(
    door, savers, onnx, tmp_path, monkeypatch
):
    export = partial(ow.export, nn.ReLU().eval(), torch.ones(2))
    savers |= {"export": export, "copy": onnx.save}

    def refuse(prefix, dir):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises((InputError, ExportError), match=r"out\.html.*Read-only"):
        savers[door](tmp_path / "out.html")
    assert names(tmp_path) == set()


def test_nothing_is_there_while_a_model_is_captured(tmp_path):
    """So that a kill leaves nothing."""
    model, there = nn.ReLU().eval(), []
    model.register_forward_hook(lambda *_: there.append(names(tmp_path)))
    ow.export(model, torch.ones(2), tmp_path / "m.onnx")
    assert there == [set()] * len(there)
    assert there


@pytest.mark.parametrize("door", DOORS)
def test_no_link_is_followed_and_nothing_is_left(door, savers, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    goal = tmp_path / "out.html"
    for name in (".out.html.part", f".out.html.{os.getpid()}", ".out.html", ".out.html-"):
        (tmp_path / name).symlink_to(precious)
    before = names(tmp_path)
    if door != "bundle":  # which takes no path that exists
        goal.symlink_to(precious)
    savers[door](goal)
    assert precious.read_text() == "mine"
    assert not goal.is_symlink()
    assert names(tmp_path) - before == {"out.html"}


def test_a_missing_folder_is_named_as_it_was_given(savers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for save in savers.values():
        with pytest.raises(InputError, match=r"'no.such'.*'out.html'"):
            save("no/such/out.html")
    assert not names(tmp_path)


def test_a_script_is_replaced_by_no_model_and_a_model_is(tmp_path):
    script, model = tmp_path / "train.py", tmp_path / "model.bin"
    script.write_text("# the only copy")
    made = ow.export(nn.ReLU().eval(), torch.ones(3), model)
    with pytest.raises(InputError, match="exists and is no ONNX model"):
        ow.export(nn.ReLU().eval(), torch.ones(3), script)
    with pytest.raises(InputError, match="exists and is no ONNX model"):
        made.save(script)
    assert script.read_text() == "# the only copy"
    (tmp_path / "cut.onnx").write_text("cut")
    (tmp_path / "empty").touch()
    for name in ("model.bin", "cut.onnx", "empty"):
        assert ow.export(nn.ReLU().eval(), torch.ones(3), tmp_path / name)


class Named:
    def __init__(self, name):
        self.name = name

    def __fspath__(self):
        return self.name


def test_a_path_of_bytes_is_a_path_and_what_is_none_is_an_input_error(onnx, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (b"a.onnx", Named(b"b.onnx")):
        assert ow.load(onnx.save(path)).path.name == os.fsdecode(path)
        assert ow.load(path).opset == onnx.opset
    longest = "x" * 250 + ".onnx"
    assert ow.export(nn.ReLU().eval(), torch.ones(2), longest).path.name == longest
    before = names(tmp_path)
    beside = partial(ow.export, nn.Linear(2, 2).eval(), torch.ones(2), external_data=True)
    for path in (Named(3), os.fsdecode(b"\xff.onnx"), "\ud800.onnx", "x" * 300 + ".onnx"):
        for door in (onnx.save, beside, ow.view(onnx).save):
            with pytest.raises(InputError, match="is not a file path"):
                door(path)
    for path, words in ((longest, "too long"), ("12:30.onnx", "without ':'")):
        with pytest.raises(InputError, match=words):
            beside(path)
    with pytest.raises(InputError, match="without ':'"):
        onnx.save("12:30.onnx", external_data=True)
    assert names(tmp_path) == before


def test_a_bundle_that_fails_leaves_nothing(tmp_path):
    locked = nn.ReLU().eval()
    locked.lock = threading.Lock()  # which cannot be pickled
    broken = ow.audit(locked, torch.ones(3), skip=QUICK)
    for name in ("bundle", "bundle.zip"):
        with pytest.raises(InputError, match="cannot be pickled"):
            broken.bundle(tmp_path / name)
    assert not names(tmp_path)


def test_the_command_line_checks_where_it_writes_before_the_factory_runs(tmp_path, capsys):
    for option in ("--report", "--bundle"):
        no = str(tmp_path / "no")
        for goal, said in ((f"{no}/out.html", repr(no)), ("", "does not end in a file name")):
            assert main(["audit", "no_such_module:factory", option, goal]) == 2
            assert said in capsys.readouterr().err


def test_files_that_cannot_all_be_published_leave_the_old_ones(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").mkdir()  # no file can take its place

    def publish():
        with files.replacing(tmp_path / "a") as folder:
            for name in "ab":
                (folder / name).write_text("new")

    with pytest.raises(InputError, match="What was there before is still there"):
        publish()
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == {"a", "b"}
