"""Three linked columns: what a choice marks, in the kernel; tests/browser shows the page."""

from __future__ import annotations

import pytest
import torch
import traitlets
from models import Folds

import onnx_workbench as ow
from onnx_workbench.lineage import table as lineage
from onnx_workbench.lineage.columns import Columns, Link
from onnx_workbench.source import Line

VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    file = tmp_path_factory.mktemp("columns") / "folds.onnx"
    return ow.trace(ow.export(Folds().eval(), torch.ones(1, 3, 8, 8), file))


@pytest.fixture
def columns(folds):
    return Columns([*folds._links()], repr(folds), folds.sources)


def row(columns, column, text):
    """The number of the row whose text begins like this."""
    rows = columns._sheet["columns"][column]
    return next(key for key, _, shown in rows if key >= 0 and shown.strip().startswith(text))


def marked_by(columns, column, text):
    columns.chosen = [column, row(columns, column, text)]
    return columns.marked


def test_a_line_marks_its_nodes_also_those_that_it_was_merged_into(folds, columns):
    conv = folds.origins[0].node
    assert marked_by(columns, 0, "x = self.norm(x)") == [conv]
    assert marked_by(columns, 0, "x = self.conv(x)") == [conv]
    nodes = [origin.node for origin in folds.origins if origin.operator in ("Mul", "Add")]
    assert marked_by(columns, 0, "return left * right + scale") == nodes


def test_an_fx_node_marks_what_it_became_and_a_folded_one_says_why(folds, columns):
    assert marked_by(columns, 1, "linear") == ["node_linear"]
    assert marked_by(columns, 1, "dropout: it gives back its input") == []


def test_a_node_is_chosen_by_its_name_and_another_name_marks_nothing(columns):
    columns.choose("node_linear")
    assert (columns.chosen[0], columns.marked) == (2, ["node_linear"])
    columns.choose("gone")
    assert (columns.chosen, columns.marked) == ([], [])


def test_the_source_column_is_the_function_with_its_numbers(folds, columns):
    source = columns._sheet["columns"][0]
    first = folds.origins[0].line.number - 2
    assert source[:2] == [[-1, "", "models.py, in forward"], [-1, first, "def forward(self, x):"]]
    assert [number for key, number, _ in source[1:]] == [*range(first, first + 9)]


def test_the_columns_hold_no_path_of_this_machine(folds, columns):
    assert folds.lines[0].file not in str(columns._sheet)


def test_a_page_without_a_kernel_gets_the_source_with_counts(folds):
    data, _ = folds._repr_mimebundle_()
    assert data["text/plain"] == repr(folds)
    assert data["text/html"] == folds._repr_html_()
    assert VIEW in data
    assert repr(folds.columns) == repr(folds)


def test_what_has_no_lines_or_too_many_rows_is_shown_as_text_alone(folds, monkeypatch):
    monkeypatch.setattr(lineage, "MOST_ROWS", 2)
    assert set(folds._repr_mimebundle_()) == {"text/plain", "text/html"}
    bare = lineage.Lineage(folds.artifact, ())
    monkeypatch.setattr(lineage, "MOST_ROWS", 2_000)
    assert set(bare._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_columns_and_a_view_mark_each_other(folds):
    import ipywidgets

    class View(ipywidgets.DOMWidget):
        marked = traitlets.List()
        selected = traitlets.Unicode()

    view = View()
    box = folds.beside(view)
    assert box.children == (folds.columns, view)
    folds.columns.choose("node_linear")
    assert view.marked == ["node_linear"]
    view.selected = folds.origins[0].node
    assert folds.columns.marked == view.marked == [folds.origins[0].node]


def test_a_node_without_line_or_fx_node_is_linked_to_nothing():
    line = Line("/home/ada/net.py", 3, "forward", "return x")
    columns = Columns([Link(line, "relu", "a"), Link(None, "", "b", "Sin")], "report")
    assert columns._links == [[0, 0, 0], [-1, -1, 1]]
    columns.choose("b")
    assert columns.marked == ["b"]
