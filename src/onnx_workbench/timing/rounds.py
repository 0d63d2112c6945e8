"""How long do targets take, raced side by side under the same conditions?

* Targets run in rounds, each one short block, in a new random order, and ratios are taken within a
  round: runs one after the other would drift apart.
* Every target is started several times in a fresh process, and the interval counts these
  replicates, not calls: two processes of one program differ for as long as they live.
* With one thread all processes of a replicate are kept to one core, drawn anew for each, where the
  system allows that: cores differ, since each has its own neighbors.
* Time in which other processes had the core is taken off, where the system says.
* Thread budgets are equal and read back. First calls are kept apart.
* The baseline races against a copy of itself. A race that finds a difference there is not trusted.
"""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter, sleep
from typing import Any

import torch

from .. import progress
from ..calls import check_initialized, door, number, whole
from ..calls import threads as thread_count
from ..errors import InputError, TrainingModeWarning
from ..formatting import kind_of
from ..source import depth_of_caller
from .bench import LAP_SECONDS, Bench, Started
from .report import Race, reason
from .results import Conditions, Replicate, Result
from .statistics import REPLICATES
from .targets import call_of
from .worker import PINS, NotSendable, Parcel, Worker

LEAST, ENOUGH, MOST = 2, 3, 20
"""Replicates: always; even beyond the seconds, up to a quarter more; at most."""
WIDTH = 0.025
"""The half-width at which a race ends."""
LEAST_ROUNDS, MOST_ROUNDS = 5, 40
QUICK, CAREFUL = 2.0, 25.0
SETTLE = 0.05
"""Seconds; an idle pool of ONNX Runtime spins for about 40 ms, one of OpenMP for 9."""
LOOK = 0.3
"""Seconds for which the cores are watched before several threads race."""


@door
def race(
    targets: Mapping[str, Callable[..., object]],
    args: Any = (),
    kwargs: dict[str, Any] | None = None,
    *,
    threads: int = 1,
    seconds: float | None = None,
    quick: bool = False,
    matters: float = 0.03,
    seed: int = 0,
) -> Race:
    """Race callables on the same inputs; the first is the baseline of the others.

    A target with a method ``timed_call``, such as an Artifact, says itself what is timed
    (:class:`~onnx_workbench.calls.PreparedCall`). Every other is timed as ``fn(*args, **kwargs)``
    under ``torch.inference_mode``, a model in eval mode.

    Each replicate starts every target in a fresh process. Five replicates are raced, and more until
    the 95 % intervals reach 2.5 % to each side, twenty replicates or the seconds are over: never
    until something is significant. A target that cannot be sent to another process makes all race
    in this one, with wider intervals, and the report says so. A target that fails stays in the
    table with its reason. Ctrl-C returns what was measured until then, and ends every process.

    Args:
        targets: name -> callable.
        args, kwargs: the inputs of every target.
        threads: intra-op threads of every target.
        seconds: the budget, 25 by default. A race takes at most half as much again, unless two
            replicates need more: then the report begins with that.
        quick: race in this process, for 2 seconds by default: for a slider, and for a first look.
        matters: the least difference that counts, as a fraction.
        seed: of every random order.

    Raises:
        InputError: nothing to race, something that cannot be called, a budget that is not
            positive, an isolated file in this process, or no target that runs.

    >>> relu = race({"eager": torch.relu, "clamp": lambda x: x.clamp(min=0)},
    ...             torch.ones(4, 8), quick=True, seconds=0.02)
    >>> relu.baseline, relu.result("clamp").error
    ('eager', '')
    """
    check(targets)
    threads, seed = thread_count(threads), whole("seed", seed, least=0)
    matters = number("matters", matters, zero=True)
    budget = (QUICK if quick else CAREFUL) if seconds is None else number("seconds", seconds)
    _warn_of_training(targets)
    calls = {name: call_of(fn, args, kwargs or {}, threads) for name, fn in targets.items()}
    conditions = Conditions(
        _environment(), threads, *cores(threads), budget, matters=matters, seed=seed
    )
    if quick:
        return _in_process(_Rounds(calls, conditions, why="a quick race"))
    try:
        return _in_workers(_Rounds(calls, conditions))
    except NotSendable as error:
        why = f"a target cannot be sent to another process ({error})"
        return _in_process(_Rounds(calls, conditions, why=why))


@dataclass
class _Rounds:
    """Everybody who races, and what was measured until now."""

    calls: dict[str, Any]
    conditions: Conditions
    why: str = ""
    started: dict[str, Started] = field(default_factory=dict)
    replicates: dict[str, list[Replicate]] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    count: int = 0
    interrupted: bool = False

    def __post_init__(self) -> None:
        first = next(iter(self.calls))
        self.copy = f"{first} again"
        while self.copy in self.calls:
            self.copy += " again"
        self.racing = {**self.calls, self.copy: self.calls[first]}
        self.rng = random.Random(self.conditions.seed)
        self.begin = perf_counter()

    @property
    def took(self) -> float:
        return perf_counter() - self.begin

    def replicate(
        self,
        made: Mapping[str, Callable[[], Bench | Worker]],
        seconds: float,
        most: float,
        tick: Callable[[], object],
    ) -> None:
        """Start everybody anew, race for so many seconds or rounds, and end it all.

        Args:
            made: what starts each, in the order in which they start and warm up.
        """
        blocks: dict[str, list[tuple[int, int]]] = {}
        laps: dict[str, tuple[int, ...]] = {}
        with ExitStack() as stack:
            benches = {}
            for name, make in made.items():
                benches[name] = make()
                stack.callback(benches[name].close)
            for name, bench in benches.items():  # all imports are over before anyone is timed
                self._try(name, bench.opened)
            for name, bench in benches.items():
                if name not in self.errors and (started := self._try(name, bench.start)):
                    self.started[name], blocks[name] = started, []
            try:
                for _ in range(self._affordable(blocks, seconds, most)):
                    self._round(benches, blocks)
                    tick()
                laps = {name: self._try(name, benches[name].laps) or () for name in blocks}
            except KeyboardInterrupt:
                self.interrupted = True
        self.count += 1
        for name, measured in blocks.items():
            if measured and name not in self.errors:
                took, queued = zip(*measured, strict=True)
                one = Replicate(took, queued, laps.get(name, ()), self.started[name])
                self.replicates.setdefault(name, []).append(one)

    def _try(self, name: str, step: Callable[..., Any], *rest: Any) -> Any:
        """What the step returns; a target that fails leaves the race, and the others go on."""
        try:
            return step(*rest)
        except NotSendable:
            raise
        except Exception as error:
            self.errors[name] = error
            self.replicates.pop(name, None)

    def _affordable(self, blocks: Mapping[str, Any], seconds: float, most: float) -> int:
        """How many rounds fit into the seconds."""
        told = [self.started[name] for name in blocks]
        lap = sum(one.pace * (one.calls + 1) + self._rest for one in told)
        return max(LEAST_ROUNDS, round(min(seconds / lap, most))) if lap else 0

    def _round(self, benches: Mapping[str, Any], blocks: dict[str, list[tuple[int, int]]]) -> None:
        """One block of everybody; kept only when all are done, so that rounds stay paired."""
        done = {}
        for name in self.rng.sample(list(blocks), len(blocks)):
            sleep(self._rest)
            done[name] = self._try(name, benches[name].block, self.started[name].calls)
        for name, block in done.items():
            if name in self.errors:
                del blocks[name]
            else:
                blocks[name].append(block)

    @property
    def _rest(self) -> float:
        """Seconds in which the pool of threads that ran before falls asleep."""
        return SETTLE if self.conditions.threads > 1 else 0.0

    def race(self, stopped: str = "", **more: Any) -> Race:
        """What was measured: the copy after its original, and failed targets with their reason."""
        if self.interrupted and not self.replicates:
            raise KeyboardInterrupt
        if not self.replicates:
            failed = [f"{name}: {reason(self.errors[name])}" for name in self.calls]
            raise InputError(
                f"No target ran. {'; '.join(failed)}. "
                "Call one by hand with the same inputs to see it fail."
            ) from next(iter(self.errors.values()))
        at: dict[str, Any] = {"took": self.took, "why": self.why, "workers": not self.why}
        at |= {"interrupted": self.interrupted, "stopped": stopped, **more}
        first, *others = self.calls
        every = [self._result(name) for name in (first, self.copy, *others)]
        ran = tuple(one for one in every if one.ran or one.error)
        return Race(ran, replace(self.conditions, **at))

    def _result(self, name: str) -> Result:
        if error := self.errors.get(name):
            return Result(name, control=name == self.copy, error=reason(error))
        unbound = getattr(self.racing[name], "is_bound_form_of", lambda other: False)
        plain = (other for other, call in self.calls.items() if unbound(call))
        control = name == self.copy
        done = tuple(self.replicates.get(name, ()))
        return Result(name, done, "" if control else next(plain, ""), control)


def _in_workers(rounds: _Rounds) -> Race:
    parcels = {name: Parcel.of(call) for name, call in rounds.calls.items()}
    parcels[rounds.copy] = parcels[next(iter(parcels))]
    at, stopped = rounds.conditions, ""
    one_core = PINS and at.threads == 1
    share = at.seconds / REPLICATES / 3  # the rest is for starting and warming up
    with progress.bar(desc="racing", unit="round") as bar:
        while not stopped:
            begin = rounds.took
            core = rounds.rng.choice(sorted(os.sched_getaffinity(0))) if one_core else None
            order = [name for name in parcels if name not in rounds.errors]
            made = {
                name: partial(Worker, at.threads, parcels[name], core)
                for name in rounds.rng.sample(order, len(order))
            }
            try:
                rounds.replicate(made, share, MOST_ROUNDS, bar.update)
            except KeyboardInterrupt:  # while everybody starts
                if not rounds.replicates:
                    raise
                rounds.interrupted = True
            stopped = _stopped(rounds, rounds.took - begin)
    return rounds.race(stopped, one_core=one_core)


def _stopped(rounds: _Rounds, last: float) -> str:
    """What ends the race after a replicate that took ``last`` seconds, or nothing."""
    count, budget = rounds.count, rounds.conditions.seconds
    if rounds.interrupted or not rounds.replicates:
        return "interrupted"
    if count >= MOST:
        return f"after {MOST} replicates, the most there are"
    limit = budget * (1.25 if count < ENOUGH else 1.0)
    if count >= LEAST and rounds.took + last > limit:
        return f"after {count} replicates: the budget of {budget:g} s allows no more"
    if count >= REPLICATES and _widest(rounds.race()) <= WIDTH:
        return f"after {count} replicates: all intervals are within {100 * WIDTH:g} % to each side"
    return ""


def _widest(race: Race) -> float:
    found = [race.control, *(race.ratio(one.name) for one in race.results)]
    return max((ratio.half for ratio in found if ratio), default=0.0)


def _in_process(rounds: _Rounds) -> Race:
    """One replicate, everybody in this process, for as many rounds as the budget allows."""
    for name, call in rounds.calls.items():
        if getattr(call, "isolated", False):
            raise InputError(
                f"The target {name!r} is an isolated file, and this race would run it in this "
                f"process, because it is {rounds.why}.",
                "leave out quick=True and what cannot be sent, or load() a file that you trust "
                "without isolated=True.",
            )
    seconds, every = rounds.conditions.seconds, len(rounds.racing)
    times = (seconds / 5 / every, min(LAP_SECONDS, seconds / 5 / every))
    made = {name: partial(Bench, call, *times) for name, call in rounds.racing.items()}
    with _no_collector(), progress.bar(desc="racing", unit="round") as bar:
        rounds.replicate(made, 0.8 * seconds, float("inf"), bar.update)
    return rounds.race("interrupted" if rounds.interrupted else f"after {seconds:g} s")


def check(targets: Any) -> None:
    """Raises InputError unless this is a dict of name -> callable, and not empty."""
    if not isinstance(targets, Mapping) or not targets:
        empty = isinstance(targets, Mapping)
        given = "nothing to race" if empty else type(targets).__name__
        raise InputError(
            f"race() takes a dict of name -> callable, and got {given}.",
            'write race({"PyTorch": model, "ONNX Runtime": artifact}, x).',
        )
    for name, fn in targets.items():
        if not isinstance(name, str):
            raise InputError(
                f"A target has the name {name!r:.80}, {kind_of(name)}; a name is a string."
            )
        if isinstance(fn, torch.nn.Module):
            check_initialized("race", fn)
        if not callable(fn):
            raise InputError(
                f"The target {name!r} cannot be called: it is {kind_of(fn)}.",
                "pass a model, an Artifact or a function.",
            )


def _warn_of_training(targets: Mapping[str, Callable]) -> None:
    training = [
        name
        for name, fn in targets.items()
        if isinstance(fn, torch.nn.Module) and any(part.training for part in fn.modules())
    ]
    if training:
        warnings.warn(
            f"{', '.join(training)} in training mode: raced in eval mode, put back afterwards.",
            TrainingModeWarning,
            stacklevel=depth_of_caller(),
        )


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


def cores(threads: int) -> tuple[int, float | None]:
    """The cores that this process may use, and how many of them others keep busy.

    The load average would still count the race before this one; with one thread nobody asks.
    """
    import psutil

    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    mine = affinity(0) if affinity else range(os.cpu_count() or 1)
    if threads == 1:
        return len(mine), None
    busy = psutil.cpu_percent(LOOK, percpu=True)
    return len(mine), sum(busy[core] for core in mine if core < len(busy)) / 100


def _environment() -> dict[str, str]:
    """The machine, the Python, and the version of what is loaded."""
    chip = f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}"
    loaded = [name for name in ("torch", "onnxruntime", "numpy") if name in sys.modules]
    return {
        "chip": chip,
        "system": platform.system(),
        "Python": f"Python {platform.python_version()}",
        **{name: f"{name} {importlib.metadata.version(name)}" for name in loaded},
    }
