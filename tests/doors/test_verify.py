"""verify(): the same numbers, or where they first differ."""

import pytest
import torch
from onnxscript import opset20 as op

import onnx_workbench as ow


@pytest.fixture(scope="module")
def wrong(model, images):
    def relu(x):
        return op.LeakyRelu(x, alpha=0.1)

    table = {torch.ops.aten.relu.default: relu}
    return ow.export(model, images, custom_translation_table=table)


def test_verify_agrees_with_a_sound_file(model, onnx, images):
    agreement = ow.verify(model, onnx, images)
    (leaf,) = agreement.leaves
    assert agreement
    assert leaf.worst < 1e-4


def test_verify_tells_a_wrong_file(model, wrong, images):
    assert not ow.verify(model, wrong, images)
    assert ow.verify(model, wrong, images, tolerance=10)


def test_verify_values_names_the_first_line_that_differs(model, wrong, images):
    found = ow.verify(model, wrong, images, values=True)
    assert not found
    assert found.first.operator == "LeakyRelu"
    assert found.first.line.text == "edges = torch.relu(self.conv(images))"
    assert found.plot().get_yscale() == "log"


def test_verify_compares_any_two_callables(images):
    assert ow.verify(torch.relu, lambda x: x.clamp(min=0), images)
