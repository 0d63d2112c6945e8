"""The table of translations that all exports of a process share."""

import onnx
import onnxscript
import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

import onnx_workbench as ow
from onnx_workbench.graph.torch_private import shared_translations as shared_table

op = onnxscript.opset18


def cosine(x):
    return op.Cos(x)


class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(x)


def operators(path):
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("opset", [None, 18, 21])
def test_a_custom_translation_stays_in_its_own_export(opset, tmp_path):
    graph, path = ow.capture(Sine().eval(), torch.ones(2)), tmp_path / "m.onnx"
    ow.export(
        graph,
        f=path,
        opset_version=opset,
        custom_translation_table={torch.ops.aten.sin.default: cosine},
    )
    assert operators(path) == ["Cos"]
    ow.export(graph, f=path, opset_version=opset)
    assert operators(path) == ["Sin"]


@pytest.fixture
def builds(monkeypatch):
    """A list that grows by one whenever torch builds a table."""
    built, theirs = [], ONNXRegistry.from_torchlib

    def counted(*args, **options):
        built.append(options)
        return theirs(*args, **options)

    monkeypatch.setattr(ONNXRegistry, "from_torchlib", staticmethod(counted))
    return built


def test_exports_share_one_table_and_torch_keeps_its_own(builds, tmp_path):
    graph = ow.capture(Sine().eval(), torch.ones(2))
    for name in "abc":
        ow.export(graph, f=tmp_path / f"{name}.onnx")
    assert len(builds) == 1
    torch.onnx.export(Sine().eval(), (torch.ones(2),), dynamo=True, verbose=False)
    assert len(builds) == 2


def test_operators_registered_later_get_their_translations(builds):
    """torch.onnx leaves out the translations of torchvision until that is imported."""
    with shared_table():
        ONNXRegistry.from_torchlib()
        library = torch.library.Library("workbench_late", "DEF")
        library.define("late(Tensor x) -> Tensor")
        ONNXRegistry.from_torchlib()
    library._destroy()
    assert len(builds) == 2


def test_a_torch_that_keeps_the_table_elsewhere_is_left_alone(monkeypatch):
    monkeypatch.delattr(ONNXRegistry, "from_torchlib")
    with shared_table():
        assert not hasattr(ONNXRegistry, "from_torchlib")
