"""A saved view opened from the disk: no kernel, no server, and every request refused."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from onnx_workbench import view

from .conftest import KEEP_EVAL, guard, until

pytestmark = pytest.mark.browser

BLOCKS = 260


class Block:
    def forward(self, x, mask):
        x = x + mask
        x = x * mask
        x = x - mask
        return x.relu()


LINES = Path(__file__).read_text().splitlines()
FIRST = next(at for at, line in enumerate(LINES, 1) if "x = x + mask" in line)


def layered(blocks: int) -> onnx.ModelProto:
    """A chain of modules whose nodes say that the lines above made them; some read one mask."""
    nodes, last = [], "x"
    for block in range(blocks):
        for step, kind in enumerate(("Add", "Mul", "Sub", "Relu")):
            made = f"b{block}_{step}"
            read = [last, *["mask" if block % 20 == 0 else last] * (kind != "Relu")]
            node = helper.make_node(kind, read, [made], name=f"node_{made}")
            notes = {
                "name_scopes": str(["", f"blocks.{block}", made]),
                "class_hierarchy": str(["m.Model", "m.Block", f"aten.{kind.lower()}.default"]),
                "stack_trace": f'File "{__file__}", line {FIRST + step}, in forward\n'
                f"    {LINES[FIRST + step - 1].strip()}",
            }
            for key, value in notes.items():
                node.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=value)
            nodes.append(node)
            last = made
    return model_of(nodes, ["x", "mask"], last)


def model_of(nodes: list[onnx.NodeProto], inputs: list[str], output: str) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in (*inputs, output)]
    return helper.make_model(helper.make_graph(nodes, "layered", ends[:-1], ends[-1:]))


NOTES = """
window.notes = [];
new MutationObserver(() => {
  const note = document.querySelector(".ow-note")?.textContent;
  if (note && note !== notes.at(-1)) notes.push(note);
}).observe(document, { subtree: true, childList: true, characterData: true });
"""


def frame(page, index=0):
    page.locator(".ow-netron").nth(index).and_(page.locator(".drawn")).wait_for()
    return page.locator("iframe").nth(index).element_handle().content_frame()


@pytest.fixture(scope="module")
def open_file(browser, tmp_path_factory):
    """A page that shows a saved view, its frame, and the requests that were refused."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)
    context.add_init_script(KEEP_EVAL + NOTES)

    def open_(netron):
        path = netron.save(tmp_path_factory.mktemp("saved") / "graph.html")
        page, refused = context.new_page(), []
        page.route("**/*", lambda route: guard(route, path.as_uri(), refused))
        page.goto(path.as_uri())
        return page, frame(page), refused

    yield open_
    context.close()


@pytest.fixture(scope="module")
def small(open_file):
    netron = view(layered(2))
    netron.heat({f"node_b{block}_3": block / 1000 for block in range(2)}, "s")
    return open_file(netron)


def test_heat_and_source_are_in_the_file(small):
    page, graph, refused = small
    hot = graph.locator(".graph-node.heat31 > .node-item-type path")
    assert hot.evaluate_all("(all) => all.map((one) => getComputedStyle(one).fill)") == [
        "rgb(253, 231, 37)"
    ]
    assert page.locator(".ow-legend").inner_text().split() == ["0", "s", "1.00", "ms"]
    graph.locator("#node-name-node_b1_3").click()
    here = page.locator(".code .here")
    assert here.text_content() == f"{FIRST + 3}    return x.relu()"
    place = page.locator(".ow-source .place").text_content()
    assert place == f"{Path(__file__).name} \u00b7 Block.forward"
    assert refused == []


def test_the_picture_shows_which_node_was_clicked(small):
    page, graph, _ = small
    page.evaluate("""() => {
      window.pictured = new Promise((done, fail) => {
        window.addEventListener("message", ({ data }) => data.type === "picture" && done(data.svg));
        setTimeout(fail, 20000, new Error("no picture"));
      });
    }""")
    graph.locator("#node-name-node_b1_2").click()
    picture = ElementTree.fromstring(page.evaluate("pictured"))
    nodes = [node for node in picture.iter() if node.get("id", "").startswith("node-name-")]
    thick = [node for node in nodes if b"stroke-width: 2px" in ElementTree.tostring(node)]
    assert [node.get("id") for node in thick] == ["node-name-node_b1_2"]


def test_the_arrow_keys_go_from_node_to_node_and_enter_shows_the_line(small):
    page, graph, _ = small
    stop = graph.locator("#canvas [tabindex]")
    stop.focus()
    assert stop.text_content().startswith("Add")
    for key, kind in (("ArrowDown", "Mul"), ("ArrowDown", "Sub"), ("ArrowUp", "Mul")):
        page.keyboard.press(key)
        assert graph.evaluate("document.activeElement.textContent").startswith(kind)
    page.keyboard.press("Enter")
    page.locator(".code .here", has_text="x = x * mask").wait_for()


def test_the_line_is_painted_before_netron_marks_the_node_and_the_graph_gets_narrower(small):
    page, graph, _ = small
    page.locator(".ow-source header button").click()
    page.evaluate("""() => {
      const [frame, panel] = ["iframe", ".ow-source"].map((one) => document.querySelector(one));
      window.widths = [frame.clientWidth];
      const note = () => widths.push(frame.clientWidth);
      new MutationObserver(note).observe(panel, { attributes: true });
    }""")
    node = "#node-name-node_b0_0"
    marked = f"document.querySelectorAll('{node}.select').length"
    assert not graph.evaluate(f"""document.querySelector('{node} .node-item-type')
        .dispatchEvent(new MouseEvent('click', {{ bubbles: true }})), {marked}""")
    page.locator(".code .here", has_text="x = x + mask").wait_for()
    until(graph, f"{marked} === 1 && innerWidth < 900")
    before, at_once = page.evaluate("widths")
    assert at_once == before > 900


def test_the_source_stands_beside_a_wide_graph_and_below_a_narrow_one(small):
    page, graph, _ = small
    graph.locator("#node-name-node_b0_0").click()
    page.locator(".code .here").wait_for()
    for width, beside in ((1280, True), (400, False)):
        page.set_viewport_size({"width": width, "height": 900})
        drawn, source = (page.locator(name).bounding_box() for name in (".ow-graph", ".ow-source"))
        assert (source["x"] >= drawn["x"] + drawn["width"]) is beside
        assert (source["y"] >= drawn["y"] + drawn["height"]) is not beside
        assert min(drawn["width"], source["width"]) > 380
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_marked_nodes_are_marked_and_the_first_of_them_is_in_sight(open_file):
    netron = view(layered(60))
    chosen = netron.select("blocks.58")
    page, graph, _ = open_file(netron)
    graph.locator("#node-name-node_b58_0.select").wait_for()
    assert graph.locator(".graph-node.select").count() == len(chosen) == 4
    until(
        graph,
        """() => {
      const first = document.getElementById("node-name-node_b58_0");
      const { top, bottom } = first.getBoundingClientRect();
      return top >= 0 && bottom <= innerHeight;
    }""",
    )
    panel = page.locator(".ow-source")
    assert "module\nblocks.58" in panel.inner_text()
    assert panel.locator(".code .here").inner_text().endswith("x = x + mask")


def test_a_graph_that_is_too_wide_opens_where_most_of_its_first_nodes_are(open_file):
    """And not at its first input, which stands at one side of them."""
    names = [f"v{at}" for at in range(12)]
    nodes = [helper.make_node("Relu", [name], [f"{name}_{name}"], name=name) for name in names]
    nodes.append(
        helper.make_node("Concat", [f"{n}_{n}" for n in names], ["y"], name="concat", axis=0)
    )
    page, drawn, _ = open_file(view(model_of(nodes, names, "y")))
    page.set_viewport_size({"width": 400, "height": 900})
    until(
        drawn,
        """() => {
      const concat = document.querySelector("[id^=node-name-concat]");
      const { left, right } = concat.getBoundingClientRect();
      return innerWidth === 400 && Math.abs(left + right - innerWidth) < 120;
    }""",
    )


def test_two_graphs_in_one_file_are_colored_and_linked(open_file):
    pair = view(layered(1)).compare(layered(2))
    page, left, refused = open_file(pair)
    right = frame(page, 1)
    legends = page.locator(".ow-legend").all_inner_texts()
    assert [legend.split("\n")[0] for legend in legends] == [
        "0 nodes only in layered (left)",
        "4 nodes only in layered (right)",
    ]
    assert right.locator(".graph-node.heat0").count() == 4
    for one, other, name in ((left, right, "b0_1"), (right, left, "b0_2"), (left, right, "b0_1")):
        one.locator(f"#node-name-node_{name}").click()
        other.locator(f"#node-name-node_{name}.select").wait_for()
        assert other.locator(".graph-node.select").count() == 1
    assert page.locator(".code .here").all_inner_texts() == [f"{FIRST + 1}\n    x = x * mask"] * 2
    assert refused == []


def test_a_big_graph_opens_folded_and_all_of_it_is_one_button_away(open_file):
    from playwright.sync_api import expect

    page, graph, refused = open_file(view(layered(BLOCKS)))
    assert page.evaluate("notes.slice(0, 2)") == [
        "Loading Netron\u2026",
        "Drawing 1,040 nodes\u2026",
    ]
    kinds = graph.locator(".graph-node > .node-item-type")
    stubs = [kind for kind in kinds.all_text_contents() if kind.startswith("\u2191 mask")]
    assert graph.locator('[id^="node-name-blocks."]').count() == BLOCKS
    assert len(stubs) == BLOCKS // 20 - 1
    assert graph.locator("#node-name-node_b7_2").count() == 0
    box = graph.locator('[id="node-name-blocks.7"]')
    box.get_by_text("Block", exact=True).click()
    page.get_by_text("A module, folded. Press + on its box to expand it.").wait_for()
    box.get_by_text("+").click()
    graph.locator("#node-name-node_b7_2").wait_for()
    assert graph.locator('[id^="node-name-node_"]').count() == 4
    button = page.get_by_role("button", name="Show all 1,040 nodes", exact=True)
    row, drawn = button.bounding_box(), page.locator("iframe").bounding_box()
    assert row["y"] + row["height"] <= drawn["y"]  # it covers nothing of the graph
    button.click()
    graph.locator(f"#node-name-node_b{BLOCKS - 1}_3").wait_for(state="attached")
    assert graph.locator(".graph-node").count() == 4 * BLOCKS
    assert not button.is_visible()
    assert page.locator("iframe").bounding_box()["y"] < row["y"]  # the row is the graph's now
    page.locator(".ow-netron.drawn").wait_for()
    ends = [graph.locator(f"#node-name-node_b{block}_3") for block in (0, BLOCKS - 1)]
    for top, shown in ((0, ("visible", "hidden")), (10**6, ("hidden", "visible"))):
        graph.evaluate(f"document.getElementById('target').scrollTo(0, {top})")
        for end, visibility in zip(ends, shown, strict=True):
            expect(end).to_have_css("visibility", visibility)
    assert refused == []


def test_a_box_of_no_module_says_how_many_nodes_are_in_it(open_file):
    model = layered(BLOCKS)
    for node in model.graph.node:
        node.ClearField("metadata_props")
    page, graph, _ = open_file(view(model))
    box = graph.locator('[id="node-name-nodes 33 to 64"]')
    box.get_by_text("32 nodes", exact=True).click()
    page.get_by_text("32 nodes, folded. Press + on its box to expand it.").wait_for()
    assert "module" not in page.locator(".ow-source").inner_text()
