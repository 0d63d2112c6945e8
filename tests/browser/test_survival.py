"""Widgets after any order of run, save, reload, restart and a second tab: each lives, or its cell
shows the static picture, which says to run the cell. Never both, and never neither."""

from __future__ import annotations

import json
import time

import pytest
import sheets

from .conftest import KERNEL_WAITS, PAD, opening

pytestmark = pytest.mark.browser

CELLS = f"""\
from onnx import parser
from onnx_workbench import view
def graph(name, last="Neg"):
    return parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> '
        f'{{name}} (float[2] x) => (float[2] y) {{{{ h = Relu(x) y = {{last}}(h) }}}}')
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
VBox([told, one])"""

VIEW, PAIR, FLOORS, DIGIT, BOX = range(1, 6)
LIVE = {VIEW: "live", PAIR: "live live", FLOORS: "live", DIGIT: "live", BOX: "live"}
GONE = {**dict.fromkeys((VIEW, PAIR, FLOORS, DIGIT), "picture"), BOX: ""}  # the box is ipywidgets'

SHOWN = """() => [...document.querySelectorAll(".jp-Notebook .jp-CodeCell")].map((cell) => {
  const seen = (what) => [...cell.querySelectorAll(what)].filter((one) => one.clientHeight > 20);
  const live = seen(".ow-netron.drawn, .ow-floors, .ow-pad").map(() => "live");
  const pictures = seen('img[src*="ow-still"]').map(() => "picture");
  return [...live, ...pictures].join(" ");
})"""

KERNEL = "jupyterapp.shell.currentWidget.sessionContext.session.kernel"
UNTOLD = """import ipywidgets
slider = ipywidgets.IntSlider()
box = ipywidgets.VBox([slider])
slider.close()"""  # from here on the kernel fails to tell a page the state of its widgets


TALL = {"width": 1280, "height": 2600}  # all cells are in sight
# The view waits twenty seconds for a kernel that does not answer.
HURRY = """() => {
  const wait = window.setTimeout;
  window.setTimeout = (act, ms, ...more) => wait(act, ms === 20000 ? 200 : ms, ...more);
}"""


def shows(notebook, *expected: dict[int, str]) -> None:
    """Waits until each cell shows this, by its number."""
    wanted = {0: ""}
    for more in expected:
        wanted |= more
    deadline = time.monotonic() + 60
    while (seen := dict(enumerate(notebook.page.evaluate(SHOWN)))) != wanted:
        assert time.monotonic() < deadline, f"{seen}, not {wanted}"
        notebook.page.wait_for_timeout(100)


def execute(notebook, code: str) -> None:
    """Runs code in the kernel that is no cell's."""
    notebook.page.evaluate(
        f"(code) => {KERNEL}.requestExecute({{ code }}).done.then(() => 1)", code
    )


def close_and_open(notebook, lab) -> None:
    notebook.do("application:close")
    notebook.do("docmanager:open", path=lab.path("test_survival.ipynb"))
    notebook.page.wait_for_function(KERNEL_WAITS)


def shut_down(notebook) -> None:
    notebook.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")


@pytest.fixture(params=[False, True], ids=["state not saved", "state saved"])
def notebook(request, run_cells, lab):
    """All cells run once, with Lab's setting "Save Widget State Automatically" off and on."""
    setting = "lab/api/settings/@jupyter-widgets/jupyterlab-manager:plugin"
    lab.ask("PUT", setting, {"raw": json.dumps({"saveState": request.param})})
    notebook = run_cells(CELLS)
    notebook.saved = request.param
    notebook.page.set_viewport_size(TALL)
    yield notebook
    lab.ask("PUT", setting, {"raw": "{}"})
    shut_down(notebook)


def in_two_tabs(notebook, context, lab) -> None:
    """One kernel: what one of them runs again is closed in the other."""
    notebook.save()
    other = opening(context, lab, "test_survival.ipynb")
    other.page.set_viewport_size(TALL)
    shows(other, LIVE)
    for cell in (VIEW, FLOORS):
        notebook.run(cell)
    shows(other, LIVE, {VIEW: "picture", FLOORS: "picture", BOX: ""})
    for cell in (VIEW, PAIR, FLOORS):
        other.run(cell)
    shows(other, LIVE, {BOX: ""})
    shows(notebook, GONE, {DIGIT: "live"})
    other.page.close()


def test_every_order_ends_in_a_live_widget_or_in_its_picture(notebook, context, lab):
    shows(notebook, LIVE)

    if not notebook.saved:  # the tabs show what the kernel has
        in_two_tabs(notebook, context, lab)

    # Run again, load anew: the view in the user's box is closed.
    for cell in (PAIR, FLOORS, DIGIT, VIEW):
        notebook.run(cell)
    shows(notebook, LIVE, {BOX: ""})
    notebook.save()
    notebook.load_anew()
    shows(notebook, LIVE, {BOX: ""})
    notebook.run(VIEW)
    notebook.run(BOX)
    shows(notebook, LIVE)

    # Close the notebook and open it again.
    notebook.save()
    close_and_open(notebook, lab)
    shows(notebook, LIVE)

    # Another kernel, with what was saved before.
    notebook.save()
    shut_down(notebook)
    notebook.load_anew()
    shows(notebook, LIVE if notebook.saved else GONE)
    for cell in (0, VIEW):
        notebook.run(cell)
    shows(notebook, LIVE if notebook.saved else GONE, {VIEW: "live"})

    # Lab saves the state of live widgets only.
    notebook.save()
    close_and_open(notebook, lab)
    shows(notebook, GONE, {VIEW: "live"})

    # A button that a new kernel cannot answer.
    notebook.restart()
    notebook.page.evaluate(HURRY)
    notebook.page.get_by_role("button", name="Show all").click()
    notebook.page.get_by_text("If it was restarted, run the cell.").wait_for()
    assert notebook.page.locator(".ow-netron .ow-still").first.is_visible()
    notebook.save()
    notebook.load_anew()
    shows(notebook, GONE)

    # A view that the user closes, and a kernel that fails to tell of its widgets.
    for cell in (0, VIEW, PAIR, BOX):
        notebook.run(cell)
    shows(notebook, LIVE, {FLOORS: "picture", DIGIT: "picture"})
    execute(notebook, "one.close()")
    shows(notebook, GONE, {PAIR: "live live"})
    execute(notebook, UNTOLD)
    notebook.save()
    close_and_open(notebook, lab)
    notebook.run(VIEW)
    shows(notebook, GONE, {VIEW: "live"})
    notebook.run(PAIR)
    shows(notebook, GONE, {VIEW: "live", PAIR: "live live"})
