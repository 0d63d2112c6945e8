"""check(): versions, verdict, clocks."""

import onnx
import onnxruntime
import pytest
import torch

from onnx_workbench.formatting import WIDTH


def test_check_reports_the_stack_that_is_installed(stack):
    packages = {package.name: package for package in stack.packages}
    assert stack, stack
    assert not stack.clashes
    assert repr(stack).startswith("This stack fits together.\n\npackage ")
    assert (packages["torch"].installed, packages["torch"].extra) == (torch.__version__, "")
    assert packages["jupyterlab"].extra == "lab"
    assert "pytest" not in packages
    assert all(package.tested for package in stack.packages)
    assert max(map(len, repr(stack).splitlines())) <= WIDTH
    assert stack._repr_html_().count("<table") == stack._repr_html_().count("overflow-x:auto") == 2


IDENTITY = '<ir_version: {}, opset_import: ["": {}]> f (float[1] x) => (float[1] y) {{y = Relu(x)}}'


def test_clocks_are_read_from_files(stack):
    default, writes, knows, loads, _ = vars(stack.clocks).values()
    assert knows == (onnx.defs.onnx_opset_version(), onnx.IR_VERSION)
    assert default.opset <= writes.opset <= loads.opset

    def load(ir, opset):
        model = onnx.parser.parse_model(IDENTITY.format(ir, opset))
        onnxruntime.InferenceSession(model.SerializeToString())

    load(loads.ir, 18)
    load(10, loads.opset)
    for newer in ((loads.ir + 1, 18), (10, loads.opset + 1)):
        with pytest.raises(Exception, match=r"IR version|opset"):
            load(*newer)
