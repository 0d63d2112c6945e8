"""Files that are too big, not whole, or not what was asked for."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...artifact import Artifact, load
from ...capturing import exporter
from ...capturing.graph import capture
from .trap import trap

TOKENS = torch.tensor([[1, 2, 3]])
TWICE = "The file holds 15.4 kB of weights, the model 7.68 kB"
THREAD = "huggingface/optimum/pull/1326"


# Larger tables are left alone since onnxscript folds constants up to 8 kB only.
@trap("tied weights", "size", TWICE, THREAD, TOKENS)
class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(60, 32), nn.Linear(32, 60, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.words(tokens))  # trap

    class Mended(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.ones(60, 32))

        def forward(self, tokens: Tensor) -> Tensor:
            words = F.embedding(tokens.flatten(), self.table)
            return (self.table @ words.T).T.unflatten(0, tokens.shape)


def written(external: bool) -> Artifact:
    """A file as torch.onnx writes it, with its weights beside it or inside."""
    program = exporter.translate(capture(nn.Linear(64, 64).eval(), torch.ones(1, 64)).program)
    folder = Path(tempfile.mkdtemp(prefix="onnx-workbench-"))
    program.save(folder / "model.onnx", external_data=external)
    artifact = load(folder / "model.onnx")
    weakref.finalize(artifact, shutil.rmtree, folder, ignore_errors=True)
    return artifact


BESIDE, THREAD = "model.onnx cannot be loaded without model.onnx.data", "onnxruntime/issues/19739"


@trap("missing data file", "portability", BESIDE, f"microsoft/{THREAD}", torch.ones(1, 64))
class WeightsBeside:
    def __new__(cls) -> Artifact:  # type: ignore[misc]
        return written(external=True)

    class Mended:
        def __new__(cls) -> Artifact:  # type: ignore[misc]
            return written(external=False)


@trap(
    *("opset out of reach", "export", "You asked for opset 26 and the exporter wrote opset 18"),
    *("pytorch/pytorch/pull/161056", torch.ones(3)),
    opset_version=26,
)
class Newest(nn.GELU):
    class Mended(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2
