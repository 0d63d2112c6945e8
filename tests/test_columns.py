"""Three linked columns: what a choice marks, in the kernel; tests/browser shows the page."""

from __future__ import annotations

import ipywidgets
import pytest
import torch
import traitlets
from models import Folds

import onnx_workbench as ow
from onnx_workbench.lineage import table
from onnx_workbench.lineage.columns import Columns, Link
from onnx_workbench.source import Line

VIEW = "application/vnd.jupyter.widget-view+json"
TEXT = {"text/plain", "text/html"}


@pytest.fixture(scope="module")
def folds():
    return ow.trace(ow.export(Folds().eval(), torch.ones(1, 3, 8, 8)))


def column(columns, index):
    """The rows of one column as the page gets them: own number, margin, text."""
    return columns.get_state()["_sheet"]["columns"][index]


@pytest.mark.parametrize(
    ("index", "text", "operators"),
    [
        (0, "x = self.norm(x)", ["Conv"]),
        (0, "x = self.conv(x)", ["Conv"]),
        (0, "return left * right + scale", ["Mul", "Add"]),
        (1, "linear", ["Gemm"]),
        (1, "dropout: it returns its input unchanged", []),
    ],
)
def test_a_choice_marks_the_nodes_that_it_became(index, text, operators, folds):
    columns = folds.columns
    rows = [key for key, _, shown in column(columns, index) if shown.strip().startswith(text)]
    columns.chosen = [index, rows[0]]
    assert [folds.of(node).operator for node in columns.marked] == operators


def test_the_source_column_is_the_function_with_its_numbers_and_no_path(folds):
    source = column(folds.columns, 0)
    first = folds.origins[0].line.number - 2
    assert source[:2] == [[-1, "", "models.py, in forward"], [-1, first, "def forward(self, x):"]]
    assert [number for _, number, _ in source[1:]] == [*range(first, first + 9)]
    assert folds.lines[0].file not in str(folds.columns.get_state())


def test_a_page_without_a_kernel_gets_text_and_so_does_what_has_too_many_rows(folds, monkeypatch):
    data, _ = folds._repr_mimebundle_()
    assert data["text/plain"] == repr(folds) == repr(folds.columns)
    assert set(data) == TEXT | {VIEW}
    assert set(table.Lineage(folds.artifact, ())._repr_mimebundle_()) == TEXT
    monkeypatch.setattr(table, "MOST_ROWS", 2)
    assert set(folds._repr_mimebundle_()) == TEXT


def test_columns_and_a_view_mark_each_other_and_another_name_marks_nothing(folds):
    class View(ipywidgets.DOMWidget):
        marked = traitlets.List()
        selected = traitlets.Unicode()

    view = View()
    assert folds.beside(view).children == (folds.columns, view)
    folds.columns.choose("node_linear")
    assert folds.columns.chosen[0] == 2
    assert view.marked == folds.columns.marked == ["node_linear"]
    view.selected = folds.origins[0].node
    assert folds.columns.marked == view.marked == [folds.origins[0].node]
    folds.columns.choose("gone")
    assert (folds.columns.chosen, folds.columns.marked) == ([], [])


def test_a_node_without_line_or_fx_node_is_linked_to_nothing():
    line = Line("/home/ada/net.py", 3, "forward", "return x")
    columns = Columns([Link(line, "relu", "a"), Link(None, "", "b", "Sin")], "report")
    assert columns.get_state()["_sheet"]["links"] == [[0, 0, 0], [-1, -1, 1]]
    columns.choose("b")
    assert columns.marked == ["b"]
