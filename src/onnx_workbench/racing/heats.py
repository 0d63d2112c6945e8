"""Strata and rounds: who starts when, and in which order everybody runs.

A stratum holds one fresh process of every contestant. They are started and warmed up in random
order, then run in rounds: in each, at each size, every one runs one block, in fresh random order,
while the others are frozen. A machine that slows down slows down everybody, and what a process
happens to be like (where its memory lies) is drawn anew with each stratum.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import sleep
from typing import Any, TypeAlias

from .bench import Bench, Ready
from .lane import Run
from .worker import Worker

ROUNDS = 40
LEAST_ROUNDS = 5
SETTLE = 0.05  # seconds; an idle pool of ONNX Runtime spins for about 40 ms, one of OpenMP for 9

Place = tuple[str, int]
"""A contestant at the index of a size."""


Seat: TypeAlias = Bench | Worker
"""A Bench in this process, or a Worker that holds one."""


@dataclass
class Stratum:
    """One start of everybody: what each said when it was warm, and what it ran."""

    ready: dict[Place, Ready] = field(default_factory=dict)
    blocks: dict[Place, list[tuple[int, int]]] = field(default_factory=dict)
    laps: dict[Place, tuple[int, ...]] = field(default_factory=dict)
    errors: dict[Place, Exception] = field(default_factory=dict)
    interrupted: bool = False

    def runs(self) -> dict[Place, Run]:
        """One Run for each place that ended a round."""
        return {place: self._run(place) for place, blocks in self.blocks.items() if blocks}

    def _run(self, place: Place) -> Run:
        ready = self.ready[place]
        blocks, queued = zip(*self.blocks[place], strict=True)
        told = {name: getattr(ready, name) for name in ("calls", "first", "load", "warmup", "peak")}
        return Run(blocks, queued, laps=self.laps.get(place, ()), **told)


def run(
    seats: Mapping[str, Callable[[], Seat]],
    seconds: float,
    rng: random.Random,
    threads: int = 1,
    most: int | None = None,
    tick: Callable[[], object] = lambda: None,
) -> Stratum:
    """One stratum, from the start of its processes to their end, come what may.

    Args:
        seats: what starts each contestant, in the order in which they start and warm up.
        seconds: what the rounds may take; at least five are run, at most ``most``, if given.
        threads: of each contestant; before a block those of the one before fall asleep.
        tick: called after each round.
    """
    stratum, rest = Stratum(), SETTLE if threads > 1 else 0.0
    with ExitStack() as stack:
        started = {}
        for name, start in seats.items():
            started[name] = start()
            stack.callback(started[name].close)
        for seat in started.values():  # all imports are over before anyone is timed
            seat.opened()
        _warm_up(started, stratum)
        try:
            for _ in range(_rounds(stratum, seconds, rest, most)):
                _round(started, stratum, rng, rest)
                tick()
            for place in list(stratum.blocks):
                stratum.laps[place] = _alone(started[place[0]], "laps", place[1])
        except KeyboardInterrupt:
            stratum.interrupted = True
    return stratum


def _warm_up(seats: Mapping[str, Seat], stratum: Stratum) -> None:
    for seat in seats.values():
        seat.freeze()
    for name, seat in seats.items():
        for size, said in enumerate(_alone(seat, "ready")):
            place = name, size
            if isinstance(said, Exception):
                stratum.errors[place] = said
            else:
                stratum.ready[place], stratum.blocks[place] = said, []


def _rounds(stratum: Stratum, seconds: float, rest: float, most: int | None) -> int:
    lap = sum(ready.pace * (ready.calls + 1) + rest for ready in stratum.ready.values())
    if not lap:
        return 0
    return max(LEAST_ROUNDS, min(round(seconds / lap), most or round(seconds / lap)))


def _round(seats: Mapping[str, Seat], stratum: Stratum, rng: random.Random, rest: float) -> None:
    """One block of everybody; recorded only when all are done, so that rounds stay paired."""
    blocks: dict[Place, tuple[int, int]] = {}
    sizes = {size for _, size in stratum.blocks}
    for at in rng.sample(sorted(sizes), len(sizes)):
        places = [place for place in stratum.blocks if place[1] == at]
        for place in rng.sample(places, len(places)):
            sleep(rest)
            try:
                calls = stratum.ready[place].calls
                blocks[place] = _alone(seats[place[0]], "block", at, calls)
            except Exception as error:
                stratum.errors[place] = error
                del stratum.blocks[place]
    for place, block in blocks.items():
        stratum.blocks[place].append(block)


def _alone(seat: Seat, verb: str, *args: Any) -> Any:
    """One request while everybody else is frozen."""
    seat.thaw()
    try:
        return getattr(seat, verb)(*args)
    finally:
        seat.freeze()
