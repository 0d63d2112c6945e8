"""09: a model with three faults, and an audit that finds none."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...divergence import verify
from ...inspection import Audit
from ..task import Exercise

ASKED = {"x": {0: "batch"}}
HIDDEN = {"capture", "export", "contract", "numbers"}


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


def judge(answer: Any) -> str | None:
    if not isinstance(answer, Audit):
        return f"That is a {type(answer).__name__}. Answer with what ow.audit() returned."
    if answer.case.model is None:
        return "That is the audit of a file. Audit the mended model."
    if answer.faults:
        worst = answer.faults[0]
        where = f" at {worst.line!r}" if worst.line else ""
        return f"{len(answer.faults)} left. The first: {worst.sentence}{where}. {worst.repair}"
    if HIDDEN - {finding.stage for finding in answer.findings}:
        return "It is green because stages were skipped. Leave out `skip`."
    if not (answer.case.dynamic or {}).get("x"):
        return "It is green for one batch size alone. Ask for dynamic_shapes={'x': {0: 'batch'}}."
    return _other_numbers(answer.case.model)


def _other_numbers(model: nn.Module) -> str | None:
    weight = Patient().weight.detach()
    for size in (1, 5):
        x = torch.linspace(-1, 1, 8 * size).reshape(size, 4, 2)
        leaf = verify(lambda x: ((x + 1) * weight).flatten(1), model, x).worst
        if leaf.reason:
            return (
                f"It is green, and computes something else than the patient: {leaf.reason} at "
                f"batch {size}. Keep the weight, the + 1 and the shape of the result."
            )
    return None


EXERCISE = Exercise(
    number="09",
    title="A green audit",
    text=(
        "`exercise.given` is a model that works in PyTorch and has **three faults** on its way to "
        "ONNX. Audit it with `dynamic_shapes={'x': {0: 'batch'}}`, mend its `forward` in a class "
        "of your "
        "own, and **answer with an audit that has nothing to mend**. Outside training the mended "
        "model computes `(x + 1) * weight`, one row for each of the batch."
    ),
    start=(
        "Begin with ow.audit(exercise.given, torch.ones(2, 4, 2), dynamic_shapes={'x': {0: "
        "'batch'}}) and read what it found, worst first."
    ),
    judge=judge,
    material=lambda: Patient().eval(),
    source="""
        import torch
        import torch.nn.functional as F
        import onnx_workbench as ow

        class Mended(type(ow.lessons.exercise("09").given)):
            def forward(self, x):
                x = F.dropout((x + 1) * self.weight, 0.1, self.training)
                return x.reshape(x.shape[0], -1)

        batch = {"x": {0: "batch"}}
        answer = ow.audit(Mended().eval(), torch.ones(2, 4, 2), dynamic_shapes=batch)
        """,
)
