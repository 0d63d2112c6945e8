"""How often a race is wrong where the truth is known, beside the protocols of the field.

A target is raced against itself (A/A), and against itself with 5 % more work in each call. The
anchors of anchors.py compare two instances of the same in one process, as their users do.
"""

from __future__ import annotations

import copy
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import models
import numpy as np
import torch
from anchors import ANCHORS
from handicap import Handicap
from torch import nn

import onnx_workbench as ow
from onnx_workbench.formatting import table
from onnx_workbench.timing.targets import call_of

Record = dict[str, Any]
SHARE = 0.05
"""Of more work, where a difference is to be found."""
BUDGET = 25.0
"""Seconds in which it is to be found."""


def _mlp() -> models.Case:
    layers = nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10)
    return models.Case(nn.Sequential(*layers), (torch.randn(1, 16),), {})


def _cnn() -> models.Case:
    return models.Case(models.ResidualCNN(), (torch.randn(1, 3, 64, 64),), {})


def _encoder() -> models.Case:
    words, kinds = models.tokens(8, 64, 1000), models.tokens(8, 64, 2)
    return models.Case(models.Bert(), (words, kinds, torch.ones(8, 64, dtype=torch.bool)), {})


MODELS: dict[str, Callable[[], models.Case]] = {"MLP": _mlp, "CNN": _cnn, "encoder": _encoder}
MANY = {"MLP": 100}
"""Calls in one of a handicapped target: an MLP of 10 us is too short to be slowed by 5 %."""


def against_itself(
    name: str, target: Any, inputs: tuple, seconds: float | None
) -> Iterator[Record]:
    yield _raced({"A": target, "B": target}, inputs, seconds, truth=1.0)


def with_more_work(
    name: str, target: Any, inputs: tuple, seconds: float | None
) -> Iterator[Record]:
    calls = MANY.get(name, 1)
    pair = {"A": Handicap(target, 0.0, calls), "B": Handicap(target, SHARE, calls)}
    yield _raced(pair, inputs, seconds, truth=1 / (1 + SHARE))


def by_anchors(name: str, target: Any, inputs: tuple, seconds: float | None) -> Iterator[Record]:
    for anchor in random.sample(list(ANCHORS), len(ANCHORS)):
        with ExitStack() as stack:
            runs = []
            for _ in range(2):  # instances that share nothing
                ready = copy.deepcopy(call_of(target, inputs, {}, 1)).prepare()
                stack.callback(ready.close)
                runs.append(ready.run)
            start = perf_counter()
            value, differs = ANCHORS[anchor](*runs)
            took = perf_counter() - start
        yield {"protocol": anchor, "value": value, "truth": 1.0, "differs": differs, "took": took}


PARTS = {"A/A": against_itself, "5%": with_more_work, "anchors": by_anchors}
AXES: tuple[Sequence[str], ...] = (list(PARTS), list(MODELS), ("ORT", "eager"), ("quiet", "busy"))
WORDS = [word for axis in AXES for word in axis]


def report(
    races: int, into: Path | None = None, only: Sequence[str] = (), seconds: float | None = None
) -> str:
    """The tables of what ``into`` holds and of so many more races of each part.

    Args:
        into: JSON lines, one a race; each is appended when it is done.
        only: words of WORDS: a part is left out where another word of its axis is asked for.
        seconds: of each race.
    """
    lines = into.read_text(encoding="utf-8").splitlines() if into and into.exists() else []
    records = [json.loads(line) for line in lines]
    with suppress(KeyboardInterrupt):  # what was measured is worth its table
        for record in _measured(races, only, seconds):
            records.append(record)
            print(*(f"{x:.4g}" if isinstance(x, float) else x for x in record.values()), flush=True)
            if into:
                with into.open("a", encoding="utf-8") as stream:
                    stream.write(f"{json.dumps(record)}\n")
    return "\n\n".join(_tables(records))


def _measured(races: int, only: Sequence[str], seconds: float | None) -> Iterator[Record]:
    chosen = [[word for word in axis if word in only] or axis for axis in AXES]
    parts = list(product(*chosen))
    with tempfile.TemporaryDirectory() as folder:
        cases = {name: _case(name, Path(folder)) for name in chosen[1]}
        for part, name, way, load in (
            part for _ in range(races) for part in random.sample(parts, len(parts))
        ):
            targets, inputs = cases[name]
            average = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else 0.0
            where = {"part": part, "model": name, "runtime": way, "load": load, "average": average}
            with _busy() if load == "busy" else nullcontext():
                for found in PARTS[part](name, targets[way], inputs, seconds):
                    yield where | found


def _case(name: str, folder: Path) -> tuple[dict[str, Any], tuple]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        case = MODELS[name]()
    case.model.eval().requires_grad_(False)
    with warnings.catch_warnings(action="ignore"):
        file = ow.export(case.model, case.inputs, folder / f"{name}.onnx")
    return {"eager": case.model, "ORT": file}, case.inputs


def _raced(pair: dict[str, Any], inputs: tuple, seconds: float | None, truth: float) -> Record:
    start, seed = perf_counter(), random.randrange(2**31)
    race = ow.race(pair, inputs, seed=seed, seconds=seconds)
    took = perf_counter() - start
    if race.conditions.interrupted:
        raise KeyboardInterrupt
    ratio = race.ratio("B")
    return {
        **{"protocol": "race", "value": ratio.value, "truth": truth},
        "differs": ratio.verdict in ("faster", "slower"),
        **{"low": ratio.low, "high": ratio.high, "verdict": ratio.verdict, "took": took},
        **{"trusted": race.trusted, "replicates": race.replicates, "seed": seed},
    }


@contextmanager
def _busy() -> Iterator[None]:
    """A second process that never rests; on POSIX it ends with this one, however that ends."""
    code = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(10**6))"
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as process:
        try:
            yield
        finally:
            process.kill()


def _tables(records: list[Record]) -> Iterator[str]:
    same = [record for record in records if record["truth"] == 1.0]
    more = [record for record in records if record["truth"] != 1.0]
    by = ("model", "runtime", "load")
    for title, found, group in (
        ("The same against itself", same, ("protocol", "load")),
        ("A/A races", [one for one in same if one["protocol"] == "race"], by),
        (f"{SHARE:.0%} more work", more, by),
    ):
        if found:
            yield f"{title}\n{_table(found, group)}"


def _table(records: list[Record], by: Sequence[str]) -> str:
    """A row for each group, and one for all of them where they are of one protocol."""
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in by), []).append(record)
    if len({record["protocol"] for record in records}) == 1:
        groups["all", *[""] * (len(by) - 1)] = records
    rows = [
        (*group, *(show(found) for show in COLUMNS.values())) for group, found in groups.items()
    ]
    return table(rows, (*by, *COLUMNS), right=range(len(by), len(by) + len(COLUMNS)))


def _rate(of: Callable[[Record], bool | None], found: list[Record]) -> str:
    """How many of those records that have an answer, and their share."""
    said = [answer for answer in map(of, found) if answer is not None]
    return f"{sum(said)} ({np.mean(said):.0%})" if said else "-"


def _quantile(of: Callable[[Record], float], at: float, unit: str, found: list[Record]) -> str:
    return f"{np.quantile(list(map(of, found)), at):.1f} {unit}"


def _off(record: Record) -> float:
    """How far a ratio is from the truth, in percent, whichever is the larger."""
    return 100 * math.expm1(abs(math.log(record["value"] / record["truth"])))


def _took(record: Record) -> float:
    return record["took"]


COLUMNS: dict[str, Callable[[list[Record]], str]] = {
    "races": lambda found: str(len(found)),
    "load avg": partial(_quantile, lambda one: one["average"], 0.5, ""),
    "differs": partial(_rate, lambda one: one["differs"]),
    f"in {BUDGET:g} s": partial(_rate, lambda one: one["differs"] and one["took"] <= BUDGET),
    "off p50": partial(_quantile, _off, 0.5, "%"),
    "p90": partial(_quantile, _off, 0.9, "%"),
    "worst": partial(_quantile, _off, 1.0, "%"),
    "over 5 %": partial(_rate, lambda one: _off(one) > 5),
    "untrusted": partial(_rate, lambda one: not one["trusted"] if "trusted" in one else None),
    "covered": partial(
        _rate, lambda one: one["low"] <= one["truth"] <= one["high"] if "low" in one else None
    ),
    "time p50": partial(_quantile, _took, 0.5, "s"),
    "max": partial(_quantile, _took, 1.0, "s"),
}
