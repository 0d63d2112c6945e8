"""The floors and the widgets of the lessons in JupyterLab: a choice, a key, a stroke are heard.

nbval runs every notebook; test_view.py and test_linked.py have the views.
"""

from __future__ import annotations

import json

import pytest
import sheets

from .conftest import PAD, at_rest, expect, until

pytestmark = pytest.mark.browser

CELLS = f"""\
from IPython.display import HTML
from onnx_workbench import lessons
lessons.explore(lambda n: HTML(f"<b>{{n}} images</b>"), n=[1, 8])
===
{PAD}
===
print(pad.pixels != pad.samples[0], len(pad.probabilities))
===
import json
from onnx_workbench.lineage.floors import Floors
with open("sheet.json") as file:
    sheet = json.load(file)
first = Floors(sheet)
first
===
second = Floors(sheet)
second
===
print(first.chosen, first.marked, second.chosen)
===
first.choose("node_mul")
===
print("ink" if sum(pad.pixels) > 0.5 else "blank")
===
from IPython.display import display
from onnx_workbench.viewer.still import picture
svg = '<svg xmlns="http://www.w3.org/2000/svg" width="858" height="66" viewBox="0 0 858 66"></svg>'
data, metadata = picture("a wide picture", svg)
display(data, metadata=metadata, raw=True)
"""


@pytest.fixture(scope="module")
def notebook(run_cells, kernel, lab):
    (lab.folder / "sheet.json").write_text(json.dumps(sheets.small()), encoding="utf-8")
    return run_cells(CELLS, kernel)


def test_a_key_moves_the_choice_of_explore_and_its_result_is_shown(notebook):
    notebook.page.locator("b", has_text="1 images").wait_for()
    notebook.page.locator(".noUi-handle").press("ArrowRight")
    notebook.page.locator("b", has_text="8 images").wait_for()
    (shown,) = notebook.outputs(0)
    assert "text/html" not in shown["data"], "it is shown in the widget, and nowhere else"


def test_a_drawn_stroke_is_read_by_the_model(notebook):
    paper, mouse = notebook.page.locator(".ow-pad-paper"), notebook.page.mouse
    paper.scroll_into_view_if_needed()
    box = at_rest(paper)
    mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 5)
    mouse.down()
    mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8, steps=8)
    mouse.up()
    notebook.run_until(2, "True 10")
    expect(notebook.page.locator(".ow-pad-best")).to_contain_text("%")


@pytest.mark.parametrize("key", ["", " "])
def test_a_dot_is_read_and_an_empty_paper_is_not(notebook, key):
    paper = notebook.page.locator(".ow-pad-paper")
    notebook.page.locator(".ow-pad button", has_text="Clear").click()
    notebook.run_until(7, "blank")
    expect(notebook.page.locator(".ow-pad-says")).to_have_text("Draw a digit")
    expect(notebook.page.locator(".ow-pad-bars")).not_to_contain_text("%")
    paper.press(key) if key else paper.click()
    notebook.run_until(7, "ink")
    expect(notebook.page.locator(".ow-pad-best")).to_contain_text("%")


def test_two_floors_have_each_a_choice_of_its_own(notebook):
    first, second = (notebook.page.locator(".ow-floors").nth(at) for at in (0, 1))
    first.locator(".row", has_text="self.conv(x)").click()
    notebook.run_until(5, "[0, 2] ['node_conv2d', 'node_relu'] []")
    first.locator(".list").first.focus()
    notebook.page.keyboard.press("ArrowDown")  # not JupyterLab's step to the next cell
    notebook.run_until(5, "[0, 3] ['node_add', 'node_mul'] []")
    notebook.run(6)
    first.locator(".row.chosen", has_text="node_mul").wait_for()
    assert second.locator(".marked").count() == 0


def test_a_wide_picture_is_as_wide_as_its_cell(notebook):
    picture = notebook.page.locator(".jp-RenderedSVG img").last
    output = picture.locator("xpath=..")
    for width in (800, 1280):
        notebook.page.set_viewport_size({"width": width, "height": 900})
        until(notebook.page, lambda: at_rest(picture)["width"] <= at_rest(output)["width"])
        wide, high = (at_rest(picture)[side] for side in ("width", "height"))
        assert wide / high == pytest.approx(858 / 66, rel=0.01)
