"""trace(): which line made which node."""

import onnx_workbench as ow


def test_trace_gives_every_node_its_line(onnx):
    lineage = ow.trace(onnx)
    lines = {origin.operator: origin.line.text for origin in lineage.origins}
    assert lines["Conv"] == "edges = torch.relu(self.conv(images))"
    assert lines["Gemm"] == "return self.head(edges.flatten(1))"
    assert len(lineage.origins) == onnx.operations.total()
    assert "edges = torch.relu(self.conv(images))" in repr(lineage)
