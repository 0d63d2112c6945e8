"""09: a model with three faults, and an audit that finds none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...agreement import verify
from ...formatting import plural
from ...report import Audit
from . import Hint, differs, hint

ANSWER = Audit
COUNTED = {"capture", "export", "contract", "numbers"}


class Patient(nn.Module):
    """``float32[batch, 4, 2]`` -> ``float32[batch, 8]``; it works in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, 8).reshape(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        rows = int(x.shape[0])
        x += 1
        x = F.dropout(x * self.weight, 0.1)
        return x.reshape(rows, -1)


def given() -> nn.Module:
    return Patient().eval()


def expected(x: Tensor) -> Tensor:
    return ((x + 1) * Patient().weight).flatten(1)


def judge(answer: Any) -> Iterator[Hint]:
    if answer.case.model is None:
        yield hint("file")
    if answer.faults:
        worst, lines = answer.faults[0], {fault.line for fault in answer.faults}
        where = f"{worst.line!r}\n" if worst.line else ""
        first = f"{where}{worst.sentence}\n{worst.repair}"
        yield hint("faults", count=plural(len(lines), "line"), first=first)
    if COUNTED - {finding.stage for finding in answer.findings}:
        yield hint("skipped")
    if not (answer.case.dynamic_shapes or {}).get("x"):
        yield hint("static")
    for size in (1, 5):
        x = torch.linspace(-1, 1, 8 * size).reshape(size, 4, 2)
        yield from differs("differs", verify(expected, answer.case.model, x), size=size)
