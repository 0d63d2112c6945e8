import itertools
import sys
from types import SimpleNamespace

import IPython.display
import pytest
import tqdm.std

from onnx_workbench import progress


@pytest.fixture
def at_once(monkeypatch):
    """Every step takes long by tqdm's clock."""
    clock = itertools.count(0, 60)
    monkeypatch.setattr(tqdm.std, "time", lambda: next(clock))
    monkeypatch.delenv("TQDM_DISABLE", raising=False)


class Page:
    """The one output of a cell, and everything that it showed."""

    def __init__(self):
        self.shown, self.outputs = [], 0

    def display(self, data, **options):
        assert options == {"raw": True, "display_id": True}
        self.outputs += 1
        self.shown.append(data)
        return self

    def update(self, data, **options):
        self.shown.append(data)


@pytest.fixture
def page(at_once, monkeypatch):
    made = Page()
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules["IPython"].__dict__, "get_ipython", lambda: shell)
    monkeypatch.setattr(IPython.display, "display", made.display)
    return made


def work(*names):
    with progress.bar("export", total=len(names)) as step:
        for name in names:
            step(name)


def test_variable_silences_the_bar(at_once, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    work("capture")
    assert capsys.readouterr().err == ""


def test_no_bar_where_stderr_is_no_terminal(at_once, capsys):
    work("capture")
    assert capsys.readouterr().err == ""


def test_bar_makes_no_semaphore(monkeypatch):
    monkeypatch.delattr(tqdm.std.tqdm, "_lock", raising=False)
    work("capture")
    assert not hasattr(tqdm.std.tqdm, "_lock")


def test_bar_in_a_terminal_leaves_nothing_behind(at_once, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    work("capture", "write")
    shown = capsys.readouterr().err
    assert "export" in shown
    assert "write" in shown
    assert shown.rsplit("\r", 2)[1].strip() == ""


def test_bar_in_a_notebook_is_one_output_that_is_empty_at_the_end(page):
    work("capture", "<write>")
    texts = [data.get("text/plain", "") for data in page.shown]
    assert any("2/2" in text and "<write>" in text for text in texts)
    assert any("&lt;write&gt;" in data.get("text/html", "") for data in page.shown)
    assert (page.outputs, page.shown[-1]) == (1, {})


def test_error_and_interrupt_take_the_bar_away(page):
    def fail(error):
        with progress.bar("export") as step:
            step()
            raise error

    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            fail(error)
        assert page.shown[-1] == {}
    work("again")
    assert page.outputs == 3


def test_bar_inside_another_shows_nothing(page):
    with progress.bar("audit", total=2) as step:
        step("contract")
        before = len(page.shown)
        work("capture", "write")
        assert len(page.shown) == before
    assert page.outputs == 1
    assert not any("export" in data.get("text/plain", "") for data in page.shown)
    work("after")
    assert page.outputs == 2


def test_short_work_shows_no_bar(page, monkeypatch):
    monkeypatch.setattr(tqdm.std, "time", lambda: 0.0)
    work("capture", "write")
    assert page.shown == []
