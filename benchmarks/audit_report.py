"""What the audit finds, what it takes for trouble that is none, and what it costs."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from time import perf_counter

import models
import torch
from memory import peak_of
from torch import Tensor, nn
from torch.nn import functional as F

import onnx_workbench as ow
from onnx_workbench.formatting import seconds, size
from onnx_workbench.lessons.traps import TRAPS as TAUGHT
from onnx_workbench.lessons.traps import Call, Trap
from onnx_workbench.report.stages import STAGES

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from more_traps import UNTAUGHT

TRAPS = [*TAUGHT, *UNTAUGHT]
TIMED = {"latency", "hot lines"}
HEAVY = 250_000_000
"""Parameters of the heavy model: 1 GB in float32."""


class UNet(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, width, 3, padding=1)
        self.deep = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.head = nn.Conv2d(2 * width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = F.relu(self.down(x))
        deep = F.relu(self.deep(F.max_pool2d(wide, 2)))
        return self.head(torch.cat([wide, self.up(deep)], dim=1))


class Steady(nn.Module):
    """500 nodes through which no rounding grows."""

    def forward(self, x: Tensor) -> Tensor:
        for turn in range(250):
            x = torch.tanh(x)
            x = x + turn / 250
        return x


def sound() -> Iterator[tuple[str, models.Case]]:
    """Ten models that nothing is wrong with."""
    yield from ((name, models.case(name)) for name in models.MAKERS)
    torch.manual_seed(0)
    image, batch = torch.randn(2, 3, 32, 32), {0: "batch"}
    yield "U-Net", models.Case(UNet().eval(), (image,), {"x": batch})
    layers = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 10)).eval()
    yield "MLP", models.Case(layers, (torch.randn(4, 64),), {"input": batch})


def report() -> Iterator[str]:
    """The traps, their twins, the sound models, 500 nodes and a gigabyte, each when it is known.

    An audit leaves out what cannot find what is counted here: the stages that only time, and for a
    trap those that neither find it nor come before.
    """
    with warnings.catch_warnings(action="ignore"):
        for part in (_traps, _twins, _sound, _deep, _heavy):
            start = perf_counter()
            yield from part()
            yield f"    ({seconds(perf_counter() - start)} for these rows)\n"


def _audited(call: Call, skip: Collection[str] = TIMED) -> ow.report.Audit:
    return ow.audit(
        call.model,
        call.args,
        dynamic_shapes=call.dynamic_shapes,
        opset_version=call.opset_version,
        skip=skip,
    )


def _traps() -> Iterator[str]:
    missed = [trap.name for trap in TRAPS if not _found(trap)]
    count = f"{len(TRAPS) - len(missed)} of {len(TRAPS)}"
    yield f"traps found, with their line: {count} {', '.join(missed)}"


def _twins() -> Iterator[str]:
    accused = [trap.name for trap in TRAPS if _accuses(_audited(trap.fixed()))]
    yield f"fixed twins accused: {len(accused)} of {len(TRAPS)} {', '.join(accused)}"


def _accuses(audit: ow.report.Audit) -> bool:
    """A file alone is never sound, since no model was compared with it; that accuses nothing."""
    return any(fault.verdict != "not tried" for fault in audit.faults)


def _found(trap: Trap) -> bool:
    leads = {"model", "capture", "export", trap.stage}
    audit = _audited(trap.broken(), {stage.name for stage in STAGES} - leads)
    return any(
        (finding.stage, finding.line.place if finding.line else None) == (trap.stage, trap.place)
        and finding.sentence.startswith(trap.sentence)
        for finding in audit.faults
    )


def _sound() -> Iterator[str]:
    wrong = 0
    for name, case in sound():
        start = perf_counter()
        audit = ow.audit(case.model, case.inputs, dynamic_shapes=case.dynamic or None, skip=TIMED)
        said = "; ".join(f"{f.stage}: {f.sentence} {f.line or ''}" for f in audit.faults)
        wrong += bool(said)
        yield f"sound {name}: {seconds(perf_counter() - start)}, {said or 'nothing to fix'}"
    yield f"sound models accused: {wrong} of 10"


def _deep() -> Iterator[str]:
    """The only one with every stage, since its time is what counts."""
    start = perf_counter()
    audit = ow.audit(Steady().eval(), torch.ones(8))
    verdict = "nothing to fix" if audit else repr(audit)
    yield f"500 nodes: {seconds(perf_counter() - start)}, {verdict}"


def _heavy() -> Iterator[str]:
    """Each in a process of its own, since memory that was freed stays with a process."""
    peaks = {name: peak_of([sys.executable, __file__, name]) for name in ("bare", "audit")}
    ratio = peaks["audit"] / peaks["bare"]
    yield (
        f"1 GB of weights, peak memory: audit {size(peaks['audit'])}, bare torch.onnx.export "
        f"{size(peaks['bare'])}, {ratio:.2f}x"
    )


def _run(way: str) -> None:
    width = int((HEAVY / 10) ** 0.5)
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(10))).eval()
    x = torch.ones(1, width)
    if way == "audit":
        print(repr(ow.audit(model, x, dynamic_shapes={"input": {0: "batch"}})), file=sys.stderr)
        return
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        torch.onnx.export(model, (x,), f"{folder}/m.onnx", dynamo=True, external_data=False)


if __name__ == "__main__":
    _run(sys.argv[1])
