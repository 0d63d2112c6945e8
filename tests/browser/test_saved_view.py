"""A saved view opened from the disk: no kernel, no server, and every request refused."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import onnx
import pytest
from graphs import model_of, note
from onnx import helper

from onnx_workbench import view

from .conftest import FRAMES, at_rest, drawing, expect, findings, until

pytestmark = pytest.mark.browser


class Block:
    def forward(self, x, mask):
        x = x + mask
        x = x * mask
        x = x - mask
        return x.relu()


LINES = Path(__file__).read_text().splitlines()
FIRST = next(at for at, line in enumerate(LINES, 1) if "x = x + mask" in line)


def layered(blocks: int, steps: int = 4) -> onnx.ModelProto:
    """A chain of modules whose nodes say that the lines above made them; two read one mask."""
    nodes, last = [], "x"
    for block in range(blocks):
        for step in range(steps):
            kind, line = ("Add", "Mul", "Sub", "Relu")[step % 4], FIRST + step % 4
            made = f"b{block}_{step}"
            masked = "mask" if block in (0, 20) and step < 4 else last
            read = [last] if kind == "Relu" else [last, masked]
            node = helper.make_node(kind, read, [made], name=f"node_{made}")
            notes = {
                "name_scopes": str(["", f"blocks.{block}", made]),
                "class_hierarchy": str(["m.Model", "m.Block", f"aten.{kind.lower()}.default"]),
                "stack_trace": f'File "{__file__}", line {line}, in forward\n'
                f"    {LINES[line - 1].strip()}",
            }
            note(node, **notes)
            nodes.append(node)
            last = made
    return model_of(nodes, ["x", "mask"], last, "layered")


NOTES = """
window.notes = [];
new MutationObserver(() => {
  const note = document.querySelector(".ow-note")?.textContent;
  if (note && note !== notes.at(-1)) notes.push(note);
}).observe(document, { subtree: true, childList: true, characterData: true });
"""


@pytest.fixture(scope="module")
def saved(open_file, tmp_path_factory):
    """The page of a saved view, and the frame of its graph."""
    folder = tmp_path_factory.mktemp("saved")

    def open_(netron, name="graph.html"):
        page = open_file(netron.save(folder / name), NOTES)
        return page, drawing(page)

    return open_


@pytest.fixture(scope="module")
def heated(saved):
    netron = view(layered(2))
    netron.heat({f"node_b{block}_3": block / 1000 for block in range(2)}, "s")
    return saved(netron, "small.html")


@pytest.fixture
def small(heated):
    """With no panel, and its nodes where they stay: a click on one that moves would miss it."""
    page, graph = heated
    if page.locator(".ow-panel").is_visible():
        page.get_by_role("button", name="Close").click()
    until(graph, "!document.querySelector('.graph-node.select') && target.clientWidth > 900")
    return heated


def test_heat_and_source_are_in_the_file(small):
    page, graph = small
    hot = graph.locator(".graph-node.heat31 > .node-item-type path")
    expect(hot).to_have_count(1)
    expect(hot).to_have_css("fill", "rgb(253, 231, 37)")
    words = graph.locator(".graph-node.heat31 > .node-item-type text")
    expect(words).to_have_css("fill", "rgb(0, 0, 0)")
    expect(page.locator(".ow-legend span")).to_have_text(["0 s", "1.00 ms"])
    graph.locator("#node-name-node_b1_3").click()
    expect(page.locator(".code .here")).to_have_text(f"{FIRST + 3}    return x.relu()")
    place = f"{Path(__file__).name} \u00b7 Block.forward"
    expect(page.locator(".ow-source .place")).to_have_text(place)


HELD = "document.activeElement.ariaLabel"
# The newest picture of the graph, in the page's `svg`.
PICTURES = """() => {
  window.addEventListener("message", ({ data }) => data.type === "picture" && (svg = data.svg));
  window.svg = "";
}"""


def test_the_picture_shows_which_node_was_clicked(small):
    page, graph = small
    page.evaluate(PICTURES)
    graph.locator("#node-name-node_b1_2").click()
    until(page, "/stroke-width: 4px/.test(svg)")
    picture = ElementTree.fromstring(page.evaluate("svg"))
    nodes = [node for node in picture.iter() if node.get("id", "").startswith("node-name-")]
    thick = [node for node in nodes if b"stroke-width: 4px" in ElementTree.tostring(node)]
    assert [node.get("id") for node in thick] == ["node-name-node_b1_2"]


def test_the_line_is_painted_before_the_graph_gets_narrower(small):
    page, graph = small
    # the start of a frame: a timer may be late
    node, frame = "#node-name-node_b0_0", "performance.timeOrigin + document.timeline.currentTime"
    page.evaluate(f"""() => {{
      const panel = document.querySelector(".ow-panel");
      const note = () => requestAnimationFrame(() => (window.painted ??= {frame}));
      new MutationObserver(() => panel.querySelector(".code .here") && note())
        .observe(panel, {{ attributes: true }});
    }}""")
    watch = f"""() => {{
      const wide = target.clientWidth;
      const narrower = () => target.clientWidth < wide && (window.narrower ??= {frame});
      new ResizeObserver(narrower).observe(target);
      const node = document.querySelector("{node}");
      const click = new MouseEvent("click", {{ bubbles: true }});
      node.querySelector(".node-item-type").dispatchEvent(click);
    }}"""
    graph.evaluate(watch)
    page.locator(".code .here", has_text="x = x + mask").wait_for()
    until(graph, "window.narrower && document.querySelector('.graph-node.select')")
    assert page.evaluate("painted") + 1 < graph.evaluate("narrower")


# Of the frame: the pixels of the smallest text, and whether a node is in sight.
SMALLEST = """() => Math.min(...[...document.querySelectorAll("#canvas text")].map((text) =>
  parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a))"""
IN_SIGHT = """(id) => {
  const { top, bottom } = document.getElementById(id).getBoundingClientRect();
  return top >= 0 && bottom <= target.clientHeight;
}"""


def test_one_panel_has_a_tab_for_the_source_for_netron_and_for_each_number(small):
    page, graph = small
    panel, box = page.locator(".ow-panel"), at_rest(page.locator(".ow-netron"))
    graph.locator("#node-name-node_b1_3").click()
    expect(panel.get_by_role("tab")).to_have_text(["Source", "Node", "Times"])
    tabs = {name: panel.get_by_role("tab", name=name) for name in ("Source", "Node", "Times")}
    sidebar = graph.locator("#sidebar")
    expect(sidebar).to_be_hidden()  # it is beneath the source, and takes no focus
    tabs["Node"].click()
    sidebar.get_by_text("b1_2").wait_for()
    frame, place = at_rest(page.locator("iframe")), at_rest(panel)
    until(page, lambda: abs(at_rest(sidebar)["x"] - place["x"]) < 2)
    seen = at_rest(sidebar)
    assert seen["y"] > place["y"] + 20
    assert seen["x"] + seen["width"] <= frame["x"] + frame["width"]
    tabs["Times"].click()
    ranks = ["Relu node_b1_3", "1.00 ms", "Relu node_b0_3", "0 s"]
    until(page, lambda: panel.locator(".ow-rank").inner_text().split("\n") == ranks)
    panel.get_by_role("button", name="node_b0_3").click()
    panel.locator("header", has_text="node_b0_3").wait_for()
    tabs["Source"].click()
    edge = panel.get_by_role("separator")
    for pixels, least, most in ((100, 0.15, 0.25), (900, 0.38, 0.401)):
        at = at_rest(edge)
        page.mouse.move(at["x"] + 3, at["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - pixels, at["y"] + 50, steps=3)
        page.mouse.up()
        until(page, lambda: least < at_rest(panel)["width"] / box["width"] < most)  # noqa: B023
        share = at_rest(panel)["width"] / box["width"]
        until(graph, f"target.clientWidth < {box['width'] * (1 - share) + 1}")
    edge.focus()
    page.keyboard.press("ArrowRight")
    until(page, lambda: at_rest(panel)["width"] < most * box["width"] - 20)
    page.get_by_role("button", name="Full screen").click()
    page.wait_for_function("document.fullscreenElement?.className === 'ow-view'")
    page.get_by_role("button", name="Full screen").click()
    page.wait_for_function("!document.fullscreenElement")


def test_netron_sidebars_that_the_reader_asks_for_are_a_tab_too(small):
    page, graph = small
    panel = page.locator(".ow-panel")
    graph.get_by_role("button", name="Model Properties").click()
    tab = panel.get_by_role("tab", name="Model", selected=True)
    tab.wait_for()
    menu = graph.get_by_role("button", name="Menu")
    menu.focus()
    page.keyboard.press("Enter")
    until(graph, "document.activeElement.className === 'menu-command'")
    labels = graph.locator("#menu .menu-label").all_inner_texts()
    assert "Find..." in labels
    assert not {"Open...", "Report Issue"} & set(labels)
    page.keyboard.press("Escape")  # closes the menu, and not the sidebar below it
    expect(graph.locator("#menu")).to_have_css("opacity", "0")
    expect(tab).to_be_visible()
    graph.locator("#node-name-node_b0_0").click()
    panel.get_by_role("tab", name="Source", selected=True).wait_for()
    graph.locator("#target").press("Escape")
    panel.wait_for(state="hidden")


CODE_FITS = """() => {
  const code = document.querySelector(".code");
  return code && code.scrollWidth <= code.clientWidth;
}"""


def test_the_panel_stands_beside_a_wide_graph_and_below_a_narrow_one(small):
    page, graph = small
    graph.locator("#node-name-node_b0_0").click()
    page.locator(".code .here").wait_for()
    for width, beside in ((1280, True), (400, False)):
        page.set_viewport_size({"width": width, "height": 900})
        page.locator(".ow-netron.narrow").wait_for(state="detached" if beside else "visible")
        drawn, panel = (at_rest(page.locator(name)) for name in (".ow-graph", ".ow-panel"))
        assert (panel["x"] >= drawn["x"] + drawn["width"]) is beside
        assert (panel["y"] >= drawn["y"] + drawn["height"]) is not beside
        assert drawn["width"] >= 0.6 * width
        until(graph, f"target.clientHeight < {drawn['height'] + 1}")
        page.wait_for_function(CODE_FITS)
        until(page, f"document.documentElement.scrollWidth <= {width}")
    page.set_viewport_size({"width": 1280, "height": 900})


def test_frames_nodes_and_texts_have_names_and_contrast(small):
    page, graph = small
    expect(page.locator("iframe")).to_have_attribute("title", "Graph of layered")
    expect(graph.get_by_role("button", name="Relu, node_b1_3, 1.00 ms")).to_have_count(1)
    expect(graph.locator("#canvas")).to_have_attribute("aria-label", re.compile("layered"))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for tab in ("Source", "Times", "Node"):
            graph.locator("#node-name-node_b1_3").click()
            page.get_by_role("tab", name=tab).click()
            assert findings(page) == []
        assert findings(graph) == []  # with its sidebar, which only that last tab shows
    page.emulate_media(color_scheme="light")
    page.get_by_role("tab", name="Source").click()


def test_the_arrow_keys_go_along_the_edges_and_enter_is_a_click(saved):
    """Two branches: from the first node both can be reached, and the last from both."""
    edges = (
        *(("Relu", "x", "a"), ("Neg", "a", "left"), ("Abs", "left", "under")),
        *(("Exp", "a", "right"),),
    )
    nodes = [helper.make_node(op, [read], [made], name=made) for op, read, made in edges]
    nodes.append(helper.make_node("Add", ["under", "right"], ["y"], name="last"))
    page, graph = saved(view(model_of(nodes, ["x"], "y")))
    graph.locator("#canvas [tabindex]").focus()
    page.evaluate(PICTURES)
    seen = []
    for key in ("Down", "Down", "Down", "Up", "Up", "Up", "Right", "Right", "Right", "Down"):
        page.keyboard.press(f"Arrow{key}")
        seen.append(graph.evaluate(HELD).split(", ")[1])
    down, right = ["left", "under", "last"], ["left", "under", "right"]
    assert seen == [*down, "under", "left", "a", *right, "last"]
    page.keyboard.press("Enter")
    page.locator(".ow-panel header", has_text="last").wait_for()
    until(page, "/stroke-width: 4px/.test(svg)")  # the picture of it takes no focus
    page.keyboard.press("ArrowUp")
    assert graph.evaluate(HELD).split(", ")[1] == "under"


def test_marked_nodes_are_marked_and_the_first_of_them_is_in_sight(saved):
    netron = view(layered(12))
    chosen = netron.select("blocks.10")
    page, graph = saved(netron)
    graph.locator("#node-name-node_b10_0.select").wait_for()
    assert len(chosen) == 4
    expect(graph.locator(".graph-node.select")).to_have_count(4)
    until(graph, f"({IN_SIGHT})('node-name-node_b10_0')")
    panel = page.locator(".ow-panel")
    expect(panel.locator("dl").first).to_contain_text("moduleblocks.10")
    expect(panel.locator(".code .here")).to_contain_text("x = x + mask")
    expect(page.locator(".ow-bar output")).to_have_text("1 of 4")
    graph.locator("#target").focus()
    page.keyboard.press("n")
    page.locator(".ow-bar output", has_text="2 of 4").wait_for()
    graph.locator("#node-name-node_b10_1.current").wait_for()
    width = "(name) => getComputedStyle(document.querySelector(name)).strokeWidth"
    for name, pixels in (("10_1", "5px"), ("10_0", "4px"), ("9_0", "1px")):
        assert graph.evaluate(width, f"#node-name-node_b{name} > .node-border") == pixels
    pale = "(name) => getComputedStyle(document.querySelector(name)).fillOpacity"
    for name, share in (("10_1", "1"), ("9_0", "0.2")):
        assert graph.evaluate(pale, f"#node-name-node_b{name} > .node-item-type > path") == share


def test_the_first_look_can_be_read_and_one_key_shows_the_whole(saved):
    page, graph = saved(view(layered(12)))
    first, last = (f"({IN_SIGHT})('node-name-node_{name}')" for name in ("b0_0", "b11_3"))
    read = f"({SMALLEST})() >= 13"
    until(graph, f"{read} && {first} && !{last}")
    graph.locator("#target").focus()
    page.keyboard.press("f")
    until(graph, f"{first} && {last}")
    page.keyboard.press("f")
    until(graph, read)


def test_a_graph_that_is_too_wide_opens_where_most_of_its_first_nodes_are(saved):
    """And not at its first input, which stands at one side of them."""
    names = [f"v{at}" for at in range(12)]
    nodes = [helper.make_node("Relu", [name], [f"{name}_{name}"], name=name) for name in names]
    nodes.append(
        helper.make_node("Concat", [f"{n}_{n}" for n in names], ["y"], name="concat", axis=0)
    )
    page, graph = saved(view(model_of(nodes, names, "y")))
    page.set_viewport_size({"width": 400, "height": 900})
    until(
        graph,
        """() => {
      const concat = document.querySelector("[id^=node-name-concat]");
      const { left, right } = concat.getBoundingClientRect();
      return innerWidth === 400 && Math.abs(left + right - innerWidth) < 120;
    }""",
    )


BLOCKS, STEPS = 52, 20


def test_a_big_graph_opens_folded_and_all_of_it_is_one_button_away(saved):
    page, graph = saved(view(layered(BLOCKS, STEPS)))
    assert page.evaluate("notes.slice(0, 2)") == [
        "Loading Netron\u2026",
        "Drawing 1,040 nodes\u2026",
    ]
    expect(graph.locator('[id^="node-name-blocks."]')).to_have_count(BLOCKS)
    expect(graph.locator(".graph-node > .node-item-type", has_text="\u2191 mask")).to_have_count(1)
    expect(graph.locator("#node-name-node_b7_2")).to_have_count(0)
    box = graph.locator('[id="node-name-blocks.7"]')
    box.get_by_text("Block", exact=True).click()
    page.get_by_text("A module, folded. Press + on its box to expand it.").wait_for()
    box.get_by_text("+").click()
    graph.locator("#node-name-node_b7_2").wait_for()
    expect(graph.locator('[id^="node-name-node_"]')).to_have_count(STEPS)
    button_text = "Show all 1,040 nodes"
    button = page.get_by_role("button", name=button_text, exact=True)
    row, drawn = at_rest(button), at_rest(page.locator("iframe"))
    assert row["y"] + row["height"] <= drawn["y"]  # it covers nothing of the graph
    button.click()
    last = f"{BLOCKS - 1}_{STEPS - 1}"
    ends = [graph.locator(f"#node-name-node_b{end}") for end in ("0_3", last)]
    ends[1].wait_for(state="attached")
    expect(graph.locator(".graph-node")).to_have_count(BLOCKS * STEPS)
    drawing(page)
    for top, shown in ((0, ("visible", "hidden")), (10**6, ("hidden", "visible"))):
        graph.evaluate(f"document.getElementById('target').scrollTo(0, {top})")
        for end, visibility in zip(ends, shown, strict=True):
            expect(end).to_have_css("visibility", visibility)
    expect(page.locator(".ow-panel")).not_to_be_visible()  # it was of a box
    for text, boxes in (("Fold", BLOCKS), (button_text, 0)):
        page.get_by_role("button", name=text, exact=True).press("Enter")
        expect(graph.locator('[id^="node-name-blocks."]')).to_have_count(boxes)
        assert page.evaluate("document.activeElement.tagName") == "IFRAME"  # its keys work


# Of the frame: from now on a drawing waits, in its layout, for its release.
HOLD = """() => {
  const { postMessage } = Worker.prototype;
  window.held = [];
  Worker.prototype.postMessage = function (...args) {
    held.push(() => postMessage.apply(this, args));
  };
  window.release = () => {
    Worker.prototype.postMessage = postMessage;
    for (const one of held) one();
  };
}"""
BEGUN, RELEASE = "held.length > 0", "release()"
# The next drawing in the frame asks for its layout after a second, and is `late` then.
LATE = """() => {
  const frame = requestAnimationFrame;
  requestAnimationFrame = (act) => {
    requestAnimationFrame = frame;
    setTimeout(() => frame((time) => (act(time), (window.late = true))), 1000);
  };
}"""


def test_the_whole_graph_waits_for_a_drawing_that_is_under_way(saved):
    page, graph = saved(view(layered(3), folded=True))
    graph.evaluate(LATE)
    graph.evaluate(HOLD)
    graph.locator('[id="node-name-blocks.1"]').get_by_text("+").click()
    page.locator(".ow-whole").click()
    page.wait_for_function("!document.querySelector('.ow-netron.drawn')")
    until(graph, f"window.late && {BEGUN}")
    graph.evaluate(FRAMES)
    graph.evaluate(RELEASE)
    drawing(page)
    expect(graph.locator(".graph-node")).to_have_count(12)


def test_a_box_of_no_module_says_how_many_nodes_are_in_it(saved):
    model = layered(BLOCKS, STEPS)
    for node in model.graph.node:
        node.ClearField("metadata_props")
    page, graph = saved(view(model))
    box = graph.locator('[id="node-name-nodes 33 to 64"]')
    box.get_by_text("32 nodes", exact=True).click()
    page.get_by_text("32 nodes, folded. Press + on its box to expand it.").wait_for()
    expect(page.locator(".ow-panel")).not_to_contain_text("module")
