"""The track of a race: who runs when, and what the clock sees.

The order is what makes the numbers comparable. At one batch size all contestants warm up, then run
in rounds: in every round each runs one block of calls, in fresh random order, so that a machine
that slows down slows down everybody.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from time import perf_counter_ns, sleep
from typing import Any

import numpy as np
import torch

from . import progress
from .contestant import Prepared

BLOCK = 4e-3  # seconds; below 3 ms the clock and the caches show, above 37 ms the drift does
WARM_CALLS = 50
WARM_SHARE = 0.2  # of the seconds that the rounds of one batch size may take
LEAST_ROUNDS = 5
SETTLE = 0.05  # seconds; an idle pool of ONNX Runtime spins for about 40 ms, one of OpenMP for 9
PLAIN = "call: tensors in, tensors out, under torch.inference_mode"


@dataclass(frozen=True)
class Lane:
    """One contestant at one batch size: the raw block times, one per round.

    Args:
        blocks: nanoseconds of each block; block ``i`` ran in round ``i`` of this batch size.
        calls: calls in a block, the same in every block.
        first: seconds of the very first call, which no statistic includes.
        warmup: calls made before the first round.
        timed: what one call covers.
        error: what stopped this contestant, or None.
    """

    name: str
    batch: int | None
    blocks: tuple[int, ...] = ()
    calls: int = 1
    first: float = 0.0
    warmup: int = 0
    timed: str = ""
    error: Exception | None = field(default=None, compare=False)

    @property
    def ran(self) -> bool:
        return bool(self.blocks)

    @property
    def times(self) -> tuple[float, ...]:
        """Seconds per call, one for each round."""
        return tuple(block / self.calls / 1e9 for block in self.blocks)

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of the seconds per call."""
        return quartiles_of(self.times)


def quartiles_of(values: Any) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile.

    >>> quartiles_of([1, 2, 3, 4, 5])
    (2.0, 3.0, 4.0)
    """
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return low, median, high


class Runner:
    """A contestant on the track; :meth:`lane` freezes what it did."""

    def __init__(self, name: str, fn: Callable, batch: int | None, args: Any, kwargs: Any) -> None:
        self.name, self.fn, self.batch, self.args, self.kwargs = name, fn, batch, args, kwargs
        self.ready = Prepared(partial(fn, *args, **kwargs), PLAIN)
        self.blocks: list[int] = []
        self.calls, self.first, self.warmup, self.pace = 1, 0.0, 0, 0.0
        self.error: Exception | None = None

    def prepare(self, threads: int) -> Callable[[], None]:
        """Ready to run; returns what gives the resources back."""
        offer = getattr(self.fn, "prepare", None)
        if callable(offer) and not isinstance(self.fn, torch.nn.Module):
            self.ready = offer(*self.args, threads=threads, **self.kwargs)
        return self.ready.close

    def warm_up(self, seconds: float) -> None:
        """The first call, apart; then calls until they are enough; then the size of a block."""
        self.first = self.block(1) / 1e9
        laps: list[float] = []
        while len(laps) < WARM_CALLS and (sum(laps) < seconds or not laps):
            laps.append(self.block(1) / 1e9)
        self.pace = max(float(np.median(laps[len(laps) // 2 :])), 1e-8)
        self.calls = max(1, round(BLOCK / self.pace))
        self.warmup = 1 + len(laps)

    def block(self, calls: int) -> int:
        """Nanoseconds of so many calls."""
        run = self.ready.run
        start = perf_counter_ns()
        for _ in repeat(None, calls):
            run()
        return perf_counter_ns() - start

    def lap(self, threads: int) -> float:
        """Seconds that a round spends on this contestant."""
        return self.pace * (self.calls + 1) + _rest(threads)

    def lane(self) -> Lane:
        return Lane(
            self.name,
            self.batch,
            tuple(self.blocks),
            self.calls,
            self.first,
            self.warmup,
            self.ready.timed,
            self.error,
        )


def heat(runners: Sequence[Runner], threads: int, seconds: float, rng: random.Random) -> None:
    """All contestants at one batch size, from the start line to the last round."""
    with ExitStack() as stack, torch.inference_mode():
        for runner in runners:
            with _kept(runner):
                stack.callback(runner.prepare(threads))
                runner.warm_up(seconds * WARM_SHARE)
        lap = sum(runner.lap(threads) for runner in runners if not runner.error)
        rounds = max(LEAST_ROUNDS, round(seconds / lap)) if lap else 0
        at = "racing" if runners[0].batch is None else f"racing at batch {runners[0].batch}"
        with _no_collector():
            for _ in progress.bar(range(rounds), desc=at, unit="round"):
                _round([runner for runner in runners if not runner.error], threads, rng)


def _round(runners: list[Runner], threads: int, rng: random.Random) -> None:
    """One block of everybody; recorded only when all are done, so that rounds stay paired."""
    blocks: dict[Runner, int] = {}
    for runner in rng.sample(runners, len(runners)):
        with _kept(runner):
            sleep(_rest(threads))
            runner.block(1)  # discarded: the caches still belong to the one who ran before
            blocks[runner] = runner.block(runner.calls)
    for runner, block in blocks.items():
        runner.blocks.append(block)


def _rest(threads: int) -> float:
    """Seconds until the threads of the one who ran before are asleep; one thread needs none."""
    return SETTLE if threads > 1 else 0.0


@contextmanager
def _kept(runner: Runner) -> Iterator[None]:
    """A contestant's own failure takes it out of the race, not the race down."""
    try:
        yield
    except Exception as error:
        runner.error = error
        runner.blocks.clear()


@contextmanager
def thread_budget(wanted: int) -> Iterator[int]:
    """torch's intra-op threads for a while; gives what torch says it got, and puts it back."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@contextmanager
def eval_mode(contestants: Mapping[str, Callable]) -> Iterator[None]:
    """Every model among them in eval mode for a while; each part is put back as it was."""
    modules = [fn for fn in contestants.values() if isinstance(fn, torch.nn.Module)]
    before = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for part, training in before:
            part.training = training


@contextmanager
def _no_collector() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
