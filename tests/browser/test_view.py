"""A view in JupyterLab: drawn by Netron, heard by the kernel, and asking nobody for anything."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import onnx
import pytest
from ipywidgets.embed import dependency_state
from nbformat.v4 import new_code_cell, new_notebook, new_output
from onnx import TensorProto, helper, parser

from onnx_workbench import view

from .conftest import expect, until

pytestmark = pytest.mark.browser

DIGITS = """<ir_version: 10, opset_import: ["": 20]>
digits (float[batch, 1, 8, 8] image) => (float[batch, 10] logits)
  <int64[2] flat = {0, -1}, float[4, 1, 3, 3] kernel, float[10, 256] weight, float[10] bias>
{
  [conv] c = Conv <pads = [1, 1, 1, 1]> (image, kernel)
  [relu] r = Relu (c)
  [flatten] f = Reshape (r, flat)
  [head] logits = Gemm <transB = 1> (f, weight, bias)
}"""

MARKUP = "<img src=x onerror=\"document['body']['title']='harmed'\"><b>bold</b>"

SMALL = """\
class Small(torch.nn.Module):
    def forward(self, x):
        first = torch.relu(x + x)
        return torch.tanh(first)
"""

VIEWS = """\
from onnx_workbench import view
digits = view("digits.onnx")
digits
===
other = view("other.onnx")
other
===
print(digits.selected, "node-item-type" in digits.svg())
===
from ipywidgets import HTML, IntSlider, VBox
slider, shown = IntSlider(description="batch"), HTML()
slider.observe(lambda change: setattr(shown, "value", f"a batch of {change.new}"), "value")
VBox([slider, shown])
===
small = view("small.onnx")
small.heat({"node_add": 0, "node_relu": 1e-3, "node_tanh": 2e-3}, "s")
small
===
print(small.selected, len(small.marked), small._screen and small.png()[1:4])
===
print(small.select("small.py:3"))
===
import gc
from onnx_workbench.viewer.netron import Netron
gc.collect()
views = [one for one in gc.get_objects() if Netron in type(one).__mro__]
print(sum(one.comm is not None for one in views), sum(len(one._model.packed) for one in views))
===
import io
from PIL import Image
from onnx_workbench.viewer.heat import palette
def legend():
    picture = Image.open(io.BytesIO(small.png()))
    if picture.getchannel("A").getextrema()[0] < 255: return "holes"
    picture = picture.convert("RGB")
    row = {picture.getpixel((at, picture.height - 36)) for at in range(picture.width)}
    return len(row & {tuple(bytes.fromhex(color[1:])) for color in palette()})
print(small._screen and legend(), "2.00 ms" in small.svg())
===
from anywidget import AnyWidget
class Trivial(AnyWidget):
    _esm = "export default { render: ({ el }) => { el.textContent = 'trivial'; } }"
Trivial()"""


@pytest.fixture(scope="module")
def notebook(run_cells, lab):
    """Views of three models, a cell that asks what was clicked, and a slider; all run once."""
    digits = parser.parse_model(DIGITS)
    onnx.save(digits, lab.folder / "digits.onnx")
    onnx.save(hostile(digits), lab.folder / "other.onnx")
    (lab.folder / "small.py").write_text(SMALL)
    onnx.save(small(lab.folder / "small.py"), lab.folder / "small.onnx")
    return run_cells(VIEWS)


def small(source: Path) -> onnx.ModelProto:
    """A model as torch exports the class SMALL in this file."""
    nodes = []
    for operator, read, number in (("Add", "x", 3), ("Relu", "add", 3), ("Tanh", "relu", 4)):
        name, line = operator.lower(), SMALL.splitlines()[number - 1].strip()
        node = helper.make_node(operator, [read] * (1 + (name == "add")), [name], f"node_{name}")
        notes = {
            "fx_node": f"%{name} : call_function[target=torch.ops.aten.{name}.default](args = ())",
            "stack_trace": f'File "{source}", line {number}, in forward\n    {line}',
        }
        for key, value in notes.items():
            node.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=value)
        nodes.append(node)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "tanh")]
    return helper.make_model(helper.make_graph(nodes, "small", ends[:1], ends[1:]))


def hostile(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with markup in every place that may hold a text."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    model.doc_string = model.producer_name = model.graph.name = model.graph.doc_string = MARKUP
    model.metadata_props.add(key=MARKUP, value=MARKUP)
    for node in model.graph.node:
        node.name, node.doc_string = f"{node.name}{MARKUP}", MARKUP
        node.metadata_props.add(key=MARKUP, value=MARKUP)
    model.graph.node.add(op_type=MARKUP, domain=MARKUP, input=["c"], output=[MARKUP])
    return model


def drawn(graph, *more) -> None:
    """Waits until the graph has the operators of DIGITS, and more."""
    operators = graph.locator(".node-item-type text")
    expect(operators).to_have_text(["Conv", "Relu", "Reshape", "Gemm", *more])


def test_netron_draws_two_models(notebook):
    drawn(notebook.graph(0))
    drawn(notebook.graph(1), re.compile("^<img src=x"))  # Netron cuts long names


def test_a_click_reaches_the_kernel_and_so_does_the_picture(notebook):
    graph, panel = notebook.graph(0), notebook.page.locator(".ow-panel").first
    graph.locator("#node-name-relu").click()
    panel.get_by_role("tab", name="Node").click()
    graph.locator("#sidebar").get_by_text("Inputs").wait_for()
    notebook.run_until(2, "relu True")


def test_values_of_weights_stand_in_the_boxes_as_in_the_static_picture(notebook):
    reshape = notebook.graph(0).locator("#node-name-flatten .node-argument")
    expect(reshape).to_contain_text("shape = [0, -1]")


def test_a_slider_moves_and_python_answers(notebook):
    notebook.page.locator(".noUi-handle").focus()
    notebook.page.keyboard.press("ArrowRight")
    notebook.page.get_by_text("a batch of 1").wait_for()


def test_the_frame_is_a_sandbox_without_a_dialog(notebook):
    graph = notebook.graph(0)
    sandbox = notebook.page.locator(".ow-netron iframe").first.get_attribute("sandbox")
    assert sandbox.split() == ["allow-scripts", "allow-downloads", "allow-popups"]
    assert graph.evaluate("self.origin") == "null"
    assert graph.evaluate("fetch('/api').then(() => 'answered', () => 'refused')") == "refused"
    assert not graph.locator("#message").is_visible()


def test_markup_in_a_model_stays_text(notebook):
    graph = notebook.graph(1)
    for label in ("Model Properties", "Graph Properties"):
        graph.locator(f'button[title="{label}"]').click()
        graph.locator("#sidebar").get_by_text(MARKUP).first.wait_for()
    graph.locator('[id^="node-name-relu"]').click()
    notebook.page.locator(".ow-panel").nth(1).get_by_role("tab", name="Node").click()
    graph.locator("#sidebar").get_by_text(f"relu{MARKUP}").first.wait_for()
    for place in (graph, notebook.page):
        assert place.evaluate("document.body.title") != "harmed"
        assert place.locator("img[src=x]").count() == 0


def test_a_message_of_another_frame_is_not_heard(notebook):
    before = notebook.run(2)
    notebook.page.evaluate("window.postMessage({ type: 'activate', name: 'forged' }, '*')")
    graph = notebook.graph(0)
    graph.evaluate("window.postMessage({ type: 'mark', names: ['flatten'] }, '*')")
    notebook.page.wait_for_timeout(200)
    assert notebook.run(2) == before
    assert graph.locator("#node-name-flatten.select").count() == 0


def test_a_click_shows_the_line_in_its_function(notebook):
    graph, panel = notebook.graph(2), notebook.page.locator(".ow-panel").nth(2)
    assert "does not say which line" not in panel.inner_text(), "marked from a cell below"
    graph.locator("#node-name-node_relu").click()
    panel.get_by_text("relu = aten.relu.default").wait_for()
    expect(panel.locator(".place")).to_have_text("small.py \u00b7 Small.forward")
    expect(panel.locator(".code .here")).to_contain_text("first = torch.relu(x + x)")
    expect(panel.locator(".made-by button")).to_have_text(["Add", "Relu"])
    expect(panel).to_contain_text("1.00 ms")
    notebook.run_until(5, "node_relu 0 b'PNG'")


def selected(graph, *names):
    """Waits until these nodes are selected, and no others."""
    expect(graph.locator(".graph-node.select")).to_have_count(len(names))
    for name in names:
        graph.locator(f"#node-name-node_{name}.select").wait_for()


def test_a_line_marks_the_nodes_that_it_made(notebook):
    graph = notebook.graph(2)
    panel = notebook.page.locator(".ow-panel").nth(2)
    panel.locator(".code .here").focus()
    notebook.page.keyboard.press("ArrowDown")
    notebook.page.keyboard.press("Enter")
    selected(graph, "tanh")
    notebook.page.keyboard.press("ArrowUp")
    notebook.page.keyboard.press("Enter")
    selected(graph, "add", "relu")
    bar = notebook.page.locator(".ow-bar").nth(2)
    expect(bar.locator("output")).to_have_text("1 of 2")
    bar.get_by_role("button", name="Next").click()
    graph.locator("#node-name-node_relu.current").wait_for()
    expect(bar.locator("output")).to_have_text("2 of 2")
    panel.locator("header", has_text="node_relu").wait_for()
    notebook.run_until(5, "node_relu 2 b'PNG'")
    panel.locator(".code .here").focus()
    notebook.page.keyboard.press("Escape")
    panel.wait_for(state="hidden")
    until(graph, "!document.querySelector('#canvas .select')")
    notebook.run_until(5, "node_relu 0 b'PNG'")


def test_python_marks_by_line(notebook):
    graph = notebook.graph(2)
    graph.locator("#node-name-node_tanh").click()
    selected(graph, "tanh")
    assert notebook.run(6) == "('node_add', 'node_relu')"
    selected(graph, "add", "relu")


def test_heat_has_its_colors_and_a_legend(notebook):
    graph = notebook.graph(2)
    notebook.page.locator(".ow-panel").nth(2).get_by_role("button", name="Close").click()
    until(graph, "!document.querySelector('#canvas .select')")
    box = graph.locator("#node-name-node_tanh > .node-item-type")
    notebook.page.mouse.move(0, 0)
    expect(box.locator("path")).to_have_css("fill", "rgb(253, 231, 37)")
    expect(box.locator("text")).to_have_css("fill", "rgb(0, 0, 0)")
    legend = notebook.page.locator(".ow-legend:not([hidden]) span")
    expect(legend).to_have_text(["0 s", "2.00 ms"])


def test_the_picture_has_the_legend_too(notebook):
    notebook.graph(2)
    notebook.run_until(8, "32 True")


def test_many_runs_hold_what_one_does_and_listen_no_more_than_a_widget_of_one_word(notebook):
    """JupyterLab and anywidget themselves keep a few listeners of each run."""
    notebook.run(0)
    before = held(notebook)
    assert before[0].startswith("3 ")
    ours, least = listeners_of_many_runs(notebook, 0), listeners_of_many_runs(notebook, 9)
    assert held(notebook) == before
    assert ours <= least


def listeners_of_many_runs(notebook, cell: int, runs: int = 3) -> int:
    """How many more, after so many runs more than one."""
    notebook.run(cell)
    notebook.graph(0)
    before = metrics(notebook)["JSEventListeners"]
    for _ in range(runs):
        notebook.run(cell)
        notebook.graph(0)
    return metrics(notebook)["JSEventListeners"] - before


def metrics(notebook) -> dict[str, int]:
    """What the page holds, once all that nothing reaches any more is collected."""
    session = notebook.page.context.new_cdp_session(notebook.page)
    session.send("Performance.enable")
    for _ in range(3):
        session.send("HeapProfiler.collectGarbage")
    told = session.send("Performance.getMetrics")["metrics"]
    session.detach()
    return {metric["name"]: int(metric["value"]) for metric in told}


def held(notebook) -> tuple[str, int]:
    """The kernel's open views and their bytes; the page's frames."""
    for index in range(3):
        notebook.graph(index)
    return notebook.run(7), metrics(notebook)["Frames"]


def test_the_frame_follows_the_theme(notebook):
    for theme, paper in (("Dark", "rgb(64, 64, 64)"), ("Light", "rgba(0, 0, 0, 0)")):
        notebook.do("apputils:change-theme", theme=f"JupyterLab {theme}")
        target = notebook.graph(0).locator("#target")
        expect(target).to_have_css("background-color", paper, timeout=20_000)


def test_a_view_survives_a_new_kernel_and_a_page_that_is_loaded_anew(notebook):
    frames = held(notebook)[1]
    mark = "document.querySelectorAll('.ow-netron').forEach((old) => old.classList.add('old'))"
    notebook.page.evaluate(mark)
    notebook.restart()
    for cell in (0, 1):
        notebook.run(cell)
    notebook.page.locator(".ow-netron:not(.old).drawn >> nth=1").wait_for()
    assert metrics(notebook)["Frames"] == frames
    notebook.save()
    notebook.load_anew()
    drawn(notebook.graph(0))
    notebook.graph(0).locator("#node-name-relu").click()
    notebook.run_until(2, "relu True")


def test_nobody_else_was_asked_for_anything(notebook):
    assert notebook.refused == []


def test_a_notebook_saved_with_its_widgets_draws_them_without_their_kernel(
    open_notebook, kernel, tmp_path
):
    shown = view(parser.parse_model(DIGITS))
    version = {"version_major": 2, "version_minor": 0}
    kept = {**version, "state": dependency_state([shown], drop_defaults=False)}
    data = {"application/vnd.jupyter.widget-view+json": {"model_id": shown.model_id, **version}}
    cell = new_code_cell("shown", outputs=[new_output("display_data", data)])
    spec = {"name": "python3", "display_name": "Python 3"}
    about = {"kernelspec": spec, "widgets": {"application/vnd.jupyter.widget-state+json": kept}}
    nbformat.write(new_notebook(cells=[cell], metadata=about), tmp_path / "saved.ipynb")
    notebook = open_notebook(tmp_path / "saved.ipynb", kernel)
    cells = "jupyterapp.shell.currentWidget.content.model.cells"
    notebook.page.evaluate(f"for (const cell of {cells}) cell.trusted = true")
    drawn(notebook.graph(0))
    assert notebook.refused == []
