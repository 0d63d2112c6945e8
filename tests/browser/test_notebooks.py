"""The widgets of the lessons in JupyterLab: a key moves a choice, a stroke is read.

nbval runs every notebook; test_view.py and test_linked.py have the views.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser

CELLS = """\
from onnx_workbench import lessons
lessons.explore(lambda n: f"{n} images", n=[1, 8])
===
pad = lessons.draw_digit(lessons.digits().model)
pad
===
print(pad.pixels != pad.samples[0], len(pad.probabilities))"""


@pytest.fixture(scope="module")
def notebook(run_cells):
    return run_cells(CELLS)


def test_a_key_moves_the_choice_of_explore_and_its_result_is_shown(notebook):
    notebook.page.get_by_text("1 images", exact=True).wait_for()
    notebook.page.locator(".noUi-handle").press("ArrowRight")
    notebook.page.get_by_text("8 images", exact=True).wait_for()


def test_a_drawn_stroke_is_read_by_the_model(notebook):
    paper, mouse = notebook.page.locator(".ow-pad-paper"), notebook.page.mouse
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 5)
    mouse.down()
    mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8, steps=8)
    mouse.up()
    notebook.run_until(2, "True 10")
    assert "%" in notebook.page.locator(".ow-pad-best").text_content()
    assert notebook.refused == [], "nobody else was asked for anything"
