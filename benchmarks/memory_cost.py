"""The most memory that a door takes, beside a bare export, in weights of the model."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from side_by_side import peak_of

LAYERS, WIDTH = 28, 3072
WEIGHTS = LAYERS * (WIDTH + 1) * WIDTH * 4
"""Bytes: 1.06 GB."""

MODEL = f"""
import tempfile, torch
from torch import nn
import onnx_workbench as ow
import onnxruntime, torch.onnx
model = nn.Sequential(*[nn.Linear({WIDTH}, {WIDTH}) for _ in range({LAYERS})]).eval()
x = torch.randn(2, {WIDTH})
folder = tempfile.TemporaryDirectory()
path = folder.name + "/model.onnx"
"""

DOORS = {
    "torch.onnx.export": "torch.onnx.export(model, (x,), path, dynamo=True)",
    "torch.onnx.export, one file": (
        "torch.onnx.export(model, (x,), path, dynamo=True, external_data=False)"
    ),
    "export": "ow.export(model, x, path)",
    "verify(values=True)": "ow.verify(model, ow.export(model, x, path), x, values=True)",
    "audit": "ow.audit(model, x)",
}


def report() -> Iterator[str]:
    """One line a door: its peak less that of the model alone, children included."""
    alone = peak_of([sys.executable, "-c", MODEL])
    bare = 0.0
    for name, call in DOORS.items():
        ratio = (peak_of([sys.executable, "-c", MODEL + call]) - alone) / WEIGHTS
        bare = bare or ratio
        yield f"{name:28} {ratio:.2f} x {WEIGHTS / 1e9:.2f} GB of weights, {ratio / bare:.2f}x"
