"""view(): Netron in the cell, and what its nodes come from."""

import torch

import onnx_workbench as ow


def test_view_knows_the_line_of_each_node(onnx):
    view = ow.view(onnx)
    lines = {origin.op: origin.line.text for origin in view.origins.values()}
    assert lines["Conv"] == "edges = torch.relu(self.conv(images))"
    assert lines["Gemm"] == "return self.head(edges.flatten(1))"
    names = view.select("conv")
    assert names
    assert set(names) <= set(view.origins)


def test_view_compares_two_files():
    gelu = torch.nn.GELU().eval(), torch.ones(2)
    old, new = (ow.export(*gelu, opset_version=opset) for opset in (18, 20))
    pair = ow.view(old).compare(new)
    assert "Erf" in pair.lost
    assert dict(pair.gained) == {"Gelu": 1}


def test_view_saves_a_page_that_stands_alone(onnx, tmp_path):
    view = ow.view(onnx)
    view.heat({"node_conv2d": 2.0}, unit="s")
    page = view.save(tmp_path / "graph.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert 'src="http' not in page
    assert view.svg().startswith("<svg")
