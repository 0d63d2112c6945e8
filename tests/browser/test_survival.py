"""Widgets after any order of run, save, reload, restart and a second tab: each lives, or its cell
shows the static picture, which says to run the cell. Never both, and never neither."""

from __future__ import annotations

import json
import time

import pytest
import sheets

from .conftest import KERNEL_WAITS, ROOT, opening

pytestmark = pytest.mark.browser

FOLDED = """\
view(parser.parse_model(
    '<ir_version: 10, opset_import: ["": 20]> '
    'all (float[2] x) => (float[2] y) { h = Relu(x) y = Neg(h) }'), folded=True)"""

CELLS = f"""\
import json
from onnx import parser
from onnx_workbench import lessons, view
from onnx_workbench.lineage.floors import Floors
def graph(name, last="Neg"):
    return parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> '
        f'{{name}} (float[2] x) => (float[2] y) {{{{ h = Relu(x) y = {{last}}(h) }}}}')
===
one = view(graph("one"), height=200)
one
===
pair = view(graph("old"), height=200).compare(graph("new", "Abs"))
pair
===
Floors(json.loads({json.dumps(sheets.small())!r}))
===
lessons.draw_digit(lessons.digits().model)
===
from ipywidgets import Label, VBox
told = Label("of the user's")
VBox([told, one])"""

VIEW, PAIR, FLOORS, PAD, BOX = range(1, 6)
LIVE = {VIEW: "live", PAIR: "live live", FLOORS: "live", PAD: "live", BOX: "live"}
GONE = {**dict.fromkeys((VIEW, PAIR, FLOORS, PAD), "picture"), BOX: ""}  # the box is ipywidgets'

SHOWN = """() => [...document.querySelectorAll(".jp-Notebook .jp-CodeCell")].map((cell) => {
  const seen = (what) => [...cell.querySelectorAll(what)].filter((one) => one.clientHeight > 20);
  const live = seen(".ow-netron.drawn, .ow-floors, .ow-pad").map(() => "live");
  const pictures = seen('img[src*="ow-still"]').map(() => "picture");
  return [...live, ...pictures].join(" ");
})"""

# Lab's setting "Save Widget State Automatically"
SAVE_STATE = """(on) => jupyterapp.serviceManager.settings.save(
  "@jupyter-widgets/jupyterlab-manager:plugin", JSON.stringify({ saveState: on }))"""

KERNEL = "jupyterapp.shell.currentWidget.sessionContext.session.kernel"
UNTOLD = """import ipywidgets
slider = ipywidgets.IntSlider()
box = ipywidgets.VBox([slider])
slider.close()"""  # from here on the kernel fails to tell a page the state of its widgets


def shows(notebook, *expected: dict[int, str]) -> None:
    """Waits until each cell shows this, by its number."""
    wanted = {0: ""}
    for more in expected:
        wanted |= more
    deadline = time.monotonic() + 30
    while (seen := dict(enumerate(notebook.page.evaluate(SHOWN)))) != wanted:
        assert time.monotonic() < deadline, f"{seen}, not {wanted}"
        notebook.page.wait_for_timeout(100)


def load_anew(notebook) -> None:
    notebook.page.reload(wait_until="domcontentloaded")
    notebook.page.wait_for_function(KERNEL_WAITS)


def save(notebook) -> None:
    notebook.do("docmanager:save")


def execute(notebook, code: str) -> None:
    """Runs code in the kernel that is no cell's."""
    notebook.page.evaluate(
        f"(code) => {KERNEL}.requestExecute({{ code }}).done.then(() => 1)", code
    )


@pytest.fixture(params=[False, True], ids=["state not saved", "state saved"])
def notebook(request, run_cells):
    """All cells run once, under this setting of Lab."""
    notebook = run_cells(CELLS)
    notebook.saved = request.param
    notebook.page.set_viewport_size({"width": 1280, "height": 2600})  # all cells are in sight
    notebook.page.evaluate(SAVE_STATE, request.param)
    save(notebook)
    load_anew(notebook)
    yield notebook
    notebook.page.evaluate(SAVE_STATE, False)
    notebook.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")


def test_every_order_ends_in_a_live_widget_or_in_its_picture(notebook, browser, lab):
    shows(notebook, LIVE)

    # Run again, load anew: the view in the user's box is closed.
    for cell in (PAIR, FLOORS, PAD, VIEW):
        notebook.run(cell)
    shows(notebook, LIVE, {BOX: ""})
    save(notebook)
    load_anew(notebook)
    shows(notebook, LIVE, {BOX: ""})
    notebook.run(VIEW)
    notebook.run(BOX)
    shows(notebook, LIVE)

    # Close the notebook and open it again.
    save(notebook)
    notebook.do("application:close")
    path = (lab.folder / "test_survival.ipynb").relative_to(ROOT).as_posix()
    notebook.do("docmanager:open", path=path)
    notebook.page.wait_for_function(KERNEL_WAITS)
    shows(notebook, LIVE)

    # Two tabs, one kernel: what one of them runs again is closed in the other.
    other = opening(browser, lab, "test_survival.ipynb")
    other.page.set_viewport_size({"width": 1280, "height": 2600})
    shows(other, LIVE)
    for cell in (VIEW, FLOORS):
        notebook.run(cell)
    shows(other, LIVE, {VIEW: "picture", FLOORS: "picture", BOX: ""})
    for cell in (VIEW, PAIR, FLOORS):
        other.run(cell)
    shows(other, LIVE, {BOX: ""})
    shows(notebook, GONE, {PAD: "live"})
    other.page.context.close()
    for cell in (VIEW, PAIR, FLOORS, BOX):
        notebook.run(cell)
    shows(notebook, LIVE)

    # Another kernel, with what was saved before.
    save(notebook)
    notebook.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    load_anew(notebook)
    shows(notebook, LIVE if notebook.saved else GONE)
    for cell in (0, VIEW):
        notebook.run(cell)
    shows(notebook, LIVE if notebook.saved else GONE, {VIEW: "live"})

    # Lab saves the state of live widgets only.
    save(notebook)
    load_anew(notebook)
    shows(notebook, GONE, {VIEW: "live"})
    notebook.restart()
    save(notebook)
    load_anew(notebook)
    shows(notebook, GONE)

    # A view that the user closes, and a kernel that fails to tell of its widgets.
    notebook.run_all()
    shows(notebook, LIVE)
    execute(notebook, "one.close()")
    shows(notebook, LIVE, {VIEW: "picture", BOX: ""})
    execute(notebook, UNTOLD)
    save(notebook)
    load_anew(notebook)
    notebook.run(VIEW)
    notebook.run(PAD)
    shows(notebook, GONE, {VIEW: "live", PAD: "live"})
    notebook.run(PAIR)
    shows(notebook, GONE, {VIEW: "live", PAD: "live", PAIR: "live live"})


def test_a_button_that_a_new_kernel_cannot_answer_says_to_run_the_cell(run_cells):
    """This waits as long as the view does: twenty seconds."""
    folded = "from onnx import parser\nfrom onnx_workbench import view\n" + FOLDED
    notebook = run_cells(folded)
    notebook.graph(0)
    notebook.restart()
    notebook.page.get_by_role("button", name="Show all").click()
    notebook.page.get_by_text("If it was restarted, run the cell.").wait_for()
    assert notebook.page.locator(".ow-still").is_visible()
