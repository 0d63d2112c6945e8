"""What is linked in JupyterLab: two graphs; source, FX, ONNX and Netron; Netron and its panes."""

from __future__ import annotations

import onnx
import pytest
from graphs import note
from onnx import parser

from .conftest import at_rest, drawing, expect, until

pytestmark = pytest.mark.browser

MARKUP = "<img src=x onerror=\"document['body']['title']='harmed'\">"

TEXT = '<ir_version: 10, opset_import: ["": 20]> {} (float[2] x) => (float[2] y) {{{}}}'
OLD = TEXT.format("old", "[a] h = Relu(x) [b] g = Neg(h) [c] y = Neg(g)")
NEW = TEXT.format("new", "[a] h = Relu(x) [c] y = Abs(h)")
FILE = "<img src=x onerror=alert(1)>.onnx"

CELLS = f"""\
from onnx_workbench import view
pair = view("old.onnx").compare("new.onnx")
pair
===
print(pair.left.selected, pair.left.marked, pair.right.selected, pair.right.marked)
===
saved = view({FILE!r})
saved.compare("hostile.onnx")
===
saved.heat(dict.fromkeys(saved.origins, 1.0), unit={MARKUP!r})
print(saved.save("hostile.html"))
===
import torch
import onnx_workbench as ow
class Small(torch.nn.Module):
    def forward(self, x, bold="<b>bold</b>"):
        first = torch.relu(x + 1)
        return torch.tanh(first)
artifact = ow.export(Small().eval(), torch.ones(2, 3), "columns.onnx")
shown = ow.view(artifact)
lineage = ow.trace(artifact, torch.ones(2, 3), seconds=0.1)
lineage.beside(shown)
===
print(shown.marked, lineage.floors.marked)"""


def hostile(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.name = model.doc_string = model.graph.doc_string = model.producer_name = MARKUP
    trace = f'File "{MARKUP[:9]}.py", line 1, in {MARKUP[:9]}\n    {MARKUP}'
    scopes = str(["", MARKUP, ""])
    for node in model.graph.node:
        node.op_type, node.name = MARKUP + node.op_type, node.name + MARKUP
        note(node, fx_node=f"%f : {MARKUP}", stack_trace=trace, name_scopes=scopes)
    return model


@pytest.fixture(scope="module")
def notebook(run_cells, kernel, lab):
    old, new = parser.parse_model(OLD), parser.parse_model(NEW)
    for name, model in (("old.onnx", old), ("new.onnx", new)):
        onnx.save(model, lab.folder / name)
    for name, model in ((FILE, old), ("hostile.onnx", new)):
        onnx.save(hostile(model), lab.folder / name)
    return run_cells(CELLS, kernel)


def filled(graph, **fills: str) -> None:
    """Waits until the boxes of these nodes have these colors."""
    for name, fill in fills.items():
        box = graph.locator(f'[id="node-name-{name}"] > .node-item-type path')
        expect(box).to_have_css("fill", f"rgb({fill})")


def places(notebook):
    """Of the two graphs that are compared."""
    return [at_rest(notebook.page.locator(".ow-netron").nth(at)) for at in (0, 1)]


def test_two_graphs_stand_side_by_side_with_what_only_one_has_colored(notebook):
    left, right = notebook.graph(0), notebook.graph(1)
    left_box, right_box = places(notebook)
    assert left_box["y"] == right_box["y"]
    assert left_box["x"] + left_box["width"] <= right_box["x"]
    notebook.page.mouse.move(0, 0)
    filled(left, a="216, 222, 228", b="196, 78, 0", c="196, 78, 0")
    filled(right, a="216, 222, 228", c="0, 114, 178")
    for at, mine in enumerate(("2 nodes only in old.onnx", "1 node only in new.onnx")):
        legend = notebook.page.locator(".ow-legend:not([hidden])").nth(at)
        expect(legend.locator("span")).to_have_text([mine, "1 node in both"])


def test_a_frame_made_lower_still_shows_the_whole_of_a_small_graph(notebook):
    graph, box = notebook.graph(0), notebook.page.locator(".ow-netron").first
    box.evaluate("(box) => { box.style.height = '170px'; }")
    until(graph, "innerHeight < 200")
    notebook.page.locator(".ow-bar").first.get_by_role("button", name="Fit").click()
    until(
        graph,
        """() => [...document.querySelectorAll(
      "#canvas .graph-node, #canvas .graph-input")].every((node) => {
        const { top, bottom } = node.getBoundingClientRect();
        return top >= 0 && bottom <= innerHeight;
      })""",
    )
    box.evaluate("(box) => { box.style.height = ''; }")


def test_in_a_narrow_page_they_stand_one_above_the_other(notebook):
    notebook.page.set_viewport_size({"width": 700, "height": 1000})
    until(notebook.page, lambda: len({box["x"] for box in places(notebook)}) == 1)
    upper, lower = places(notebook)
    assert upper["y"] + upper["height"] <= lower["y"]
    notebook.page.set_viewport_size({"width": 1280, "height": 1000})


def test_a_click_in_one_graph_marks_its_counterpart_in_the_other(notebook):
    left, right = notebook.graph(0), notebook.graph(1)
    left.locator("#node-name-a").click()
    right.locator("#node-name-a.select").wait_for()
    notebook.run_until(1, "a []  ['a']")
    right.locator("#node-name-c").click()
    left.locator("#node-name-c.select").wait_for()
    notebook.run_until(1, "a ['c'] c []")
    expect(notebook.page.locator(".ow-panel").nth(1)).to_contain_text("only here")
    left.locator("#node-name-a").click()  # once more, though it is what was clicked here last
    right.locator("#node-name-a.select").wait_for()
    notebook.run_until(1, "a [] c ['a']")


def test_netrons_find_and_its_sidebar_choose_as_a_click_does(notebook):
    left = notebook.graph(0)
    left.locator("#target").focus()
    notebook.page.keyboard.press("Control+f")
    left.locator(".sidebar-find-search input[type=text]").fill("b")
    left.locator(".sidebar-find-content li", has_text="b").first.click()
    notebook.run_until(1, "b [] c []")
    left.locator(".sidebar-find-content li", has_text="b").first.dblclick()
    notebook.page.locator(".ow-panel").first.get_by_role("tab", name="Node").wait_for()
    notebook.run_until(1, "b [] c []")


def test_markup_in_two_models_a_file_name_and_a_unit_runs_nothing(notebook):
    pair = [notebook.graph(at) for at in (2, 3)]
    pair[0].locator(".graph-node").first.click()
    panel = notebook.page.locator(".ow-panel").nth(2)
    panel.get_by_text(MARKUP).first.wait_for()
    legend = notebook.page.locator(".ow-legend:not([hidden])").nth(2)
    expect(legend).to_contain_text("only in <img src=x one")
    for place in (*pair, notebook.page):
        assert place.evaluate("document.body.title") != "harmed"
        assert place.locator("img[src=x]").count() == 0


def test_a_saved_file_of_a_hostile_model_runs_nothing(notebook, lab):
    page = notebook.page.context.new_page()
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    page.set_content((lab.folder / "hostile.html").read_text(encoding="utf-8"))
    frame = drawing(page)
    for label in ("Model Properties", "Graph Properties"):
        frame.locator(f'button[title="{label}"]').click()
        frame.locator("#sidebar").get_by_text(MARKUP).first.wait_for()
    frame.locator(".graph-node").first.click()
    page.locator(".ow-panel").get_by_text(MARKUP).first.wait_for()
    expect(page.locator(".ow-legend")).to_contain_text(MARKUP)
    for place in (page, frame):
        assert place.evaluate("document.body.title") != "harmed"
        assert place.locator("img[src=x]").count() == 0
    page.close()


def rows(notebook, floor):
    return notebook.page.locator(".ow-floors section").nth(floor).locator(".row")


def lit(notebook, floor, *texts):
    """Waits until these rows of a floor are lit, and no others."""
    shown = rows(notebook, floor).and_(notebook.page.locator(".marked")).locator(".text")
    expect(shown).to_have_text([*texts])


def test_a_line_marks_its_nodes_on_every_floor_and_in_netron(notebook):
    graph = notebook.graph(4)
    rows(notebook, 0).filter(has_text="first = torch.relu(x + 1)").click()
    lit(notebook, 0, "first = torch.relu(x + 1)")
    lit(notebook, 2, "add", "relu")
    lit(notebook, 4, "node_add", "node_relu")
    notebook.run_until(5, "['node_add', 'node_relu'] ['node_add', 'node_relu']")
    expect(graph.locator("#node-name-node_relu")).to_have_count(1)


def test_a_node_clicked_in_netron_marks_its_line(notebook):
    notebook.graph(4).locator("#node-name-node_tanh").click()
    notebook.page.locator(".ow-floors .marked", has_text="return torch.tanh(first)").wait_for()
    lit(notebook, 4, "node_tanh")
    panel = notebook.page.locator(".ow-panel").nth(4)
    panel.locator(".place", has_text="cell \u00b7 Small.forward").wait_for()
    for tab, words in (("Values", "tanh  float32[2, 3]"), ("Times", "Tanh")):
        panel.get_by_role("tab", name=tab).click()
        panel.locator("dl", has_text=words).wait_for()


def test_a_second_click_takes_the_marks_away_and_source_is_no_markup(notebook):
    row = rows(notebook, 2).filter(has_text="relu")
    row.click()
    expect(row).to_have_attribute("aria-selected", "true")
    row.click()
    for floor in (0, 2, 4):
        lit(notebook, floor)
    assert "<b>bold</b>" in notebook.page.locator(".ow-floors").inner_text()
    assert notebook.page.locator(".ow-floors b").count() == 0
