"""`trace` of files of a known size, beside onnx.load of the same."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import helper
from side_by_side import Pair, take_turns

import onnx_workbench as ow

TURNS = 3


def report() -> Iterator[Pair]:
    yield from map(pair, (1_000, 5_000, 20_000))


def pair(count: int) -> Pair:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "deep.onnx"
        onnx.save(deep(count), file)
        fresh = [ow.load(file) for _ in range(1 + TURNS)]
        name = f"trace of {count:,} nodes / onnx.load"
        return take_turns(name, lambda: ow.trace(fresh.pop()), lambda: onnx.load(file), TURNS)


def deep(count: int) -> onnx.ModelProto:
    """A chain: two nodes in three have the metadata that the exporter writes."""
    nodes = [helper.make_node("Sin", [f"v{i}"], [f"v{i + 1}"], name=f"n{i}") for i in range(count)]
    for index, node in enumerate(nodes):
        if index % 3:
            metadata = {
                "stack_trace": f'File "/home/ada/net.py", line {index}, in forward',
                "name_scopes": f"['', 'b.{index}', 's']",
            }
            for key, value in metadata.items():
                node.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=value)
    ends = [helper.make_tensor_value_info(name, 1, [1]) for name in ("v0", f"v{count}")]
    graph = helper.make_graph(nodes, "deep", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
