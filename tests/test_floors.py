"""The floors in the kernel, the picture and the table; tests/browser has the page."""

from __future__ import annotations

import copy
import xml.etree.ElementTree as ElementTree

import pytest
import sheets

from onnx_workbench.lineage.floors import Floors
from onnx_workbench.lineage.picture import svg

NODES = [row["t"] for row in sheets.small()["floors"][4]["rows"]]
MARKUP = "</script><img src=x onerror=alert(1)>&"


@pytest.fixture
def small():
    return sheets.small()


@pytest.fixture
def hostile(small):
    small["title"] = MARKUP
    for floor in small["floors"]:
        for row in floor["rows"]:
            row["t"], row["x"] = MARKUP + row["t"], MARKUP
    return small


@pytest.mark.parametrize(
    ("chosen", "marked"),
    [
        ([0, 2], [0, 1]),
        ([0, 4], [4, 5, 6]),
        ([0, 7], [5, 6]),
        ([1, 3], [3]),
        ([2, 2], [2]),
        ([3, 7], [7]),
        ([4, 1], [1]),
        ([5, 0], [0, 1]),
        ([6, 0], [0, 1]),
        ([6, 2], []),
        ([4, 0, 3], [0, 3]),
        ([], []),
    ],
)
def test_a_choice_marks_the_onnx_nodes_of_its_chain(chosen, marked, small):
    floors = Floors(small)
    floors.chosen = chosen
    assert floors.marked == [NODES[at] for at in marked]


def test_a_node_is_chosen_by_its_name_and_another_name_marks_nothing(small):
    floors = Floors(small)
    floors.choose("node_mul")
    assert (floors.chosen, floors.marked) == ([4, 3], ["node_mul"])
    floors.choose("gone")
    assert (floors.chosen, floors.marked) == ([], [])


def words(picture: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(picture).iter() if node.text]


def of_one_line(sheet):
    for link in sheet["links"]:
        link[0] = 2


CHAIN = ["net.onnx", "    x = torch.relu(self.conv(x))", "conv2d", "Conv", "FusedConv"]
COUNTS = "net.onnx: 2 instructions, 2 FX nodes, 2 ONNX nodes, 1 kernel"


@pytest.mark.parametrize(
    ("edit", "row", "expected"),
    [
        (lambda sheet: None, None, {*CHAIN, COUNTS}),
        (lambda sheet: None, 3, {"    x = x * (self.scale + 1)", "Add"}),
        (of_one_line, None, {"and 5 more"}),
        (lambda sheet: sheet.update(links=[]), None, {"net.onnx: no node"}),
    ],
    ids=["of a fusion", "another", "of many nodes", "none"],
)
def test_the_picture_follows_one_line_over_four_floors(edit, row, expected, small):
    edit(small)
    shown = words(svg(small, row=row))
    assert expected <= {*shown}
    assert "40 us" not in shown


def test_two_nodes_of_one_kernel_have_arrows_to_the_same_point(small):
    curves = [
        p.get("d")
        for p in ElementTree.fromstring(svg(small)).iter("{http://www.w3.org/2000/svg}path")
    ]
    ends = [d.split()[-2:] for d in curves if "C" in d]
    assert len(ends) == 2 + 2 + 2  # bytecode to FX, FX to ONNX, ONNX to the kernel
    assert ends[-1] == ends[-2]


@pytest.mark.parametrize("nodes", [4, 400])
def test_the_picture_is_small_and_the_same_each_time(nodes):
    picture = svg(sheets.deep(nodes))
    root = ElementTree.fromstring(picture)
    assert int(root.get("width")) <= 1000
    assert int(root.get("height")) <= 420
    assert picture == svg(copy.deepcopy(sheets.deep(nodes)))


def test_markup_in_names_is_text_in_the_picture(hostile):
    root = ElementTree.fromstring(svg(hostile))
    assert {node.tag.rpartition("}")[2] for node in root.iter()} == {
        *("svg", "title", "rect", "text", "path")
    }
    assert any(word.startswith("</script>") for word in words(svg(hostile)))
