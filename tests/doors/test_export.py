"""export(), load() and what is called like the model."""

import onnxruntime
import pytest
import torch

import onnx_workbench as ow


def test_export_checks_loads_and_answers_like_the_model(onnx, model, images):
    torch.testing.assert_close(onnx(images), model(images), rtol=1e-4, atol=1e-5)
    assert onnx.operations["Conv"] == 1
    assert [str(value) for value in onnx.inputs] == ["images float32[batch, 1, 8, 8]"]
    assert [path.name for path in onnx.files] == ["reader.onnx"]


def test_exported_file_runs_with_onnxruntime_alone(onnx, model, images):
    session = onnxruntime.InferenceSession(onnx.path, providers=["CPUExecutionProvider"])
    five = torch.cat([images, images, images[:1]])
    (result,) = session.run(None, {"images": five.numpy()})
    torch.testing.assert_close(torch.from_numpy(result), model(five), rtol=1e-4, atol=1e-5)


def test_export_names_the_line_that_froze_a_dimension(table, tmp_path):
    words = {"words": {1: "length"}}
    with pytest.raises(ow.errors.CaptureError) as raised:
        ow.export(table, torch.ones(2, 16, 8), tmp_path / "no.onnx", dynamic_shapes=words)
    assert raised.value.line.text == "return words + self.table"
    assert not list(tmp_path.iterdir())
