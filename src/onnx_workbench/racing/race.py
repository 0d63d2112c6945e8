"""How long do callables take, raced side by side under the same conditions?

What misleads most benchmarks of this field is kept out. Runs one after the other drift apart on a
shared machine: here contestants run in rounds, each one short block, in fresh random order, and
ratios are taken within a round. Time in which other processes had the core is taken off, where
the system tells. Two processes of the same program differ for as long as they live: here every
contestant is started anew several times, and the interval counts those starts, not calls. Where
processes share an import of torch, it is made anew with them. Two cores differ, since each has
neighbours of its own: with one thread all processes of a stratum are kept to one core, drawn anew
each time, where the system allows that. Thread budgets are equal and read back. First calls are
kept apart. The baseline races against a copy of itself, and a race that finds a difference there is
not trusted.
"""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Any

import torch

from .. import checks, progress
from ..calls import door
from ..contestant import Prepared
from ..errors import InputError, TrainingModeWarning
from ..source import depth_of_caller
from ..text import kind_of
from . import heats
from .bench import Bench, Entry
from .call import Call
from .heats import Place, Seat, Stratum
from .lane import Lane
from .process import FORKS, forked, needs_torch
from .report import Conditions, Race, reason
from .verdict import STRATA
from .worker import FREEZES, KEEPS, Worker, WorkerError, packed

LEAST_STRATA, MOST_STRATA = 3, 20
WIDTH = 0.025
"""The half-width at which a race ends."""
QUICK = 2.0
LOOK = 0.3
"""Seconds for which the cores are watched before several threads race."""
_DISTRIBUTIONS = ("torch", "onnxruntime", "numpy")


@door
def race(
    contestants: Mapping[str, Callable[..., object]],
    args: Any = (),
    kwargs: dict[str, Any] | None = None,
    *,
    threads: int = 1,
    seconds: float | None = None,
    quick: bool = False,
    matters: float = 0.03,
    seed: int = 0,
) -> Race:
    """Race callables on the same inputs; the first is the one that the others are compared to.

    A contestant that offers ``entry(args, kwargs, threads)``, as an Artifact does, says itself
    what is timed (:class:`~onnx_workbench.contestant.Prepared`). Every other is timed as
    ``fn(*args, **kwargs)`` under ``torch.inference_mode``, a model in eval mode.

    Each stratum starts a fresh process for every contestant; on Linux those that need torch are
    forked from a fresh one that has imported it. Five strata are raced, and more until the 95 %
    intervals reach 2.5 % to each side, twenty strata or the seconds are over: never until something
    is significant. With one thread all processes of a stratum are kept to one core, drawn anew for
    each, on Linux; elsewhere the system places them. Time in which other processes had the core is
    taken off each block where the system tells, as Linux does, and the report says how much it was.
    What cannot be sent to another process makes all race in this one, with wider intervals, and the
    report says so. A contestant that fails stays in the table with its reason. Ctrl-C returns what
    was measured until then, and no process stays behind.

    Args:
        contestants: name -> callable.
        args, kwargs: the inputs of every contestant.
        threads: intra-op threads of every contestant.
        seconds: the budget, 25 by default. Three strata are raced whatever they take.
        quick: race in this process, for 2 seconds by default: for a slider, and for a first look.
        matters: the least difference that counts, as a fraction.
        seed: of every random order.

    Raises:
        InputError: nothing to race, something that cannot be called, a budget that is not
            positive, or no contestant that runs.

    >>> relu = race({"eager": torch.relu, "clamp": lambda x: x.clamp(min=0)},
    ...             torch.ones(4, 8), quick=True, seconds=0.02)
    >>> relu.baseline, relu.lane("clamp").error
    ('eager', None)
    """
    return races(contestants, [(args, kwargs or {})], threads, seconds, quick, matters, seed)[0]


def races(
    contestants: Mapping[str, Callable[..., object]],
    calls: Sequence[tuple[tuple, Mapping[str, Any]]],
    threads: int = 1,
    seconds: float | None = None,
    quick: bool = False,
    matters: float = 0.03,
    seed: int = 0,
) -> list[Race]:
    """A race for each of several calls of the same contestants, in the same processes.

    Args:
        calls: ``(args, kwargs)`` of each.
        seconds: the budget of each.
    """
    check("race", contestants)
    threads, seed = checks.threads(threads), checks.whole("seed", seed, least=0)
    matters = checks.number("matters", matters, zero=True)
    each = (QUICK if quick else 25.0) if seconds is None else checks.number("seconds", seconds)
    _warn_of_training(contestants)
    entries = {
        name: [entry_of(fn, args, dict(kwargs), threads) for args, kwargs in calls]
        for name, fn in contestants.items()
    }
    entrants = _Entrants(contestants, entries)
    budget = each * len(calls)
    conditions = Conditions(
        *(_environment(), threads, *cores(threads), budget, matters, seed), freezes=FREEZES
    )
    if quick:
        return _in_process(entrants, replace(conditions, why="a quick race"))
    try:
        return _in_workers(entrants, conditions)
    except WorkerError as error:
        return _in_process(entrants, replace(conditions, why=f"no worker can hold them ({error})"))


@dataclass
class _Entrants:
    """Everybody who races, and what was run until now."""

    contestants: Mapping[str, Callable[..., object]]
    entries: dict[str, list[Entry]]
    strata: list[Stratum] = field(default_factory=list)

    def __post_init__(self) -> None:
        first = next(iter(self.contestants))
        self.copy = f"{first} again"
        while self.copy in self.entries:
            self.copy += " again"
        self.entries[self.copy] = self.entries[first]

    def races(self, conditions: Conditions) -> list[Race]:
        """For each call, with a lane for everybody who ran at least a round or failed, the copy
        after the first."""
        first, *others = self.contestants
        names = (first, self.copy, *others)
        every = ([self._lane((name, at)) for name in names] for at in range(self.calls))
        return [
            Race(tuple(one for one in lanes if one.ran or one.error), conditions) for lanes in every
        ]

    @property
    def calls(self) -> int:
        return len(self.entries[self.copy])

    def _lane(self, place: Place) -> Lane:
        name, _ = place
        errors = [one.errors[place] for one in self.strata if place in one.errors]
        control = name == self.copy
        twin = "" if control else self._twin(name)
        lane = Lane(name, twin=twin, control=control, error=next(iter(errors), None))
        if errors:
            return lane
        runs = [one.runs()[place] for one in self.strata if place in one.runs()]
        ready = next((one.ready[place] for one in self.strata if place in one.ready), None)
        if not ready:
            return lane
        return replace(
            lane, runs=tuple(runs), timed=ready.timed, threads=ready.threads, panel=ready.panel
        )

    def _twin(self, name: str) -> str:
        """Who makes the same call and pays for its copies, as the entry itself says."""
        binds = getattr(self.entries[name][0], "binds", lambda other: False)
        return next((one for one in self.contestants if binds(self.entries[one][0])), "")


def _in_workers(entrants: _Entrants, conditions: Conditions) -> list[Race]:
    payloads = {name: packed(entries) for name, entries in entrants.entries.items()}
    rng, start, stopped = random.Random(conditions.seed), perf_counter(), ""
    conditions = replace(conditions, one_core=KEEPS and conditions.threads == 1)
    with progress.bar(desc="racing", unit="round") as bar:
        while not stopped:
            stratum = _stratum(entrants, payloads, conditions, rng, bar.update)
            conditions = replace(
                conditions,
                stratum=(perf_counter() - start) / len(entrants.strata),
                interrupted=stratum.interrupted,
            )
            stopped = _stop(entrants, conditions, perf_counter() - start)
    return _finished(entrants, replace(conditions, stopped=stopped))


def _stratum(
    entrants: _Entrants,
    payloads: Mapping[str, bytes],
    conditions: Conditions,
    rng: random.Random,
    tick: Callable[[], object],
) -> Stratum:
    """One more stratum; interrupted while it starts, it is none."""
    share = conditions.seconds / STRATA / 3  # the rest is for starting and warming up
    try:
        with _seats(payloads, conditions, rng) as seats:
            stratum = heats.run(seats, share, rng, conditions.threads, heats.ROUNDS, tick)
    except KeyboardInterrupt:
        if not entrants.strata:
            raise
        stratum = Stratum(interrupted=True)
    entrants.strata.append(stratum)
    return stratum


@contextmanager
def _seats(
    payloads: Mapping[str, bytes], conditions: Conditions, rng: random.Random
) -> Iterator[dict[str, Callable[[], Seat]]]:
    """What starts a worker for each, in random order, all on one core where that can be had."""
    core = rng.choice(sorted(os.sched_getaffinity(0))) if conditions.one_core else None
    order = rng.sample(list(payloads), len(payloads))
    with_torch = [name for name in order if FORKS and needs_torch(payloads[name])]
    with forked(len(with_torch), conditions.threads) as forks:
        process = dict(zip(with_torch, forks, strict=True))
        yield {
            name: partial[Seat](Worker, payloads[name], conditions.threads, core, process.get(name))
            for name in order
        }


def _stop(entrants: _Entrants, conditions: Conditions, elapsed: float) -> str:
    """What ends the race after this stratum, or nothing. Significance is no reason."""
    count = len(entrants.strata)
    if conditions.interrupted:
        return "interrupted"
    if not any(stratum.runs() for stratum in entrants.strata):
        return "nobody ran"
    if count >= MOST_STRATA:
        return f"after {count} strata, the most there are"
    if count >= LEAST_STRATA and elapsed + elapsed / count > conditions.seconds:
        return f"after {count} strata: the budget of {conditions.seconds:g} s allows no more"
    if count >= STRATA and _widest(entrants, conditions) <= WIDTH:
        return f"after {count} strata: all intervals are within {100 * WIDTH:g} % to each side"
    return ""


def _widest(entrants: _Entrants, conditions: Conditions) -> float:
    met = entrants.races(conditions)
    found = [one.ratio(lane.name) for one in met for lane in one.lanes if not lane.control]
    checks = [one.control for one in met]
    return max((ratio.half for ratio in (*found, *checks) if ratio), default=0.0)


def _in_process(entrants: _Entrants, conditions: Conditions) -> list[Race]:
    """One stratum, everybody in this process, the rounds as long as the budget allows."""
    rng = random.Random(conditions.seed)
    warm = conditions.seconds / entrants.calls / 5
    conditions = replace(conditions, how="in process", warm=warm)
    seats = {  # the copy warms up last: in one process the first call is the first one's
        name: partial[Seat](Bench, entries, warm) for name, entries in entrants.entries.items()
    }
    with _no_collector(), progress.bar(desc="racing", unit="round") as bar:
        stratum = heats.run(seats, conditions.seconds, rng, conditions.threads, tick=bar.update)
    entrants.strata.append(stratum)
    if stratum.interrupted and not stratum.runs():
        raise KeyboardInterrupt
    stopped = "interrupted" if stratum.interrupted else f"after {conditions.seconds:g} s"
    done = replace(conditions, stopped=stopped, interrupted=stratum.interrupted)
    return _finished(entrants, done)


def _finished(entrants: _Entrants, conditions: Conditions) -> list[Race]:
    met = entrants.races(conditions)
    lanes = [lane for one in met for lane in one.lanes]
    if not any(lane.ran for lane in lanes):
        failed = [lane for lane in lanes if not lane.control]
        said = dict.fromkeys(f"{lane.name}: {reason(lane.error)}" for lane in failed)
        raise InputError(
            f"No contestant ran. {'; '.join(said)}. "
            "Call one by hand with the same inputs to see it fail."
        ) from lanes[0].error
    return met


def entry_of(fn: Callable, args: tuple, kwargs: dict[str, Any], threads: int) -> Entry:
    """What a worker is sent: the contestant's own entry, or a plain call."""
    if isinstance(fn, torch.export.ExportedProgram):
        fn = fn.module()
    offer = getattr(fn, "entry", None)
    if not callable(offer) or isinstance(fn, torch.nn.Module):
        return Call(fn, args, kwargs, threads)
    try:
        return offer(args, kwargs, threads)
    except Exception as error:
        return partial(_failed, error)


def _failed(error: Exception) -> Prepared:
    raise error


def check(door: str, contestants: Any) -> None:
    """Raises InputError unless this is a dict of name -> callable, and not empty."""
    if not isinstance(contestants, Mapping) or not contestants:
        empty = isinstance(contestants, Mapping)
        given = "nothing to race" if empty else type(contestants).__name__
        raise InputError(
            f"{door} takes a dict of name -> callable, and got {given}. "
            f'Write {door}({{"PyTorch": model, "ONNX Runtime": artifact}}, x).'
        )
    for name, fn in contestants.items():
        if not isinstance(name, str):
            raise InputError(
                f"A contestant has the name {name!r:.80}, {kind_of(name)}; a name is a string."
            )
        if isinstance(fn, torch.nn.Module):
            checks.module(door, fn)
        if not callable(fn):
            raise InputError(
                f"Contestant {name!r} cannot be called: it is of type {type(fn).__name__}. "
                "Pass a model, an Artifact or a function."
            )


def _warn_of_training(contestants: Mapping[str, Callable]) -> None:
    training = [
        name
        for name, fn in contestants.items()
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
    loaded = [name for name in _DISTRIBUTIONS if name in sys.modules]
    return {
        "chip": chip,
        "system": platform.system(),
        "Python": f"Python {platform.python_version()}",
        **{name: f"{name} {importlib.metadata.version(name)}" for name in loaded},
    }
