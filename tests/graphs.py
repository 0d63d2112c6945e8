"""What the tests of the viewer build graphs with."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper


def note(part: onnx.NodeProto, **notes: str) -> None:
    """Adds metadata as torch writes it."""
    for key, value in notes.items():
        part.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=value)


def model_of(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[str], output: str, name: str = "net"
):
    """A model of these nodes; each of its ends is two floats."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in (*inputs, output)]
    return helper.make_model(helper.make_graph(nodes, name, ends[:-1], ends[-1:]))
