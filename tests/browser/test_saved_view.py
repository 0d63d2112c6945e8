"""A saved view opened from the disk: no kernel, no server, and every request refused."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from onnx_workbench import view

from .conftest import KEEP_EVAL, guard

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
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("x", "mask", last)]
    return helper.make_model(helper.make_graph(nodes, "layered", ends[:2], ends[2:]))


@pytest.fixture(scope="module")
def open_file(browser, tmp_path_factory):
    """A page that shows a saved view, its frame, and the requests that were refused."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)
    context.add_init_script(KEEP_EVAL)

    def open_(netron):
        path = netron.save(tmp_path_factory.mktemp("saved") / "graph.html")
        page, refused = context.new_page(), []
        page.route("**/*", lambda route: guard(route, path.as_uri(), refused))
        page.goto(path.as_uri())
        page.locator(".ow-netron.drawn").wait_for()
        return page, page.locator("iframe").element_handle().content_frame(), refused

    yield open_
    context.close()


@pytest.fixture(scope="module")
def small(open_file):
    netron = view(layered(2))
    netron.heat({f"node_b{block}_3": block / 1000 for block in range(2)}, "s")
    return open_file(netron)


def test_heat_and_source_are_in_the_file(small):
    page, graph, refused = small
    assert graph.locator(".graph-node.heat31").count() == 1
    assert page.locator(".ow-legend").inner_text().split() == ["0", "s", "1.00", "ms"]
    graph.locator("#node-name-node_b1_3").click()
    here = page.locator(".code .here")
    assert here.text_content() == f"{FIRST + 3}    return x.relu()"
    place = page.locator(".ow-source .place").text_content()
    assert place == f"{Path(__file__).name} \u00b7 Block.forward"
    assert refused == []


def test_the_line_is_told_before_netron_marks_the_node(small):
    page, graph, _ = small
    node = "#node-name-node_b1_0"
    marked = f"document.querySelectorAll('{node}.select').length"
    at_once = graph.evaluate(f"""document.querySelector('{node} .node-item-type')
        .dispatchEvent(new MouseEvent('click', {{ bubbles: true }})), {marked}""")
    assert at_once == 0
    page.locator(".code .here", has_text="x = x + mask").wait_for()
    graph.wait_for_function(f"{marked} === 1")


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


def test_the_source_stands_beside_a_wide_graph_and_below_a_narrow_one(small):
    page, graph, _ = small
    graph.locator("#node-name-node_b0_0").click()
    page.locator(".code .here").wait_for()
    for width, beside in ((1280, True), (420, False)):
        page.set_viewport_size({"width": width, "height": 900})
        drawn, source = (page.locator(name).bounding_box() for name in (".ow-graph", ".ow-source"))
        assert (source["x"] >= drawn["x"] + drawn["width"]) is beside
        assert (source["y"] >= drawn["y"] + drawn["height"]) is not beside
        assert min(drawn["width"], source["width"]) > 380
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_big_graph_opens_folded_and_all_of_it_is_one_button_away(open_file):
    from playwright.sync_api import expect

    page, graph, refused = open_file(view(layered(BLOCKS)))
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
    page.get_by_role("button", name=re.compile("^Show all 1,040 nodes$")).click()
    graph.locator(f"#node-name-node_b{BLOCKS - 1}_3").wait_for(state="attached")
    assert graph.locator(".graph-node").count() == 4 * BLOCKS
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
