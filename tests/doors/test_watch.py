"""watch(): what Dynamo did to each frame."""

import torch

import onnx_workbench as ow


def gate(x):
    return torch.relu(x * 2) + 1


def test_watch_shows_bytecode_graph_and_guards_of_a_whole_function():
    seen = ow.watch(gate, torch.ones(3))
    (frame,) = seen.frames
    assert not seen.breaks
    assert frame.bytecode.before
    assert frame.bytecode.after
    assert frame.guards
    assert len(frame.nodes) == 5
