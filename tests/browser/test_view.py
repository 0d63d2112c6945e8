"""A view in JupyterLab: drawn by Netron, heard by the kernel, and asking nobody for anything."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from graphs import model_of, note
from onnx import helper, parser

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
print(digits.selected, "node-item-type" in digits.svg())
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
views = [one for one in views if one.name in ("digits.onnx", "small.onnx")]
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
def notebook(run_cells, kernel, lab):
    """Views of two models, and cells that ask what was clicked; all run once."""
    onnx.save(parser.parse_model(DIGITS), lab.folder / "digits.onnx")
    (lab.folder / "small.py").write_text(SMALL)
    onnx.save(small(lab.folder / "small.py"), lab.folder / "small.onnx")
    return run_cells(VIEWS, kernel)


def small(source: Path) -> onnx.ModelProto:
    """A model as torch exports the class SMALL in this file."""
    nodes = []
    for operator, read, number in (
        ("Add", "xx", 3),
        ("Relu", ["add"], 3),
        ("Tanh", ["relu"], 4),
    ):
        name, line = operator.lower(), SMALL.splitlines()[number - 1].strip()
        nodes.append(helper.make_node(operator, read, [name], f"node_{name}"))
        note(
            nodes[-1],
            fx_node=f"%{name} : call_function[target=torch.ops.aten.{name}.default](args = ())",
            stack_trace=f'File "{source}", line {number}, in forward\n    {line}',
        )
    return model_of(nodes, ["x"], "tanh")


def test_netron_draws_the_operators_and_the_values_of_small_weights(notebook):
    graph = notebook.graph(0)
    operators = graph.locator(".node-item-type text")
    expect(operators).to_have_text(["Conv", "Relu", "Reshape", "Gemm"])
    reshape = graph.locator("#node-name-flatten .node-argument")
    expect(reshape).to_contain_text("shape = [0, -1]")


def test_a_click_reaches_the_kernel_and_so_does_the_picture(notebook):
    graph, panel = notebook.graph(0), notebook.page.locator(".ow-panel").first
    graph.locator("#node-name-relu").click()
    panel.get_by_role("tab", name="Node").click()
    graph.locator("#sidebar").get_by_text("Inputs").wait_for()
    notebook.run_until(1, "relu True")


def test_the_frame_is_a_sandbox_without_a_dialog(notebook):
    graph = notebook.graph(0)
    sandbox = notebook.page.locator(".ow-netron iframe").first.get_attribute("sandbox")
    assert sandbox.split() == ["allow-scripts", "allow-downloads", "allow-popups"]
    assert graph.evaluate("self.origin") == "null"
    assert graph.evaluate("fetch('/api').then(() => 'answered', () => 'refused')") == "refused"
    assert not graph.locator("#message").is_visible()


def test_a_message_of_another_frame_is_not_heard(notebook):
    before = notebook.run(1)
    notebook.page.evaluate("window.postMessage({ type: 'activate', name: 'forged' }, '*')")
    graph = notebook.graph(0)
    graph.evaluate("window.postMessage({ type: 'mark', names: ['flatten'] }, '*')")
    notebook.page.wait_for_timeout(200)
    assert notebook.run(1) == before
    assert graph.locator("#node-name-flatten.select").count() == 0


def test_a_click_shows_the_line_in_its_function(notebook):
    graph, panel = notebook.graph(1), notebook.page.locator(".ow-panel").nth(1)
    expect(panel).not_to_contain_text("does not say which line")  # marked from a cell below
    graph.locator("#node-name-node_relu").click()
    panel.get_by_text("relu = aten.relu.default").wait_for()
    expect(panel.locator(".place")).to_have_text("small.py \u00b7 Small.forward")
    expect(panel.locator(".code .here")).to_contain_text("first = torch.relu(x + x)")
    expect(panel.locator(".made-by button")).to_have_text(["Add", "Relu"])
    expect(panel).to_contain_text("1.00 ms")
    notebook.run_until(3, "node_relu 0 b'PNG'")


def selected(graph, *names):
    """Waits until these nodes are selected, and no others."""
    expect(graph.locator(".graph-node.select")).to_have_count(len(names))
    for name in names:
        graph.locator(f"#node-name-node_{name}.select").wait_for()


def test_a_line_marks_the_nodes_that_it_made(notebook):
    graph = notebook.graph(1)
    panel = notebook.page.locator(".ow-panel").nth(1)
    panel.locator(".code .here").focus()
    notebook.page.keyboard.press("ArrowDown")
    notebook.page.keyboard.press("Enter")
    selected(graph, "tanh")
    notebook.page.keyboard.press("ArrowUp")
    notebook.page.keyboard.press("Enter")
    selected(graph, "add", "relu")
    bar = notebook.page.locator(".ow-bar").nth(1)
    expect(bar.locator("output")).to_have_text("1 of 2")
    bar.get_by_role("button", name="Next").click()
    graph.locator("#node-name-node_relu.current").wait_for()
    expect(bar.locator("output")).to_have_text("2 of 2")
    panel.locator("header", has_text="node_relu").wait_for()
    notebook.run_until(3, "node_relu 2 b'PNG'")
    panel.locator(".code .here").focus()
    notebook.page.keyboard.press("Escape")
    panel.wait_for(state="hidden")
    until(graph, "!document.querySelector('#canvas .select')")
    notebook.run_until(3, "node_relu 0 b'PNG'")


def test_python_marks_by_line(notebook):
    graph = notebook.graph(1)
    graph.locator("#node-name-node_tanh").click()
    selected(graph, "tanh")
    assert notebook.run(4) == "('node_add', 'node_relu')"
    selected(graph, "add", "relu")


def test_the_picture_has_the_legend_too(notebook):
    notebook.graph(1)
    notebook.run_until(6, "32 True")


def test_many_runs_hold_what_one_does_and_listen_no_more_than_a_widget_of_one_word(notebook):
    """JupyterLab and anywidget themselves keep a few listeners of each run."""
    views, page = [], []

    def look():
        for index in range(2):
            notebook.graph(index)
        views.append(notebook.run(5))
        page.append(notebook.metrics())

    for cell in (0, 7):
        notebook.run(cell)
    look()
    for cell in (0, 7):
        for _ in range(2):
            notebook.run(cell)
            notebook.graph(0)
        look()
    assert views[0].startswith("2 ")
    assert views[0] == views[1] == views[2]
    assert page[1]["Frames"] < page[0]["Frames"] + 3
    listeners = [each["JSEventListeners"] for each in page]
    ours, least = listeners[1] - listeners[0], listeners[2] - listeners[1]
    assert ours <= least


def test_the_frame_follows_the_theme(notebook):
    for theme, paper in (("Dark", "rgb(64, 64, 64)"), ("Light", "rgba(0, 0, 0, 0)")):
        notebook.do("apputils:change-theme", theme=f"JupyterLab {theme}")
        target = notebook.graph(0).locator("#target")
        expect(target).to_have_css("background-color", paper)


def test_a_new_kernel_draws_again_and_no_frame_of_the_old_one_is_left(notebook):
    for index in range(2):
        notebook.graph(index)
    frames = notebook.metrics()["Frames"]
    mark = "document.querySelectorAll('.ow-netron').forEach((old) => old.classList.add('old'))"
    notebook.page.evaluate(mark)
    notebook.restart()
    for cell in (0, 2):
        notebook.run(cell)
    notebook.page.locator(".ow-netron:not(.old).drawn >> nth=1").wait_for()
    # another one may come or go late
    until(notebook.page, lambda: notebook.metrics()["Frames"] < frames + 2)
