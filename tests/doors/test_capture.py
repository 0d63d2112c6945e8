"""capture(): the FX graph as a table, or the line that stops it."""

import torch

import onnx_workbench as ow


def test_capture_gives_operations_with_their_lines(model, images):
    graph = ow.capture(model, images, dynamic_shapes={"images": {0: "batch"}})
    lines = {node.target: node.line for node in graph.nodes if node.op == "call_function"}
    assert graph.operations["aten.conv2d.default"] == 1
    assert lines["aten.conv2d.default"].text == "edges = torch.relu(self.conv(images))"
    assert "batch" in repr(graph)
    assert not graph.strict
    torch.testing.assert_close(graph.program.module()(images), model(images))


def test_capture_polishes_for_the_translation(model, images):
    polished = ow.capture(model, images).polish()
    assert "aten.flatten.using_ints" not in polished.operations
    assert polished.operations["aten.view.default"] == 1
