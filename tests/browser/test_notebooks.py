"""The lessons as a learner meets them: run from top to bottom, seen, and moved."""

from __future__ import annotations

import pytest

from .conftest import ROOT

pytestmark = pytest.mark.browser

LESSONS = [ROOT / "notebooks" / name for name in ("00-start-here.ipynb", "04-see-the-graph.ipynb")]


@pytest.fixture(scope="module", params=LESSONS, ids=lambda path: path.stem)
def lesson(request, open_notebook):
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


def test_no_panel_is_without_its_source(lesson):
    """Also where a cell below marks nodes before the page has unpacked the source."""
    panels = lesson.page.locator(".ow-source:not([hidden])")
    shown = [panels.nth(index).inner_text() for index in range(panels.count())]
    assert not [text for text in shown if "does not say which line" in text]


@pytest.mark.parametrize("lesson", LESSONS[:1], ids=lambda path: path.stem, indirect=True)
def test_a_drawn_stroke_is_read_by_the_exported_model(lesson):
    pad = lesson.page.locator(".ow-pad-paper")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    lesson.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 5)
    lesson.page.mouse.down()
    lesson.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8, steps=8)
    lesson.page.mouse.up()
    best = lesson.page.locator(".ow-pad-best")
    best.wait_for()
    assert "%" in best.text_content()


def test_a_key_moves_the_choice_of_explore_and_its_result_is_shown(run_cells):
    cell = "from onnx_workbench import lessons\nlessons.explore(lambda n: f'{n} images', n=[1, 8])"
    page = run_cells(cell).page
    page.get_by_text("1 images").wait_for()
    page.locator(".noUi-handle").press("ArrowRight")
    page.get_by_text("8 images").wait_for()


def test_nobody_else_was_asked_for_anything(lesson):
    assert lesson.refused == []
