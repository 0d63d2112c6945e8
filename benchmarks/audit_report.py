"""What the audit finds, what it takes for trouble that is none, and what it costs."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import models
import torch
from side_by_side import timed
from torch import nn

import onnx_workbench as ow
from onnx_workbench.formatting import seconds, size
from onnx_workbench.lessons.traps import TRAPS as TAUGHT
from onnx_workbench.lessons.traps import Call, Trap
from onnx_workbench.report.stages import STAGES
from tests.more_traps import UNTAUGHT

TRAPS = [*TAUGHT, *UNTAUGHT]
TIMED = {"latency", "hot lines"}


def sound() -> Iterator[tuple[str, models.Case]]:
    """Ten models that nothing is wrong with."""
    yield from ((name, models.case(name)) for name in models.MAKERS)
    layers = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 10)).eval()
    yield "MLP", models.Case(layers, (torch.randn(4, 64),), {"input": {0: "batch"}})
    up = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 2, 2, 2)).eval()
    yield "upsampling", models.Case(up, (torch.randn(2, 3, 32, 32),), {"input": {0: "batch"}})


def report() -> Iterator[str]:
    """An audit leaves out what cannot find what is counted here: the stages that only time, and for
    a trap those that neither find it nor come before."""
    warnings.simplefilter("ignore")
    missed = [trap.name for trap in TRAPS if not _found(trap)]
    count = f"{len(TRAPS) - len(missed)} of {len(TRAPS)}"
    yield f"traps found, with their line: {count} {', '.join(missed)}"
    twins = ((trap, _audited(trap.fixed())) for trap in TRAPS)
    accused = [t.name for t, audit in twins if any(f.verdict != "not tried" for f in audit.faults)]
    yield f"fixed twins accused: {len(accused)} of {len(TRAPS)} {', '.join(accused)}"
    wrong = 0
    for name, case in sound():
        audit = ow.audit(case.model, case.inputs, dynamic_shapes=case.dynamic or None, skip=TIMED)
        said = "; ".join(f"{f.stage}: {f.sentence} {f.line or ''}" for f in audit.faults)
        wrong += bool(said)
        yield f"sound {name}: {said or 'nothing to fix'}"
    yield f"sound models accused: {wrong} of 10"
    audits: list[ow.report.Audit] = []
    spent = timed(
        lambda: audits.append(ow.audit(models.Deep(500).eval(), torch.ones(8)))
    )  # every stage
    with TemporaryDirectory() as folder:
        page = audits[0].save(Path(folder) / "report.html").stat().st_size
    yield f"audit of 500 nodes: {seconds(spent)}, a page of {size(page)}"


def _audited(call: Call, skip: Collection[str] = TIMED) -> ow.report.Audit:
    options = {"dynamic_shapes": call.dynamic_shapes, "opset_version": call.opset_version}
    return ow.audit(call.model, call.args, skip=skip, **options)


def _found(trap: Trap) -> bool:
    leads = {"model", "capture", "export", trap.stage}
    audit = _audited(trap.broken(), {stage.name for stage in STAGES} - leads)
    return any(
        (finding.code, finding.line.place if finding.line else None) == (trap.code, trap.place)
        and finding.sentence.startswith(trap.sentence)
        for finding in audit.faults
    )
