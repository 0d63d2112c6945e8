"""The lessons as a learner meets them: run from top to bottom, seen, and moved."""

from __future__ import annotations

import pytest

from .conftest import ROOT

pytestmark = pytest.mark.browser

LESSONS = [ROOT / "notebooks" / name for name in ("00-start-here.ipynb", "04-see-the-graph.ipynb")]

SHOWN = (
    "[...document.querySelectorAll('.widget-html, .widget-image')].map((w) => w.outerHTML).join()"
)


@pytest.fixture(scope="module", params=LESSONS, ids=lambda path: path.stem)
def lesson(request, open_notebook):
    if not request.param.exists():
        pytest.skip(f"{request.param.name} is not written yet")
    notebook = open_notebook(request.param)
    notebook.run_all()
    return notebook


def test_every_cell_runs(lesson):
    kinds = [output["output_type"] for cell in lesson.outputs() for output in cell]
    assert kinds
    assert "error" not in kinds


def test_every_view_is_drawn(lesson):
    for index in range(lesson.page.locator(".ow-netron").count()):
        assert lesson.graph(index).locator(".node-item-type").count() > 1


def test_a_widget_moves_and_something_changes(lesson):
    handles = lesson.page.locator(".noUi-handle")
    if not handles.count():
        pytest.skip("no slider in this lesson")
    before = lesson.page.evaluate(SHOWN)
    handles.first.focus()
    lesson.page.keyboard.press("ArrowRight")
    lesson.page.wait_for_function(f"(before) => {SHOWN} !== before", arg=before)


def test_nobody_else_was_asked_for_anything(lesson):
    assert lesson.refused == []
