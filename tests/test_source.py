import sysconfig
from pathlib import Path

import pytest
import torch

import onnx_workbench
from onnx_workbench.source import Line, is_users, told, user_line

HERE = str(Path(__file__))
STDLIB = str(Path(sysconfig.get_paths()["stdlib"], "functools.py"))
TORCH = str(Path(sysconfig.get_paths()["purelib"], "torch", "nn", "modules", "linear.py"))
PACKAGE = Path(onnx_workbench.__file__).parent


def trace(*files):
    return "".join(f'File "{file}", line {i}, in f\n    x\n' for i, file in enumerate(files, 1))


def test_the_innermost_frame_of_the_user_wins_over_a_library_below_it():
    assert user_line(trace(HERE, HERE, TORCH, STDLIB)).number == 2


def test_a_trace_of_libraries_alone_gives_the_innermost():
    assert user_line(trace(STDLIB, TORCH)).place == "linear.py:2"


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
