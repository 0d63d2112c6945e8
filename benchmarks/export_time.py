"""`capture` + `export` check and load what they write: what does that cost on top?"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from side_by_side import Pair, take_turns
from torch import nn

import onnx_workbench as ow

CNN = nn.Sequential(
    *(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU()),
    *(nn.Flatten(), nn.Linear(512, 10)),
)
ENCODER = nn.TransformerEncoder(
    nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 4, enable_nested_tensor=False
)


def measure() -> Iterator[Pair]:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    yield pair("CNN", CNN.eval(), torch.randn(4, 1, 8, 8))
    yield pair("4-layer encoder", ENCODER.eval(), torch.randn(2, 16, 64))


def pair(name: str, model: nn.Module, x: torch.Tensor) -> Pair:
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder)
        return take_turns(
            f"capture + export / torch.onnx.export, {name}",
            lambda: ow.export(ow.capture(model, x), f=path / "ours.onnx"),
            lambda: torch.onnx.export(model, (x,), path / "bare.onnx", dynamo=True),
            turns=5,
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Neither way's progress and warnings between the rows of the table."""
    said = io.StringIO()
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        warnings.catch_warnings(action="ignore"),
    ):
        yield
