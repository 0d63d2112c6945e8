"""Source, FX, ONNX and Netron in JupyterLab: a choice in one marks the others."""

from __future__ import annotations

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = pytest.mark.browser

CELLS = """\
import torch
import onnx_workbench as ow
class Small(torch.nn.Module):
    def forward(self, x, bold="<b>bold</b>"):
        first = torch.relu(x + 1)
        return torch.tanh(first)
artifact = ow.export(Small().eval(), "columns.onnx", torch.ones(2, 3))
view = ow.view(artifact)
lineage = ow.trace(artifact)
lineage.beside(view)
===
print(view.marked, lineage.columns.marked)"""


@pytest.fixture(scope="module")
def notebook(open_notebook, tmp_path_factory):
    path = tmp_path_factory.mktemp("notebooks") / "columns.ipynb"
    kernel = {"name": "python3", "display_name": "Python 3"}
    cells = [new_code_cell(source) for source in CELLS.split("\n===\n")]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    notebook = open_notebook(path)
    notebook.run_all()
    failed = [o for cell in notebook.outputs() for o in cell if o["output_type"] == "error"]
    assert failed == []
    return notebook


def marked(notebook, column):
    rows = notebook.page.locator(".ow-columns section").nth(column).locator(".marked span")
    return [row.strip() for row in rows.all_text_contents()]


def test_a_line_marks_its_nodes_in_every_column_and_in_netron(notebook):
    graph = notebook.graph(0)
    notebook.page.get_by_role("button", name="first = torch.relu(x + 1)").click()
    assert marked(notebook, 0) == ["first = torch.relu(x + 1)"]
    assert marked(notebook, 1) == ["add", "relu"]
    assert marked(notebook, 2) == ["node_add", "node_relu"]
    notebook.run_until(1, "['node_add', 'node_relu'] ['node_add', 'node_relu']")
    assert graph.locator("#node-name-node_relu").count() == 1


def test_a_node_clicked_in_netron_marks_its_line(notebook):
    notebook.graph(0).locator("#node-name-node_tanh").click()
    notebook.page.locator(".ow-columns .marked", has_text="return torch.tanh(first)").wait_for()
    assert marked(notebook, 2) == ["node_tanh"]


def test_a_second_click_takes_the_marks_away_and_source_is_no_markup(notebook):
    row = notebook.page.locator(".ow-columns section").nth(1).get_by_role("button", name="relu")
    row.click()
    assert row.get_attribute("aria-pressed") == "true"
    row.click()
    assert marked(notebook, 0) == marked(notebook, 1) == marked(notebook, 2) == []
    assert "<b>bold</b>" in notebook.page.locator(".ow-columns").inner_text()
    assert notebook.page.locator(".ow-columns b").count() == 0
    assert notebook.refused == []
