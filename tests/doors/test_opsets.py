"""opsets(): every opset tried."""

import torch

import onnx_workbench as ow


def test_opsets_shows_where_an_operator_appears():
    old, new = ow.opsets(torch.nn.GELU().eval(), torch.ones(2), asked=(18, 20)).results
    assert (old.got, new.got) == (18, 20)
    assert "Erf" in old.operations
    assert dict(new.operations) == {"Gelu": 1}
