"""How much of ONNX Runtime's time finds its line, and what finding it costs."""

from __future__ import annotations

from collections.abc import Iterator

import models
import torch
from side_by_side import quiet, timed

import onnx_workbench as ow
from onnx_workbench.formatting import seconds, table
from onnx_workbench.lineage.kernels import NEIGHBOR

HEADER = (
    *("model", "nodes", "kernels", "with a line", "joined, no neighbor", "kernels / run"),
    *("as the profiler counts", "unprofiled run", "profile() beyond its runs"),
)
BUDGET = 2.0


def report() -> Iterator[str]:
    cases = {name: models.case(name) for name in models.MAKERS}
    cases["500 nodes"] = models.Case(models.Deep(500).eval(), (torch.ones(8),), {})
    rows = [_joined(name, case) for name, case in cases.items()]
    yield table(rows, HEADER, right=range(1, 9))


def _joined(name: str, case: models.Case) -> tuple[str, ...]:
    found = []
    with quiet():
        artifact = ow.export(case.model, case.inputs, dynamic_shapes=case.dynamic or None)
        spent = timed(lambda: found.append(ow.profile(artifact, case.inputs, seconds=BUDGET)))
    spots = found[0]
    unexplained = sum(not origin.why for origin in spots.lineage.without)
    beyond = spent - BUDGET
    return (
        name,
        f"{len(spots.lineage.origins)}{f' ({unexplained} unexplained)' if unexplained else ''}",
        str(len(spots.recording.kernels)),
        f"{1 - spots.unattributed:.1%}",
        f"{1 - spots.rules[NEIGHBOR] - spots.rules['unattributed']:.1%}",
        f"{spots.covered:.1%}",
        f"{spots.counted:.1%}",
        seconds(spots.whole),
        seconds(beyond) if beyond > 0 else "none",
    )
