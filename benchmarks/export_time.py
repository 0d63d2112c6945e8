"""`capture` + `export` check and load what they write: what does that cost on top?"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import models
import torch
from side_by_side import Pair, quiet, take_turns

import onnx_workbench as ow


def report() -> Iterator[Pair]:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    yield from map(pair, ("residual CNN", "BERT-like"))


def pair(name: str) -> Pair:
    model, inputs, _ = models.case(name)
    with tempfile.TemporaryDirectory() as folder, quiet():
        return take_turns(
            f"capture + export / torch.onnx.export, {name}",
            lambda: ow.export(ow.capture(model, inputs), f=Path(folder) / "ours.onnx"),
            lambda: torch.onnx.export(model, inputs, Path(folder) / "bare.onnx", dynamo=True),
            turns=5,
        )
