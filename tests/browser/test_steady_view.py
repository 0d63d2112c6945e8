"""What a reader does while a graph is drawn, and what a view keeps."""

from __future__ import annotations

import pytest
from graphs import model_of
from onnx import helper, parser

from onnx_workbench import view

from .conftest import at_rest, drawing, expect, until
from .test_saved_view import BEGUN, FIRST, HELD, HOLD, PICTURES, RELEASE, layered

pytestmark = pytest.mark.browser

# What goes wrong in the page.
ERRORS = """
(window.errors ??= []);
for (const kind of ["error", "unhandledrejection"]) {
  window.addEventListener(kind, (event) => errors.push(String(event.reason ?? event.message)));
}"""
AGAIN = "parent.postMessage({ type: 'ready' }, '*')"  # of the frame: asks for its graph
WRITES = """() => {
  const cell = document.body.appendChild(document.createElement("textarea"));
  cell.focus();
}"""
FOCUSED = "document.activeElement.tagName"
HEAT = {f"node_b{block}_3": block / 1000 for block in range(2)}


@pytest.fixture
def opened(open_file, tmp_path):
    def open_(netron):
        file = netron.save(tmp_path / "graph.html")
        file.write_text(
            file.read_text().replace("const models =", "const models = window.models =")
        )
        page = open_file(file, ERRORS)
        page.evaluate(PICTURES)
        return page, drawing(page)

    return open_


def heated():
    """A view, and a heat that comes to its page later."""
    netron = view(layered(2))
    netron.heat(HEAT, "s")
    return view(layered(2)), netron._heat


def test_a_drawing_takes_no_focus_from_the_cell_and_asks_nothing(opened):
    netron, heat = heated()
    page, graph = opened(netron)
    page.evaluate(WRITES)
    page.evaluate("(heat) => models[0].set('_heat', heat)", heat)
    until(page, "svg.includes('1.00 ms')")
    assert page.evaluate(FOCUSED) == "TEXTAREA"
    graph.evaluate(HOLD)
    page.evaluate("models[0].set('_heat', {})")
    until(graph, BEGUN)
    graph.wait_for_timeout(3000)  # Netron asks after 2.5 s
    page.keyboard.press("Enter")
    graph.evaluate(RELEASE)
    until(page, "!svg.includes('1.00 ms')")
    assert page.evaluate("document.activeElement.value") == "\n"
    expect(page.locator(".ow-netron.drawn")).to_be_visible()


def test_what_comes_during_a_drawing_counts_after_it(opened):
    netron, heat = heated()
    page, graph = opened(netron)
    graph.locator("#node-name-node_b0_0").click()
    page.get_by_role("tab", name="Node").wait_for()
    graph.evaluate(HOLD)
    graph.evaluate(AGAIN)
    until(graph, BEGUN)
    page.evaluate("(heat) => models[0].set('_heat', heat)", heat)
    page.locator(".made-by button").last.click()
    graph.evaluate(RELEASE)
    graph.locator("#canvas").get_by_text("1.00 ms").wait_for()
    graph.locator("#node-name-node_b1_0.select").wait_for()
    page.get_by_role("tab", name="Node").wait_for()


def test_the_choice_survives_a_new_layout_and_a_closed_panel_gives_the_focus_back(opened):
    page, graph = opened(view(layered(2)))
    graph.locator("#canvas [tabindex]").focus()
    page.keyboard.press("Enter")
    page.get_by_role("tab", name="Node").wait_for()
    name = graph.evaluate(HELD)
    graph.evaluate(HOLD)
    page.keyboard.press("Control+k")  # Netron's: from left to right
    until(graph, BEGUN)
    graph.evaluate(RELEASE)
    graph.locator(".graph-node.select").wait_for()
    page.get_by_role("tab", name="Node").focus()
    page.keyboard.press("Escape")
    page.locator(".ow-panel").wait_for(state="hidden")
    until(graph, f"{HELD} === '{name}'")
    page.get_by_role("button", name="Fit").focus()
    page.evaluate("() => { document.onkeydown = ({ key }) => (window.heard = key); }")
    page.keyboard.press("b")
    assert page.evaluate("window.heard") is None


def test_the_keys_of_the_graph_work_on_the_bar_too_and_none_while_it_is_drawn(opened):
    netron = view(layered(12))
    netron.select("blocks.1")
    page, graph = opened(netron)
    count, fit = page.locator(".ow-bar output"), page.get_by_role("button", name="Fit")
    fit.focus()
    for key, said in (("n", "2 of 4"), ("n", "3 of 4"), ("p", "2 of 4")):
        page.keyboard.press(key)
        expect(count).to_have_text(said)
    high = "document.querySelector('#canvas').getBoundingClientRect().height"
    before = graph.evaluate(high)
    page.keyboard.press("f")
    until(graph, f"{high} < {before}")
    graph.evaluate(HOLD)
    graph.evaluate(AGAIN)
    until(graph, BEGUN)
    page.keyboard.press("f")
    page.keyboard.press("n")
    expect(count).to_have_text("3 of 4")
    graph.evaluate(RELEASE)
    graph.locator("#node-name-node_b1_2.current").wait_for()
    assert page.evaluate("errors") == graph.evaluate("errors") == []


def test_a_click_on_close_counts_while_the_panel_is_drawn_anew(opened):
    netron, heat = heated()
    page, graph = opened(netron)
    graph.locator("#node-name-node_b0_0").click()
    page.get_by_role("tab", name="Node").wait_for()
    page.get_by_role("button", name="Close").hover()
    page.mouse.down()
    page.evaluate("(heat) => models[0].set('_heat', heat)", heat)
    page.get_by_role("tab", name="Times").wait_for()
    page.mouse.up()
    page.locator(".ow-panel").wait_for(state="hidden")


FUNCTION = """<ir_version: 10, opset_import: ["": 20, "own": 1]>
outer (float[2] x) => (float[2] y) { [call] h = own.twice(x) [neg] y = Neg(h) }
<domain: "own", opset_import: ["": 20, "own": 1]>
twice (x) => (y) { [add] z = Add(x, x) [sine] y = own.sine(z) }
<domain: "own", opset_import: ["": 20]> sine (x) => (y) { [sin] y = Sin(x) }"""


def test_a_node_of_a_function_is_known_and_a_mark_leaves_or_opens_the_function(opened):
    netron = view(parser.parse_model(FUNCTION))
    page, graph = opened(netron)
    for names in (["neg"], ["call", "neg"]):
        graph.locator(".graph-node").get_by_text("\u0192").click()
        graph.locator('[id="node-name-twice/add"]').click()
        page.locator(".ow-panel header", has_text="twice/add").wait_for()
        assert "twice/add" in netron.origins
        page.evaluate("(names) => models[0].set('marked', names)", names)
        for name in names:
            graph.locator(f"#node-name-{name}.select").wait_for()
    for name in ("sine/sin", "neg", "twice/add"):
        page.evaluate("(name) => models[0].set('marked', [name])", name)
        graph.locator(f'[id="node-name-{name}"].select').wait_for()


NAMES = ("constructor", "__proto__", "bad\x01name", "long" * 75)


def test_names_may_be_anything(opened):
    ends = ["x", *(f"v{at}" for at in range(len(NAMES)))]
    nodes = [
        helper.make_node("Op" * 40 if name is NAMES[-1] else "Relu", [read], [made], name=name)
        for name, read, made in zip(NAMES, ends, ends[1:], strict=False)
    ]
    netron = view(model_of(nodes, ["x"], ends[-1]))
    netron.heat({"bad\x01name": 1.0}, "s")
    page, graph = opened(netron)
    until(page, "svg.includes('bad\ufffdname')")
    panel = page.locator(".ow-panel")
    for at, name in enumerate(NAMES):
        graph.locator(".graph-node > .node-item-type").nth(at).dispatch_event("click")
        panel.locator("header", has_text=name.rpartition("\x01")[2][:11]).wait_for()
        until(page, lambda: page.evaluate("models[0].get('selected')") == name)  # noqa: B023
    close = at_rest(panel.get_by_role("button", name="Close"))
    assert close["x"] + close["width"] <= at_rest(panel)["x"] + at_rest(panel)["width"]


def test_a_pair_in_one_file_is_colored_linked_and_closed_together(opened):
    page, left = opened(view(layered(1)).compare(layered(2)))
    right = drawing(page, 1)
    panels = page.locator(".ow-panel")
    expect(right.locator(".graph-node.heat0")).to_have_count(4)
    for one, other, name in ((right, left, "b0_2"), (left, right, "b0_3")):
        one.locator(f"#node-name-node_{name}").click()
        other.locator(f"#node-name-node_{name}.select").wait_for()
        expect(other.locator(".graph-node.select")).to_have_count(1)
    expect(page.locator(".code .here")).to_have_text([f"{FIRST + 3}    return x.relu()"] * 2)
    for _ in range(2):
        panels.nth(1).get_by_role("button", name="Close").click()
        for at in range(2):
            panels.nth(at).wait_for(state="hidden")
        for graph in (left, right):
            expect(graph.locator(".graph-node.select")).to_have_count(0)
        left.locator("#node-name-node_b0_1").click()
        right.locator("#node-name-node_b0_1.select").wait_for()


def test_a_folded_view_stays_if_the_kernel_is_gone(opened):
    page, graph = opened(view(layered(4), folded=True))
    page.evaluate("() => { models[0].send = () => { throw new Error('Cannot send'); }; }")
    button = page.locator(".ow-whole")
    button.click()
    page.get_by_role("button", name="Cannot send").wait_for()
    expect(page.locator(".ow-netron.drawn")).to_be_visible()
    expect(graph.locator('[id^="node-name-blocks."]')).to_have_count(4)
