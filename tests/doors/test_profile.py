"""profile(): which line costs the time."""

import onnx_workbench as ow


def test_profile_gives_all_kernel_time_to_lines(onnx, images):
    lines = ow.profile(onnx, images)
    texts = {spot.line.text for spot in lines.spots if spot.line}
    assert {
        "edges = torch.relu(self.conv(images))",
        "return self.head(edges.flatten(1))",
    } <= texts
    assert lines.unattributed == 0
    assert lines.hottest.seconds == max(spot.seconds for spot in lines.spots)
    assert set(lines.heat()) <= {node.name for node in onnx.proto.graph.node}
    assert lines.plot().get_xlabel()
