"""09: a model with three faults, and an audit that finds none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...agreement import verify
from ...formatting import kind_of
from ...report import Audit

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


def judge(answer: Any) -> Iterator[str]:
    if not isinstance(answer, Audit):
        yield f"That is {kind_of(answer)}. Answer with what ow.audit() returned."
    if answer.case.model is None:
        yield "That is the audit of a file. Audit the fixed model."
    if answer.faults:
        worst = answer.faults[0]
        where = f" at {worst.line!r}" if worst.line else ""
        yield f"{len(answer.faults)} left. The first: {worst.sentence}{where}. {worst.repair}"
    if COUNTED - {finding.stage for finding in answer.findings}:
        yield "It is green because stages were skipped. Leave out `skip`."
    if not (answer.case.dynamic or {}).get("x"):
        yield "It is green for one batch size only: pass dynamic_shapes={'x': {0: 'batch'}}."
    for size in (1, 5):
        x = torch.linspace(-1, 1, 8 * size).reshape(size, 4, 2)
        leaf = verify(expected, answer.case.model, x).worst
        if leaf.reason:
            yield (
                f"It is green, and computes something else: {leaf.reason} at batch {size}. Keep "
                "the weight, the + 1 and the shape of the result."
            )
