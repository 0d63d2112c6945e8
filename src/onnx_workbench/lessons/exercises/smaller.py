"""12: an int8 file of a reader in which one channel is much larger than the others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import nn

from ...artifact import Artifact
from ...errors import WorkbenchError
from ..reader import DigitReader, digits
from . import Hint, hint

ANSWER = Artifact
SHARE, ACCURACY = 0.3, 0.97
"""The share of the weights' bytes that may be left, and the least accuracy."""


class LoudReader(DigitReader):
    """The reader, with the first of its 16 channels turned up for two lines."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        edges = torch.relu(self.norm(self.edges(images)))
        volume = torch.tensor([5000.0] + [1.0] * 15).reshape(16, 1, 1)
        edges = torch.max_pool2d(edges * volume, 2)
        edges = edges / volume
        strokes = torch.relu(self.strokes(edges))
        strokes = torch.max_pool2d(strokes, 2)
        return self.digit(strokes.flatten(1))


@cache
def given() -> nn.Module:
    """It reads the same digits as the trained reader, whose weights it has."""
    model = LoudReader()
    model.load_state_dict(digits().model.state_dict())
    return model.eval().requires_grad_(False)


def judge(answer: Any) -> Iterator[Hint]:
    if "DynamicQuantizeLinear" in answer.operations:
        yield hint("dynamic")
    if "QuantizeLinear" not in answer.operations:
        yield hint("float")
    try:
        accuracy = digits().accuracy(answer)
    except WorkbenchError as error:
        yield hint("fails", error=error)
        return
    if accuracy < ACCURACY:
        yield hint("ruined", accuracy=f"{accuracy:.0%}", asked=f"{ACCURACY:.0%}")
    share = answer.weight_bytes / sum(weight.nbytes for weight in given().state_dict().values())
    if share > SHARE:
        yield hint("large", share=f"{share:.0%}", asked=f"{SHARE:.0%}")
