import sys
from types import SimpleNamespace

import pytest
import tqdm.auto
import tqdm.notebook
import tqdm.std

from onnx_workbench import progress

KINDS = pytest.mark.parametrize("kind", [tqdm.std.tqdm, tqdm.notebook.tqdm])


@KINDS
def test_the_variable_silences_the_bar_in_terminal_and_notebook(kind, monkeypatch):
    monkeypatch.setattr(tqdm.auto, "tqdm", kind)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with progress.bar(total=3) as bar:
        assert bar.disable


def test_no_bar_where_stderr_is_no_terminal(monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    for _ in progress.bar(range(2), desc="exporting", mininterval=0):
        pass
    assert capsys.readouterr().err == ""


def test_a_bar_in_a_notebook_whose_stderr_is_no_terminal(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    with progress.bar(total=3) as bar:
        assert not bar.disable


def test_without_it_the_bar_shows_and_leaves_nothing_behind(monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for _ in progress.bar(range(2), desc="exporting", mininterval=0):
        pass
    shown = capsys.readouterr().err
    assert "exporting" in shown
    assert shown.rsplit("\r", 2)[1].strip() == ""
