"""check(): versions, verdict, clocks."""

import onnx
import torch

import onnx_workbench as ow


def test_check_reports_the_stack_that_is_installed():
    stack = ow.check()
    packages = {package.name: package for package in stack.packages}
    assert stack
    assert not stack.clashes
    assert packages["torch"].installed == torch.__version__
    assert {"torch", "onnx", "onnxscript", "onnxruntime", "netron"} <= set(packages)
    assert all(package.verdict in ("ok", "absent") for package in stack.packages)
    assert stack.clocks.knows.opset == onnx.defs.onnx_opset_version()
    assert stack.clocks.default.opset <= stack.clocks.writes.opset <= stack.clocks.loads.opset
    assert torch.__version__.partition("+")[0] in repr(stack)
