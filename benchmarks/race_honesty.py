"""How often a race is wrong where the truth is known: a target is raced against itself (A/A), and
against itself with 5 % more work in each call."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import models
import numpy as np
import torch
from handicap import Handicap
from side_by_side import quiet
from torch import nn

import onnx_workbench as ow
from onnx_workbench.formatting import table

SHARE = 0.05
"""The extra work of the slower target."""
BUDGET = 25.0
"""Seconds within which the difference should be found."""
CALLS = {"MLP": 100}
"""Calls in one call of a handicapped target: an MLP takes 10 us, too short to add 5 %."""


@dataclass(frozen=True)
class Race:
    """``off`` is how far the ratio is from the truth, in percent, whichever is the larger."""

    workload: str
    more_work: bool
    off: float
    differs: bool
    trusted: bool
    covered: bool
    took: float


def report(rounds: int = 1, busy: bool = False, seconds: float | None = None) -> Iterator[str]:
    """A line for each race, then the tables; Ctrl-C goes straight to the tables."""
    races: list[Race] = []
    with tempfile.TemporaryDirectory() as folder, suppress(KeyboardInterrupt):
        workloads = list(_workloads(Path(folder)))
        with _busy() if busy else nullcontext():
            for _ in range(rounds):
                parts = list(product(workloads, (False, True)))
                for (name, target, inputs), more in random.sample(parts, len(parts)):
                    races.append(_race(name, target, inputs, more, seconds))
                    yield str(races[-1])
    for title, more in (("against itself", False), (f"{SHARE:.0%} more work", True)):
        if found := [race for race in races if race.more_work is more]:
            names = dict.fromkeys(race.workload for race in found)
            groups = {name: [race for race in found if race.workload == name] for name in names}
            rows = [_row(name, group) for name, group in {**groups, "all": found}.items()]
            where = ", beside a busy process" if busy else ""
            yield f"\n{title}{where}\n{table(rows, HEADER, right=range(1, len(HEADER)))}"


def _workloads(folder: Path) -> Iterator[tuple[str, Any, tuple]]:
    """Three models, each in ONNX Runtime and in PyTorch."""
    torch.manual_seed(0)
    words, kinds = models.tokens(8, 64, 1000), models.tokens(8, 64, 2)
    layers = nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10)
    for name, model, inputs in (
        ("MLP", nn.Sequential(*layers), (torch.randn(1, 16),)),
        ("CNN", models.ResidualCNN(), (torch.randn(1, 3, 64, 64),)),
        ("encoder", models.Bert(), (words, kinds, torch.ones(8, 64, dtype=torch.bool))),
    ):
        model.eval().requires_grad_(False)
        with quiet():
            file = ow.export(model, inputs, folder / f"{name}.onnx")
        yield f"{name}, ORT", file, inputs
        yield f"{name}, eager", model, inputs


def _race(name: str, target: Any, inputs: tuple, more_work: bool, seconds: float | None) -> Race:
    calls, pair, truth = CALLS.get(name.partition(",")[0], 1), {"A": target, "B": target}, 1.0
    if more_work:
        pair = {"A": Handicap(target, 0.0, calls), "B": Handicap(target, SHARE, calls)}
        truth = 1 / (1 + SHARE)
    start = perf_counter()
    race = ow.race(pair, inputs, seed=random.randrange(2**31), seconds=seconds)
    took = perf_counter() - start
    if race.conditions.interrupted:
        raise KeyboardInterrupt
    ratio = race.ratio("B")
    off = 100 * math.expm1(abs(math.log(ratio.value / truth)))
    covered = ratio.low <= truth <= ratio.high
    differs = ratio.verdict in ("faster", "slower")
    return Race(name, more_work, off, differs, race.trusted, covered, took)


@contextmanager
def _busy() -> Iterator[None]:
    """A second process that keeps a core busy; on POSIX it always ends with this one."""
    code = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(10**6))"
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as process:
        try:
            yield
        finally:
            process.kill()


HEADER = (
    *("workload", "races", "differs", f"in {BUDGET:g} s", "off p50", "p90", "worst", "over 5 %"),
    *("untrusted", "covered", "time p50", "max"),
)


def _row(name: str, races: Sequence[Race]) -> tuple[str, ...]:
    def share(of: Callable[[Race], bool]) -> str:
        count = sum(map(of, races))
        return f"{count} ({count / len(races):.0%})"

    def at(quantile: float, of: Callable[[Race], float], unit: str) -> str:
        return f"{np.quantile(list(map(of, races)), quantile):.1f} {unit}"

    return (
        *(name, str(len(races)), share(lambda race: race.differs)),
        share(lambda race: race.differs and race.took <= BUDGET),
        *(at(quantile, lambda race: race.off, "%") for quantile in (0.5, 0.9, 1.0)),
        share(lambda race: race.off > 5),
        share(lambda race: not race.trusted),
        share(lambda race: race.covered),
        *(at(quantile, lambda race: race.took, "s") for quantile in (0.5, 1.0)),
    )
