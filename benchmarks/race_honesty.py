"""How often a race is wrong where the truth is known, beside the protocols of the field.

A contestant is raced against itself (A/A), against itself with 5 % more work in each call, and
until a Ctrl-C at a random moment. The anchors of anchors.py compare two instances of the same in
one process, as their users do.
"""

from __future__ import annotations

import copy
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import models
import numpy as np
import torch
from anchors import ANCHORS
from handicap import Entry, Handicap, Loop, Shared, delayed, entry_of, own_time
from held import held, own_folder
from torch import nn

import onnx_workbench as ow
from onnx_workbench.racing.bench import Bench
from onnx_workbench.racing.worker import KEEPS, Worker, packed
from onnx_workbench.text import table

Record = dict[str, Any]

SHARE = 0.05  # of work more, where a difference is to be found
BUDGET = 25.0  # seconds in which it is to be found
ROUNDS = 40
PAIRS = 400  # of a block and a loop: one pair is off by some percent, and 0.5 % is to be told


def _mlp() -> models.Case:
    return models.Case(
        nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10)), (torch.randn(1, 16),), {}
    )


def _cnn() -> models.Case:
    return models.Case(models.ResidualCNN(), (torch.randn(1, 3, 64, 64),), {})


def _encoder() -> models.Case:
    words, kinds = models.tokens(8, 64, 1000), models.tokens(8, 64, 2)
    return models.Case(models.Bert(), (words, kinds, torch.ones(8, 64, dtype=torch.bool)), {})


MODELS: dict[str, Callable[[], models.Case]] = {"MLP": _mlp, "CNN": _cnn, "encoder": _encoder}
MANY = {"MLP": 100}
"""Calls in one of a handicapped contestant: an MLP of 10 us is too short to be slowed by 5 %."""
RUNTIMES = ("ORT", "eager")
LOADS = ("quiet", "loaded")


@dataclass(frozen=True)
class Bout:
    """A model in a runtime, as a contestant, with its inputs."""

    model: str
    runtime: str
    fn: Any
    inputs: tuple[torch.Tensor, ...]

    def instance(self) -> Entry:
        """The entry of an instance that shares nothing with another."""
        return copy.deepcopy(entry_of(self.fn, *self.inputs))


def against_itself(bout: Bout) -> Iterator[Record]:
    yield _raced(bout, {"A": bout.fn, "B": bout.fn}, truth=1.0)


def with_more_work(bout: Bout) -> Iterator[Record]:
    calls = MANY.get(bout.model, 1)
    pair = {"A": Handicap(bout.fn, 0.0, calls), "B": Handicap(bout.fn, SHARE, calls)}
    yield _raced(bout, pair, truth=1 / (1 + SHARE))


def by_construction(bout: Bout) -> Iterator[Record]:
    """What the two of :func:`with_more_work` take of the core, each over the work in it."""
    instance, calls = bout.instance()(), MANY.get(bout.model, 1)
    pairs = [[_over_its_work(instance.run, s, calls) for s in (0.0, SHARE)] for _ in range(ROUNDS)]
    instance.close()
    without, more = map(median, zip(*pairs, strict=True))
    yield {"protocol": "race", "truth": 1 + SHARE, "value": more / without, "calls": calls}


def until_interrupted(bout: Bout) -> Iterator[Record]:
    """A race that a Ctrl-C ends at a random moment, while processes start or while they race."""
    before, start = held(), perf_counter()
    timer = threading.Timer(random.uniform(0.2, 8.0), _interrupt)
    timer.start()
    try:
        stopped = ow.race({"A": bout.fn}, bout.inputs).conditions.stopped
    except KeyboardInterrupt:
        stopped = "interrupted before a round"
    if timer.is_alive() and "interrupted" in stopped:  # it was somebody else's
        raise KeyboardInterrupt
    timer.cancel()
    left = before ^ held()
    seconds = perf_counter() - start
    yield {"protocol": "race", "stopped": stopped, "seconds": seconds, **_left(left)}


def by_anchors(bout: Bout) -> Iterator[Record]:
    for name in random.sample(list(ANCHORS), len(ANCHORS)):
        with ExitStack() as stack:
            instances = []
            for _ in range(2):
                instances.append(bout.instance()())
                stack.callback(instances[-1].close)
            start = perf_counter()
            value, differs = ANCHORS[name](*(instance.run for instance in instances))
            seconds = perf_counter() - start
        yield {"protocol": name, "value": value, "differs": differs, "seconds": seconds}


def beside_a_bare_loop(bout: Bout) -> Iterator[Record]:
    """Blocks as a race times them, and a bare loop over the same instance in the same worker."""
    calls = _calls(bout.instance())
    shared = Shared(bout.instance())
    core = random.choice(sorted(os.sched_getaffinity(0))) if KEEPS else None
    worker = Worker(packed([shared, Loop(shared, calls)]), threads=1, core=core)
    try:
        worker.opened()
        if worker.ready()[1].warmup % 2:
            worker.block(1, 0)  # the single call of its two turns
        ratios = [_beside(worker, calls) for _ in range(PAIRS)]
    finally:
        worker.close()
    yield {"protocol": "race", "value": median(ratios), "calls": calls}


PARTS: dict[str, Callable[[Bout], Iterator[Record]]] = {
    "A/A": against_itself,
    "5%": with_more_work,
    "construction": by_construction,
    "Ctrl-C": until_interrupted,
    "anchors": by_anchors,
    "bare": beside_a_bare_loop,
}
AXES: tuple[Sequence[str], ...] = (list(PARTS), list(MODELS), RUNTIMES, LOADS)
WORDS = [word for axis in AXES for word in axis]


def report(races: int, into: Path | None = None, only: Sequence[str] = ()) -> str:
    """The tables of what ``into`` holds and of so many more races of each part.

    Args:
        into: JSON lines, one a race; each is appended when it is done.
        only: words of WORDS: a part is left out where another word of its axis is asked for.
    """
    lines = into.read_text(encoding="utf-8").splitlines() if into and into.exists() else []
    records = [json.loads(line) for line in lines]
    with suppress(KeyboardInterrupt):  # what was measured is worth its table
        for record in _measured(races, only):
            records.append(record)
            if into:
                with into.open("a", encoding="utf-8") as stream:
                    stream.write(f"{json.dumps(record)}\n")
    return "\n\n".join(text for text in _tables(records) if text)


def _measured(races: int, only: Sequence[str]) -> Iterator[Record]:
    chosen = [[word for word in axis if word in only] or axis for axis in AXES]
    parts = list(product(*chosen))
    with own_folder() as folder:
        bouts = {(name, way): _bout(name, way, folder) for name, way in product(*chosen[1:3])}
        for part in (part for _ in range(races) for part in random.sample(parts, len(parts))):
            where = dict(zip(("part", "model", "runtime", "load"), part, strict=True))
            with _busy() if where["load"] == "loaded" else nullcontext():
                for found in PARTS[where["part"]](bouts[where["model"], where["runtime"]]):
                    record = where | {"average": _load()} | found
                    print(*map(_shown, record.values()), file=sys.stderr)
                    yield record


def _bout(name: str, runtime: str, folder: Path) -> Bout:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        case = MODELS[name]()
    case.model.eval().requires_grad_(False)
    if runtime == "eager":
        return Bout(name, runtime, case.model, case.inputs)
    with warnings.catch_warnings(action="ignore"):
        artifact = ow.export(case.model, case.inputs, folder / f"{name}.onnx")
    return Bout(name, runtime, artifact, case.inputs)


def _raced(bout: Bout, pair: dict[str, Any], truth: float) -> Record:
    before, start, seed = held(), perf_counter(), random.randrange(2**31)
    race = ow.race(pair, bout.inputs, seed=seed)
    if race.conditions.interrupted:
        raise KeyboardInterrupt
    seconds, left = perf_counter() - start, before ^ held()
    ratio, control = race.ratio("B"), race.control
    return {
        "protocol": "race",
        "truth": truth,
        "value": ratio.value,
        "low": ratio.low,
        "high": ratio.high,
        "verdict": ratio.verdict,
        "control": control.value,
        "trusted": race.trusted,
        "seconds": seconds,
        "stopped": race.conditions.stopped,
        **_left(left),
        "median": race.lane("A").median,
        "seed": seed,
        "blocks": {  # nanoseconds by process, to try other statistics on
            lane.name: [
                {"calls": run.calls, "blocks": run.blocks, "queued": run.queued}
                for run in lane.runs
            ]
            for lane in race.lanes
        },
    }


def _left(left: set[str]) -> Record:
    return {"left": len(left), "what": "; ".join(sorted(left))}


def _interrupt() -> None:
    """Ctrl-C, as a terminal sends it; Windows cannot send it to this process alone."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


def _over_its_work(run: Callable[[], object], share: float, calls: int) -> float:
    took: list[int] = []
    total = own_time(partial(delayed, lambda: took.append(own_time(run, calls)), share))
    return total / took[0]


def _calls(entry: Entry) -> int:
    bench = Bench([entry])
    try:
        return bench.ready()[0].calls
    finally:
        bench.close()


def _beside(worker: Worker, calls: int) -> float:
    """A block's time over that of the loop; both wake from a freeze, in an order left to chance."""
    times = {}
    for size, count in random.sample([(0, calls), (1, 1)], 2):
        worker.freeze()
        worker.thaw()
        took, queued = worker.block(size, count)
        times[size] = took - queued
    return times[0] / times[1]


@contextmanager
def _busy() -> Iterator[None]:
    """A second process that never rests; on POSIX it ends with this one, however that ends."""
    code = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(10**6))"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, start_new_session=True) as process:  # Ctrl-C is for this one
        try:
            yield
        finally:
            process.kill()


def _load() -> float | None:
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _tables(records: list[Record]) -> Iterator[str]:
    same = [record for record in records if record["part"] in ("A/A", "anchors")]
    more = [record for record in records if record["part"] == "5%"]
    bare = [record for record in records if record["part"] == "bare"]
    made = [record for record in records if record["part"] == "construction"]
    ended = [record for record in records if record["part"] == "Ctrl-C"]
    yield _table("The same against itself", same, ("protocol", "load"), SAME)
    yield _table("The same against itself, by workload", same, ("model", "load", "protocol"), FALSE)
    races = [record for record in same if record["part"] == "A/A"]
    yield _table("The same against itself, race", races, BY, SAME)
    yield _table(f"{SHARE:.0%} more work, race", more, BY, MORE)
    yield _table(f"{SHARE:.0%} more work, its time over that of the work in it", made, BY, BARE)
    yield _table("Ended by Ctrl-C", ended, BY, ENDED)
    yield _table("A block's time over a bare loop's", bare, BY, BARE)


def _table(
    title: str, records: list[Record], by: Sequence[str], columns: dict[str, Callable]
) -> str:
    """A row for each group, and one for all of them where they are of one protocol."""
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in by), []).append(record)
    order = sorted(groups, key=lambda group: [_rank(word) for word in group])
    rows = [(*group, *(show(groups[group]) for show in columns.values())) for group in order]
    if len(rows) > 1 and len({record["protocol"] for record in records}) == 1:
        rows.append(("all", *[""] * (len(by) - 1), *(show(records) for show in columns.values())))
    if not rows:
        return ""
    header = (*by, *columns)
    return f"{title}\n{table(rows, header, right=range(len(by), len(header)))}"


def _rank(word: str) -> int:
    """Rows in the order in which the words are listed above."""
    return ["race", *ANCHORS, *WORDS].index(word)


def _off(record: Record) -> float:
    """How far a ratio is from the truth, as a fraction, whichever is the larger."""
    return math.expm1(abs(math.log(record["value"] / record.get("truth", 1.0))))


def _quantile(at: float) -> Callable[[list[Record]], str]:
    return lambda records: f"{100 * np.quantile(list(map(_off, records)), at):.1f} %"


def _rate(of: Callable[[Record], bool | None]) -> Callable[[list[Record]], str]:
    """How many of those records that have an answer, and their share."""

    def show(records: list[Record]) -> str:
        said = [answer for answer in map(of, records) if answer is not None]
        return f"{sum(said)} ({np.mean(said):.1%})" if said else "-"

    return show


def _differs(record: Record) -> bool | None:
    return record["verdict"] in ("faster", "slower") if "verdict" in record else record["differs"]


def _covers(record: Record) -> bool | None:
    return record["low"] <= record["truth"] <= record["high"] if "low" in record else None


def _found(record: Record) -> bool:
    return record["verdict"] == "slower" and record["seconds"] <= BUDGET


def _seconds(at: float) -> Callable[[list[Record]], str]:
    return lambda records: f"{np.quantile([record['seconds'] for record in records], at):.1f} s"


def _loads(records: list[Record]) -> str:
    met = [record["average"] for record in records if record["average"] is not None]
    return f"{median(met):.1f}" if met else "-"


BY = ("model", "runtime", "load")
COUNT: dict[str, Callable] = {"races": lambda records: str(len(records)), "load avg": _loads}
TIME: dict[str, Callable] = {
    "left behind": _rate(lambda record: record["left"] > 0 if "left" in record else None),
    "time p50": _seconds(0.5),
    "max": _seconds(1.0),
}
RACE: dict[str, Callable] = {
    "untrusted": _rate(lambda record: not record["trusted"] if "trusted" in record else None),
    "covered": _rate(_covers),
    **TIME,
}
FALSE: dict[str, Callable] = {
    **COUNT,
    "false verdicts": _rate(_differs),
    "off p50": _quantile(0.5),
    "p90": _quantile(0.9),
    "worst": _quantile(1.0),
    "over 5 %": _rate(lambda record: _off(record) > 0.05),
}
SAME: dict[str, Callable] = {**FALSE, **RACE}
ENDED: dict[str, Callable] = {
    **COUNT,
    "before a round": _rate(lambda record: record["stopped"].endswith("before a round")),
    "not at all": _rate(lambda record: record["stopped"].startswith("after")),
    **TIME,
}
MORE: dict[str, Callable] = {
    **COUNT,
    "found": _rate(lambda record: record["verdict"] == "slower"),
    f"within {BUDGET:g} s": _rate(_found),
    "off p50": _quantile(0.5),
    "worst": _quantile(1.0),
    **RACE,
}
BARE: dict[str, Callable] = {
    **COUNT,
    "median": lambda records: f"{median(record['value'] for record in records):.4f}x",
    "within 0.5 %": _rate(lambda record: _off(record) <= 0.005),
    "worst": _quantile(1.0),
}
