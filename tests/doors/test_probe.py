"""probe() and observe(): shapes promised against shapes kept."""

import torch

import onnx_workbench as ow


def test_probe_keeps_what_is_dynamic(onnx):
    contract = ow.probe(onnx)
    (batch,) = contract.dimensions
    assert contract
    assert (batch.place, batch.name, batch.verdict) == ("images.shape[0]", "batch", "kept")


def test_probe_names_the_line_that_froze_a_dimension(table):
    words = {"words": {0: "batch", 1: "length"}}
    contract = ow.probe(table, torch.ones(2, 16, 8), dynamic_shapes=words)
    batch, length = contract.dimensions
    assert not contract
    assert batch.verdict == "kept" != length.verdict
    assert length.line.text == "return words + self.table"
    assert length.repair


def test_observe_finds_the_dimensions_that_vary(model, images):
    with ow.observe(model) as seen:
        for batch in (1, 2):
            model(images[:batch])
    assert set(seen.dynamic_shapes["images"]) == {0}
    assert ow.probe(model, (), seen.kwargs, dynamic_shapes=seen.dynamic_shapes)
