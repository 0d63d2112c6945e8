"""A planned error in IPython: a few lines, and ``%tb`` for the rest. Outside of it: as ever."""

import subprocess
import sys

import pytest

from onnx_workbench.brief import REST, brief
from onnx_workbench.errors import CallError, CaptureError, InputError
from onnx_workbench.source import Line

CELLS = (
    "import torch, onnx_workbench as ow",
    "class Step(torch.nn.Module):\n"
    "    def forward(self, x):\n"
    "        if x.sum() > 0:\n"
    "            return x + 1\n"
    "        return x",
    "x = torch.ones(3)\now.capture(Step().eval(), x, strict=False)",
    "%tb",
    "try:\n"
    "    ow.capture(Step().eval(), x, strict=False)\n"
    "except ow.errors.CaptureError as error:\n"
    "    raise KeyError('mine') from error",
    "%tb",
    "ow.export(Step().eval(), x, dynamic_shape={})",
)
RUN = """
import gc
gc.disable()  # as tests/conftest.py does
from IPython.terminal.interactiveshell import TerminalInteractiveShell
shell = TerminalInteractiveShell.instance()
for cell in {cells!r}:
    print("=" * 99)
    shell.run_cell(cell, store_history=True)
"""


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def shown():
    """What IPython shows for each cell, without colors."""
    code = RUN.replace("instance()", "instance(colors='nocolor')").format(cells=CELLS)
    return python(code)[0].split("=" * 99 + "\n")[1:]


def test_error_is_a_sentence_the_users_own_frames_the_line_reason_repair_and_how_to_see_all(shown):
    frames, rest = shown[2].rstrip().split("Why: Python needs a value")
    assert frames.splitlines() == [
        "CaptureError: Step could not be captured",
        "",
        "Cell In[3], line 2",
        "      1 x = torch.ones(3)",
        "----> 2 ow.capture(Step().eval(), x, strict=False)",
        "",
        "Cell In[2], line 3, in forward",
        "      2     def forward(self, x):",
        "----> 3         if x.sum() > 0:",
        "      4             return x + 1",
        "",
    ]
    assert "\nWhat helps: Choose with torch.where" in rest
    assert rest.endswith(f"\n{REST}")
    assert max(map(len, shown[2].splitlines())) < 100


def test_tb_shows_the_whole_chain(shown):
    for whole in (shown[3], shown[5]):
        assert "The above exception was the direct cause of the following exception" in whole
        assert "site-packages" in whole
        assert REST not in whole
        assert "CaptureError" in whole


def test_error_of_the_user_that_ours_caused_renders_as_ever(shown):
    assert shown[4] == shown[5]
    assert "KeyError: 'mine'" in shown[4]


def test_mistyped_option_is_as_short(shown):
    head, *_, frame, rest = [line for line in shown[6].splitlines() if line]
    assert head.startswith("CallError: export() got an unexpected keyword argument 'dynamic_shape'")
    assert frame == "----> 1 ow.export(Step().eval(), x, dynamic_shape={})"
    assert rest == REST


def test_nothing_changes_outside_of_ipython():
    said = python("from onnx_workbench.files import existing\nexisting(3)")[1]
    assert said.startswith("Traceback (most recent call last):")
    assert said.count("\n") > 5
    assert REST not in said


def test_many_frames_of_ones_own_are_counted_and_colors_are_ipythons():
    def fail():
        raise InputError("no", "Pass 1 or more.", reason="it is 0")

    calls = [f"def f{n}(): f{n + 1}()" for n in range(20)]
    names = {"f20": fail}
    exec(compile("\n".join(calls), "/home/ada/calls.py", "exec"), names)
    with pytest.raises(InputError) as caught:
        names["f0"]()
    text = brief(caught.value, colors=True)
    assert "... 17 more of your own frames" in text  # 20, this one, and fail()
    assert text.count("-> ") == 5
    assert text.startswith("\x1b[31mInputError\x1b[39m: no")
    assert "\x1b" not in brief(caught.value)


def test_line_that_a_model_names_shows_its_text_and_no_file_is_read():
    line = Line(__file__, 1, "forward", "return x.relu()")
    text = brief(CaptureError("Net could not be captured", line=line))
    assert "File test_brief.py:1, in forward\n----> 1 return x.relu()" in text
    assert "A planned error" not in text
    assert isinstance(CallError("no"), TypeError)
