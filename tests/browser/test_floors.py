"""The floors on a saved page: no kernel, every request refused. test_notebooks.py has them in
JupyterLab."""

from __future__ import annotations

from itertools import pairwise

import pytest
import sheets

import onnx_workbench as ow
from onnx_workbench.lineage.page import document

from .conftest import at_rest, expect, findings

pytestmark = pytest.mark.browser

SOURCE, BYTECODE, FX, DECOMPOSED, ONNX, OPTIMIZED, KERNEL = range(7)
MARKUP = "</script><img src=x onerror=\"document['body']['title']='harmed'\">"


class Page:
    """A saved page with floors."""

    def __init__(self, page):
        self.page = page
        page.locator(".ow-floors .row").first.wait_for()

    def floor(self, number):
        return self.page.locator(".ow-floors section").nth(number)

    def row(self, number, text):
        return self.floor(number).locator(".row", has_text=text).first

    def texts(self, number, kind="marked"):
        return [
            t.strip() for t in self.floor(number).locator(f".row.{kind} .text").all_inner_texts()
        ]

    def lit(self):
        return [self.texts(number) for number in range(7)]

    def open_all(self):
        folded = self.page.locator(".ow-floors .folded .head")
        while folded.count():
            folded.first.click()

    def choose(self, number, row):
        self.page.evaluate("(chosen) => model.set('chosen', chosen)", [number, row])

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    @property
    def status(self):
        return self.page.locator(".ow-floors output").inner_text()

    @property
    def focused(self):
        return self.page.evaluate("document.activeElement.ariaLabel")


@pytest.fixture(scope="module")
def opened(open_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("floors") / "floors.html"

    def open_(sheet, chosen=()):
        html = document(sheet["title"], sheet, chosen)
        html = html.replace("render({ model, el:", "render({ model: (window.model = model), el:")
        path.write_text(html, encoding="utf-8")
        return Page(open_file(path))

    return open_


CHAIN = [
    *(["x = torch.relu(self.conv(x))"], ["LOAD_FAST x0", "LOAD_FAST x1"], ["conv2d", "relu"]),
    *(["convolution", "relu"], ["node_conv2d", "node_relu"], ["fused Conv"], ["fused Conv"]),
]


def test_a_choice_on_each_floor_lights_its_chain_on_all_others(opened):
    page = opened(sheets.small())
    page.open_all()
    for number, text in enumerate(["torch.relu", "x1", "relu", "relu", "relu", "fused", "fused"]):
        page.row(number, text).click()
        alone = number in (BYTECODE, FX, DECOMPOSED, ONNX)
        expected = [names[-1:] if alone else names for names in CHAIN]
        assert page.lit() == expected, number
        assert page.texts(number, "chosen") == expected[number]
    page.row(KERNEL, "fused").click()
    assert page.lit() == [[]] * 7


def test_nodes_of_one_kernel_converge_and_the_status_counts_them(opened):
    page = opened(sheets.small())
    page.row(SOURCE, "torch.relu").click()
    assert page.status == "line 12: 2 FX nodes, 2 ONNX nodes, 1 kernel, 40 us"
    curves = [p.get_attribute("d") for p in page.page.locator(".body > svg path").all()]
    assert len(curves) == 2 + 2 + 2
    assert len({curve.split()[-1] for curve in curves[-2:]}) == 1
    page.floor(ONNX).locator(".head").click()
    expect(page.page.locator(".body > svg path")).to_have_count(2 + 2)


def test_an_inserted_node_and_a_folded_constant_say_so(opened):
    page = opened(sheets.small())
    page.row(KERNEL, "Transpose").click()
    assert page.status == "Transpose_0: 5 us"
    assert "inserted by the optimizer" in page.page.locator(".details").inner_text()
    page.row(ONNX, "node_add").click()
    assert page.texts(KERNEL) == []
    assert "removed by the optimizer: a constant" in page.page.locator(".details").inner_text()


def test_a_value_shows_its_numbers_its_picture_and_how_far_it_is_off(opened):
    page = opened(sheets.small(), chosen=[ONNX, 0])
    shown = page.page.locator(".details").inner_text()
    for words in ("float32[1, 1, 8, 8]", "0 to 3.1, mean 0.2", "agrees: 1e-07 of 1e-05 allowed"):
        assert words in shown
    says = "Heat map of conv2d, 8 by 8, from 0 (dark) to 3.1 (bright)"
    canvas = page.page.get_by_role("img", name=says)
    first = "(c) => [...c.getContext('2d').getImageData(0, 0, 1, 1).data]"
    assert canvas.evaluate(first) == [68, 1, 84, 255]
    assert "ConvActivationFusion" in shown
    page.row(ONNX, "node_mul").click()
    differs = page.page.locator(".details .differs")
    assert differs.inner_text() == "✗ differs: 0.003 of 1e-05 allowed"


def test_arrow_keys_play_the_model_from_the_first_line_to_the_last(opened):
    page = opened(sheets.small())
    page.floor(FX).locator(".list").focus()
    seen = []
    for _ in range(5):
        page.press("ArrowDown")
        seen.append(page.texts(SOURCE, "chosen")[0].split()[-1])
    assert seen == ["torch.relu(self.conv(x))", "1)", "self.attention(x)", "x.mean()", "x.mean()"]
    assert page.focused == "FX node"
    page.press("ArrowUp")
    assert page.texts(FX) == ["matmul", "softmax", "matmul_1"]


def test_left_and_right_go_to_the_same_chain_and_enter_chooses(opened):
    page = opened(sheets.small(), chosen=[SOURCE, 3])
    page.floor(SOURCE).locator(".list").focus()
    page.press("ArrowRight", "ArrowRight")
    active = page.floor(ONNX).locator(".list").get_attribute("aria-activedescendant")
    assert "node_add" in page.page.locator(f"#{active}").inner_text()
    page.press("Enter")
    assert page.texts(ONNX) == page.texts(ONNX, "chosen") == ["node_add"]
    page.press("Shift+ArrowDown", " ")
    assert page.texts(ONNX) == ["node_mul"]
    page.press("ArrowLeft", "ArrowLeft", "ArrowLeft")
    assert page.focused == "Source line"
    page.press("Escape")
    assert page.lit() == [[]] * 7


def test_options_have_names_places_and_a_state(opened):
    page = opened(sheets.small(), chosen=[SOURCE, 3])
    option = page.floor(ONNX).get_by_role("option", selected=True).first
    assert option.get_attribute("aria-label").startswith("Add, node_add, removed by the optimizer")
    assert (option.get_attribute("aria-posinset"), option.get_attribute("aria-setsize")) == (
        "3",
        "8",
    )
    assert page.page.get_by_role("listbox").count() == 4
    name = "13, x = x * (self.scale + 1), 10 us"
    assert page.floor(SOURCE).get_by_role("option", name=name).count() == 1


def test_a_folded_floor_counts_what_is_lit_and_opens_by_key(opened):
    page = opened(sheets.small(), chosen=[SOURCE, 2])
    head = page.floor(BYTECODE).get_by_role("button")
    assert head.inner_text() == "Bytecode2"
    head.focus()
    page.press("Enter")
    assert page.texts(BYTECODE) == CHAIN[BYTECODE]
    assert head.get_attribute("aria-expanded") == "true"


def test_library_lines_open_below_their_caller(opened):
    page = opened(sheets.small())
    inner = page.floor(SOURCE).get_by_text("scores = q @ k.T")
    assert inner.count() == 0
    page.row(SOURCE, "self.attention").locator(".toggle").click()
    inner.click()
    assert page.texts(ONNX) == ["node_matmul"]
    page.row(SOURCE, "self.attention").locator(".toggle").click()
    assert page.texts(SOURCE, "marked") == ["x = self.attention(x)"]  # stands for the line inside


def test_repeated_blocks_are_one_row_that_opens(opened):
    page = opened(sheets.deep(48))
    folded = page.row(ONNX, "node_conv2d_0")
    assert folded.locator(".times").inner_text() == "\u00d74"
    sums = page.floor(KERNEL).locator(".cell").all_inner_texts()
    assert sums[:2] == [str(1 + 4 + 7 + 10), "2"]  # of the group in microseconds, of one kernel
    folded.click()
    assert page.texts(SOURCE) == [f"x = self.block{n}(x)" for n in (0, 3, 6, 9)]
    folded.locator(".toggle").click()
    assert page.texts(ONNX) == [f"node_conv2d_{n}" for n in (0, 12, 24, 36)]
    page.row(ONNX, "node_conv2d_12").click()
    assert page.texts(SOURCE) == ["x = self.block3(x)"]
    page.press("-")


def test_search_marks_all_floors_and_enter_goes_from_match_to_match(opened):
    page = opened(sheets.deep(48))
    box, count = page.page.get_by_role("searchbox"), page.page.locator(".count")
    box.fill("RELU_14")
    assert count.inner_text() == "3 matches"  # FX, decomposed and ONNX
    assert page.floor(DECOMPOSED).locator(".found").inner_text() == "1"
    seen = []
    for _ in range(4):
        page.press("Enter")
        seen.append((count.inner_text(), page.texts(SOURCE)))
    assert [said for said, _ in seen] == ["1 of 3", "2 of 3", "3 of 3", "1 of 3"]
    assert {tuple(lit) for _, lit in seen} == {("x = self.block3(x)",)}
    assert page.texts(FX) == ["relu_14"]  # its group is open now
    assert page.floor(FX).locator("mark").all_inner_texts() == ["relu_14"]
    page.press("Escape")
    assert (box.input_value(), count.inner_text(), page.page.locator("mark").count()) == ("", "", 0)


def test_flame_boxes_choose_their_line_and_change_their_order(opened):
    page = opened(sheets.small())
    page.page.get_by_text("Time as a flame graph").click()
    boxes = page.page.locator(".flame > *")  # drawn by an event that follows the click
    lines = ["forward", "torch.relu", "self.attention(x)", "activation.py:95"]
    expect(boxes).to_have_text(lines)
    page.page.locator(".flame").get_by_role("button", name="self.attention").click()
    assert page.texts(SOURCE, "chosen") == ["x = self.attention(x)"]
    page.page.get_by_label("by module").check()
    expect(boxes).to_have_text(["Net", "attention", "activation.py:95"])


def test_where_the_export_stopped_the_line_is_marked_and_the_reason_stands_above(opened):
    made = sheets.small()
    made["stop"] = {"row": 6, "reason": "No rule for softmax.", "hint": "Teach one: lesson 08."}
    page = opened(made)
    assert page.page.locator(".stop").inner_text().split("\n") == [
        "✗ No rule for softmax.",
        "Teach one: lesson 08.",
    ]
    assert page.texts(SOURCE, "stopped") == ["scores = q @ k.T"]
    page = opened(made | {"stop": {"row": -1, "reason": "No tensor.", "hint": "Return one."}})
    assert page.page.locator(".stop").inner_text().startswith("✗ No tensor.")
    assert page.texts(SOURCE, "stopped") == []
    assert len(page.texts(SOURCE, "row")) > 2


def test_a_floor_without_rows_says_why(opened):
    made = sheets.small()
    made["floors"][FX] |= {"rows": [], "note": "A loaded file has no FX graph."}
    made["links"] = [[*link[:FX], -1, *link[FX + 1 :]] for link in made["links"]]
    assert "A loaded file has no FX graph." in opened(made).floor(FX).inner_text()


def test_markup_of_a_model_is_text(opened):
    made = sheets.small()
    made["title"] = MARKUP
    for floor in made["floors"]:
        floor["note"] = floor["title"] = MARKUP
        for row in floor["rows"]:
            row.update({key: MARKUP + str(row.get(key, "")) for key in ("t", "m", "x", "k")})
    for value in made["values"].values():
        value["facts"] = [(MARKUP, MARKUP)]
        value["picture"]["label"] = MARKUP
    made["flame"]["stack"]["name"] = MARKUP
    made["stop"] = {"row": 3, "reason": MARKUP, "hint": MARKUP}
    page = opened(made, chosen=[ONNX, 0])
    page.page.locator("summary").click()
    page.page.get_by_role("searchbox").fill("<img")
    page.press("Enter")
    assert page.page.locator(".ow-floors").inner_text().count("<img src=x") > 20
    assert page.page.locator("img").count() == 0
    assert page.page.evaluate("document.body.title") != "harmed"


def test_a_big_model_keeps_few_rows_in_the_page(opened):
    nodes = 20_000
    page = opened(sheets.deep(nodes))
    rows = page.page.locator(".ow-floors .row")
    assert rows.count() < 300
    page.row(SOURCE, "self.block1(").click()
    page.floor(ONNX).locator(".list").evaluate("(list) => { list.scrollTop = list.scrollHeight; }")
    page.row(ONNX, f"node_add_{nodes - 1}").click()
    page.floor(SOURCE).locator(".marked", has_text=f"block{nodes // 4 - 1}(").wait_for()
    assert rows.count() < 300


FITS = """(narrow) => document.documentElement.scrollWidth <= innerWidth &&
  document.querySelector(".ow-floors").classList.contains("narrow") === narrow"""


def test_nothing_is_wider_than_the_page(opened):
    page = opened(sheets.small(), chosen=[SOURCE, 2])
    for width, narrow in ((1280, False), (800, False), (500, True)):
        page.page.set_viewport_size({"width": width, "height": 800})
        page.page.wait_for_function(FITS, arg=narrow)
        boxes = [at_rest(page.floor(number)) for number in (SOURCE, FX, ONNX, KERNEL)]
        assert [a["y"] < b["y"] for a, b in pairwise(boxes)] == [narrow] * 3


def test_axe_finds_nothing_serious(opened):
    made = sheets.small()
    made["stop"] = {"row": 6, "reason": "No rule for softmax.", "hint": "Teach one: lesson 08."}
    page = opened(made, chosen=[SOURCE, 3])
    page.page.locator("summary").click()
    page.page.get_by_role("searchbox").fill("mul")
    color = "(one) => getComputedStyle(one).color"
    for scheme in ("light", "dark"):
        page.page.emulate_media(color_scheme=scheme)
        assert findings(page.page) == []
        # axe knows no contrast with a gradient, nor that of a text with a shadow.
        for unsure, like in ((".cell:not(.none)", "input"), (".folded .head", "output")):
            same = page.page.locator(like).first.evaluate(color)
            expect(page.page.locator(unsure).first).to_have_css("color", same)
    page.open_all()
    assert findings(page.page) == []


def test_a_real_model_lights_what_its_links_say(opened, tmp_path):
    """An encoder has repeated blocks and library lines; test_tracing.py says what is linked."""
    encoder = ow.lessons.encoder()
    onnx = ow.export(encoder.model, encoder.inputs, tmp_path / "encoder.onnx")
    sheet = ow.trace(onnx, encoder.inputs, seconds=0.1).sheet
    rows = [floor["rows"] for floor in sheet["floors"]]
    shown = [link for link in sheet["links"] if link[ONNX] >= 0]
    repeated = [link for link in shown if "g" in rows[ONNX][link[ONNX]]]
    whole = max(repeated, key=lambda link: sum(row >= 0 for row in link))
    page = opened(sheet)
    page.open_all()
    for number, row in enumerate(whole):
        page.choose(number, row)
        links = [link for link in sheet["links"] if link[number] == row]
        for floor, lit in enumerate(page.lit()):
            linked = {rows[floor][link[floor]]["t"].strip() for link in links if link[floor] >= 0}
            assert bool(lit) == bool(linked), (number, floor)
            assert set(lit) <= linked  # a folded row and one out of sight stand for others
