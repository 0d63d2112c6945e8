"""Widgets after any order of run, save, restart, opening again and a second tab: each lives, or its
cell shows the static picture, which says to run the cell. Never both, and never neither."""

from __future__ import annotations

import json
import time

import pytest
import sheets

from .conftest import KERNEL, PAD, SHOWN, WAIT, Notebook, expect, load

pytestmark = pytest.mark.browser

CELLS = f"""\
from onnx import parser
from onnx_workbench import view
def graph(name, last="Neg"):
    return parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> '
        f'{{name}} (float[2] x) => (float[2] y) {{{{ [first] h = Relu(x) y = {{last}}(h) }}}}')
===
one = view(graph("one"), height=200, folded=True)
one
===
pair = view(graph("old"), height=200).compare(graph("new", "Abs"))
pair
===
import json
from onnx_workbench.lineage.floors import Floors
Floors(json.loads({json.dumps(sheets.small())!r}))
===
{PAD}
===
from ipywidgets import Label, VBox
told = Label("of the user's")
VBox([told, one])
===
print(one.selected)"""

VIEW, PAIR, FLOORS, DIGIT, BOX, CHOSEN = range(1, 7)
LIVE = {VIEW: "live", PAIR: "live live", FLOORS: "live", DIGIT: "live", BOX: "live"}
GONE = {**dict.fromkeys((VIEW, PAIR, FLOORS, DIGIT), "picture"), BOX: ""}  # the box is ipywidgets'

SEEN = """() => [...document.querySelectorAll(".jp-Notebook .jp-CodeCell")].map((cell) => {
  const seen = (what) => [...cell.querySelectorAll(what)].filter((one) => one.clientHeight > 20);
  const live = seen(".ow-netron.drawn, .ow-floors, .ow-pad").map(() => "live");
  const pictures = seen('img[src*="ow-still"]').map(() => "picture");
  return [...live, ...pictures].join(" ");
})"""

UNTOLD = """import ipywidgets
slider = ipywidgets.IntSlider()
box = ipywidgets.VBox([slider])
slider.close()"""  # from here on the kernel fails to tell a page the state of its widgets

TALL = {"width": 1280, "height": 2600}  # all cells are in sight
# The view waits twenty seconds for a kernel that does not answer.
HURRY = """() => {
  window.wait = window.setTimeout;
  window.setTimeout = (act, ms, ...more) => wait(act, ms === 20000 ? 200 : ms, ...more);
}"""
NO_HURRY = "() => void (window.setTimeout = window.wait)"
SAVE_STATE = "@jupyter-widgets/jupyterlab-manager:saveWidgetState"  # turns the setting on and off


def shows(notebook, *expected: dict[int, str]) -> None:
    """Waits until each cell shows this, by its number."""
    wanted = {0: "", CHOSEN: ""}
    for more in expected:
        wanted |= more
    deadline = time.monotonic() + WAIT
    while (seen := dict(enumerate(notebook.page.evaluate(SEEN)))) != wanted:
        assert time.monotonic() < deadline, f"{seen}, not {wanted}"
        notebook.page.wait_for_timeout(50)


def run(notebook, *cells: int) -> None:
    for cell in cells:
        notebook.run(cell)


def execute(notebook, code: str) -> None:
    """Runs code in the kernel that is no cell's."""
    notebook.page.evaluate(
        f"(code) => {KERNEL}.requestExecute({{ code }}).done.then(() => 1)", code
    )


def shut_down(notebook) -> None:
    notebook.page.evaluate(f"{SHOWN}.sessionContext.shutdown()")


@pytest.fixture
def notebook(run_cells, lab):
    """All cells run once, in a kernel of their own."""
    notebook = run_cells(CELLS)
    notebook.page.set_viewport_size(TALL)
    yield notebook
    lab.ask("PUT", "lab/api/settings/@jupyter-widgets/jupyterlab-manager:plugin", {"raw": "{}"})
    shut_down(notebook)


def test_every_order_ends_in_a_live_widget_or_in_its_picture(notebook, lab):
    shows(notebook, LIVE)

    # What runs again is closed wherever else it is shown: in the user's box.
    run(notebook, PAIR, FLOORS, DIGIT, VIEW)
    shows(notebook, LIVE, {BOX: ""})
    notebook.save()
    notebook.open_again()
    shows(notebook, LIVE, {BOX: ""})

    # And in another page.
    other = Notebook(load(notebook.page.context, lab), notebook.path)
    other.page.set_viewport_size(TALL)
    other.open()
    shows(other, LIVE, {BOX: ""})
    run(notebook, VIEW, PAIR, FLOORS, BOX)
    shows(notebook, LIVE)
    shows(other, GONE, {DIGIT: "live"})
    other.page.close()

    # Another kernel has the widgets that were saved. Saved are those that live.
    notebook.do(SAVE_STATE)
    notebook.save()
    shut_down(notebook)
    notebook.open_again()
    shows(notebook, LIVE)
    run(notebook, 0, VIEW)
    shows(notebook, LIVE)
    notebook.save()
    notebook.open_again()
    shows(notebook, GONE, {VIEW: "live"})
    notebook.graph(0).locator("#node-name-first").click()
    notebook.run_until(CHOSEN, "first")

    # A button that a new kernel cannot answer.
    notebook.restart()
    notebook.page.evaluate(HURRY)
    notebook.page.get_by_role("button", name="Show all").click()
    notebook.page.get_by_role("button", name="No answer from the kernel").wait_for()
    expect(notebook.page.locator(".ow-netron.drawn").first).to_be_visible()
    notebook.page.evaluate(NO_HURRY)
    run(notebook, 0, VIEW)
    shows(notebook, GONE, {VIEW: "live"})

    # A view that the user closes, and a kernel that fails to tell of its widgets.
    run(notebook, PAIR, BOX)
    shows(notebook, LIVE, {FLOORS: "picture", DIGIT: "picture"})
    execute(notebook, "one.close()")
    shows(notebook, GONE, {PAIR: "live live"})
    execute(notebook, UNTOLD)
    notebook.do(SAVE_STATE)
    notebook.save()
    notebook.open_again()
    run(notebook, VIEW)
    shows(notebook, GONE, {VIEW: "live"})
    run(notebook, PAIR)
    shows(notebook, GONE, {VIEW: "live", PAIR: "live live"})

    # Another kernel, and no widget was saved.
    notebook.save()
    shut_down(notebook)
    notebook.open_again()
    shows(notebook, GONE)
