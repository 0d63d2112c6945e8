"""``race``: how long targets take, side by side under the same conditions.

* Targets run in rounds: one short block each, in a new random order. Ratios are taken within a
  round, since separate runs would drift apart.
* Every target is started several times in a fresh process. The interval counts these replicates,
  not calls: two processes of one program differ as long as they live.
* With one thread, all processes of a replicate are pinned to one random core, if the system allows
  it: cores differ.
* Time in which other processes had the core is subtracted, if the system reports it.
* Thread budgets are equal and read back. First calls are reported separately.
* The baseline races against a copy of itself. A race that finds a difference there is not trusted.
  Every other target is compared with the mean of the two: half the variance of one.
"""

from __future__ import annotations

import gc
import os
import platform
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from time import perf_counter, sleep
from typing import Any

import psutil
import torch

from .. import calls, progress
from ..brief import first_words
from ..errors import InputError
from ..formatting import kind_of
from ..machine import packages, trim_memory
from ..torch_state import evaluating
from .bench import LAP_SECONDS, Bench, Started
from .report import Race
from .results import Conditions, Replicate, Result
from .statistics import REPLICATES
from .targets import timed_call_of
from .worker import PINS, NotSendable, RemoteBench, pack

LEAST_REPLICATES = 2
"""The fewest replicates."""
OVERTIME_REPLICATES = 3
"""The replicates up to which a race may take 1.25 times its budget."""
MOST_REPLICATES = 20
"""The most replicates."""
HALF_WIDTH = 0.02
"""The half-width at which a race ends."""
LEAST_ROUNDS, MOST_ROUNDS = 5, 40
QUICK, CAREFUL = 2.0, 25.0
SETTLE = 0.05
"""Seconds before a block in which the previous thread pool falls asleep: an idle pool of ONNX
Runtime spins for about 40 ms, one of OpenMP for 9."""
LOOK = 0.3
"""Seconds for which the load of the cores is measured before several threads race."""


@calls.normalize_call
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

    A target with a method ``timed_call``, such as an Artifact, defines what is timed
    (:class:`~onnx_workbench.calls.PreparedCall`). Any other is timed as ``fn(*args, **kwargs)``
    under ``torch.inference_mode``, a model in eval mode.

    Each replicate starts every target in a fresh process. From five replicates on, the race ends
    when all 95 % intervals are within 2 % to each side. It ends earlier, but not before two, when
    the seconds are over, and in any case after twenty. It never waits for significance. If a target
    cannot be sent to another process, all targets race in this one, with wider intervals, and the
    report says so. A target that fails stays in the table with its reason. Ctrl-C returns the
    results so far, and ends every process.

    Args:
        targets: name -> callable.
        args, kwargs: the inputs of every target.
        threads: intra-op threads of every target.
        seconds: the budget, 25 by default. A race takes at most 1.5 times as long, unless two
            replicates need more; then the report begins with that.
        quick: race in this process, for 2 seconds by default, as for a slider or a first look.
        matters: the least difference that counts, as a fraction.
        seed: of every random order.

    Raises:
        InputError: there is nothing to race, a target cannot be called, the budget is not positive,
            an isolated file would race in this process, or no target runs.

    >>> relu = race({"eager": torch.relu, "clamp": lambda x: x.clamp(min=0)},
    ...             torch.ones(4, 8), quick=True, seconds=0.02)
    >>> relu.baseline, relu.result("clamp").error
    ('eager', '')
    """
    _check(targets)
    threads, seed = calls.threads(threads), calls.whole("seed", seed, least=0)
    matters = calls.number("matters", matters, zero=True)
    seconds = (QUICK if quick else CAREFUL) if seconds is None else calls.number("seconds", seconds)
    with ExitStack() as stack:
        for fn in targets.values():
            stack.enter_context(evaluating(fn))
        timed = {
            name: timed_call_of(fn, args, kwargs or {}, threads) for name, fn in targets.items()
        }
        cores, busy = _cores(threads)
        at = Conditions(_environment(), threads, cores, busy, seconds, matters=matters, seed=seed)
        tick = stack.enter_context(progress.bar("race", unit=" rounds"))
        if quick:
            return _in_process(_Rounds(timed, at, tick), "it is a quick race")
        try:
            return _in_workers(_Rounds(timed, at, tick))
        except NotSendable as error:
            why = f"a target cannot be sent to another process ({error})"
            return _in_process(_Rounds(timed, at, tick), why)


class _Rounds:
    """The targets of a race, and the results so far."""

    def __init__(
        self, timed: Mapping[str, Any], conditions: Conditions, tick: Callable[[], object]
    ) -> None:
        self.first = next(iter(timed))
        self.copy = f"{self.first} again"
        while self.copy in timed:
            self.copy += " again"
        self.timed = {**timed, self.copy: timed[self.first]}
        self.conditions, self.tick = conditions, tick
        self.started: dict[str, Started] = {}
        self.replicates: dict[str, tuple[Replicate, ...]] = {}
        self.errors: dict[str, BaseException] = {}
        self.count, self.interrupted = 0, False
        self.rest = SETTLE if conditions.threads > 1 else 0.0
        self.rng, self.begin = random.Random(conditions.seed), perf_counter()

    @property
    def took(self) -> float:
        return perf_counter() - self.begin

    def replicate(
        self, starts: Mapping[str, Callable[[], Bench | RemoteBench]], seconds: float, most: float
    ) -> None:
        """Start every target, race for ``seconds`` but at most ``most`` rounds, and end them.

        Args:
            starts: functions that start the targets, in the order of their start.
        """
        rounds: list[dict[str, tuple[int, int]]] = []
        laps: dict[str, tuple[int, ...]] = {}
        try:
            with ExitStack() as stack:
                benches = {}
                for name, start in starts.items():
                    benches[name] = start()
                    stack.callback(benches[name].close)
                for name, bench in benches.items():  # imports end before anything is timed
                    self._try(name, bench.opened)
                for name in self.racing(benches):
                    self.started[name] = self._try(name, benches[name].start)
                for _ in range(self._affordable(self.racing(benches), seconds, most)):
                    rounds.append(self._round(benches))
                    self.tick()
                laps = {name: self._try(name, benches[name].laps) for name in self.racing(benches)}
        except KeyboardInterrupt:
            self.interrupted = True
        self.count += 1
        for name in self.racing(starts) if rounds else ():
            took, queued = zip(*(blocks[name] for blocks in rounds), strict=True)
            replicate = Replicate(took, queued, laps.get(name, ()), self.started[name])
            self.replicates[name] = (*self.replicates.get(name, ()), replicate)

    def racing(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self.errors]

    def _try(self, name: str, step: Callable[..., Any], *rest: Any) -> Any:
        """Run a step of one target. A target that fails leaves the race; the others go on."""
        try:
            return step(*rest)
        except NotSendable:
            raise
        except (Exception, SystemExit) as error:
            self.errors[name] = error
            self.replicates.pop(name, None)

    def _affordable(self, names: list[str], seconds: float, most: float) -> int:
        """How many rounds fit into the seconds."""
        started = [self.started[name] for name in names]
        once = sum(one.pace * (one.calls + 1) + self.rest for one in started)
        return max(LEAST_ROUNDS, round(min(seconds / once, most))) if once else 0

    def _round(self, benches: Mapping[str, Bench | RemoteBench]) -> dict[str, tuple[int, int]]:
        """One block of every target, in random order."""
        done, names = {}, self.racing(benches)
        for name in self.rng.sample(names, len(names)):
            sleep(self.rest)
            done[name] = self._try(name, benches[name].block, self.started[name].calls)
        return done

    def race(self, stopped: str = "", **more: Any) -> Race:
        """The results so far: the copy after the baseline, and failed targets with their reason."""
        if self.interrupted and not self.replicates:
            raise KeyboardInterrupt
        if not self.replicates:
            failed = [
                f"{name}: {_reason(self.errors[name])}" for name in self.timed if name != self.copy
            ]
            raise InputError(
                f"No target ran. {'; '.join(failed)}.",
                "Call one yourself with the same inputs to see it fail.",
            ) from self.errors[self.first]
        more |= {"took": self.took, "interrupted": self.interrupted, "stopped": stopped}
        names = dict.fromkeys((self.first, self.copy, *self.timed))
        return Race(tuple(map(self._result, names)), replace(self.conditions, **more))

    def _result(self, name: str) -> Result:
        control = name == self.copy
        if error := self.errors.get(name):
            return Result(name, control=control, error=_reason(error))
        is_bound_form_of = getattr(self.timed[name], "is_bound_form_of", lambda other: False)
        plain = (other for other, call in self.timed.items() if is_bound_form_of(call))
        unbound = "" if control else next(plain, "")
        return Result(name, self.replicates.get(name, ()), unbound, control)


def _in_workers(rounds: _Rounds) -> Race:
    """Race replicates in fresh processes until the intervals are narrow or the seconds over."""
    at, stopped = rounds.conditions, ""
    one_core = PINS and at.threads == 1
    packed = {
        name: (tuple(getattr(call, "modules", ())), pack(call))
        for name, call in rounds.timed.items()
        if name != rounds.copy
    }
    packed[rounds.copy] = packed[rounds.first]
    share = at.seconds / REPLICATES / 3  # the rest is for starting and warming up
    while not stopped:
        begin = rounds.took
        core = rounds.rng.choice(sorted(os.sched_getaffinity(0))) if one_core else None
        names = rounds.racing(packed)
        starts = {
            name: partial(RemoteBench, at.threads, *packed[name], core)
            for name in rounds.rng.sample(names, len(names))
        }
        rounds.replicate(starts, share, MOST_ROUNDS)
        stopped = _stopped(rounds, rounds.took - begin)
    return rounds.race(stopped, one_core=one_core)


def _stopped(rounds: _Rounds, last: float) -> str:
    """Why the race ends after a replicate that took ``last`` seconds; empty if it goes on."""
    count, budget = rounds.count, rounds.conditions.seconds
    if rounds.interrupted or not rounds.replicates:
        return "interrupted"
    if count >= MOST_REPLICATES:
        return f"after {MOST_REPLICATES} replicates, the maximum"
    limit = budget * (1.25 if count < OVERTIME_REPLICATES else 1.0)
    if count >= LEAST_REPLICATES and rounds.took + last > limit:
        return f"after {count} replicates: the budget of {budget:g} s allows no more"
    if count < REPLICATES:
        return ""
    race = rounds.race()
    ratios = filter(None, [race.control, *map(race.ratio, rounds.timed)])
    if any(ratio.half > HALF_WIDTH for ratio in ratios):
        return ""
    return f"after {count} replicates: all intervals are within {100 * HALF_WIDTH:g} % to each side"


def _in_process(rounds: _Rounds, why: str) -> Race:
    """Race one replicate in this process, for as many rounds as the budget allows."""
    for name, call in rounds.timed.items():
        if getattr(call, "isolated", False):
            raise InputError(
                f"The target {name!r} is an isolated file, but this race would run it in this "
                f"process, because {why}.",
                "Leave out quick=True and targets that cannot be sent, or load() a file that you "
                "trust without isolated=True.",
            )
    seconds, collecting = rounds.conditions.seconds, gc.isenabled()
    warm = seconds / 5 / len(rounds.timed)
    lap_seconds = min(LAP_SECONDS, warm)
    starts = {name: partial(Bench, call, warm, lap_seconds) for name, call in rounds.timed.items()}
    gc.collect()
    gc.disable()
    try:
        rounds.replicate(starts, 0.8 * seconds, float("inf"))
    finally:
        if collecting:
            gc.enable()
        trim_memory()
    stopped = "interrupted" if rounds.interrupted else f"after {seconds:g} s"
    return rounds.race(stopped, workers=False, why=why)


def _check(targets: Any) -> None:
    """Raises InputError unless ``targets`` is a non-empty dict of name -> callable."""
    if not isinstance(targets, Mapping) or not targets:
        given = "an empty one" if isinstance(targets, Mapping) else type(targets).__name__
        raise InputError(
            f"race() takes a dict of name -> callable, and got {given}.",
            'Write race({"PyTorch": model, "ONNX Runtime": artifact}, x).',
        )
    for name, fn in targets.items():
        if isinstance(fn, torch.nn.Module):
            calls.check_initialized("race", fn)
        if not isinstance(name, str) or not callable(fn):
            raise InputError(
                f"race() takes a dict of name -> callable, and got {name!r:.80}, {kind_of(name)}, "
                f"with {kind_of(fn)}.",
                "Pass a string as the name of a model, an Artifact or a function.",
            )


def _cores(threads: int) -> tuple[int, float | None]:
    """The number of cores for this process, and how many of them other processes keep busy.

    The load average would still count the previous race. One thread does not need it.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # only on Linux
    mine = affinity(0) if affinity else range(os.cpu_count() or 1)
    if threads == 1:
        return len(mine), None
    busy = psutil.cpu_percent(LOOK, percpu=True)
    return len(mine), sum(busy[core] for core in mine if core < len(busy)) / 100


def _environment() -> dict[str, str]:
    """The machine, and the versions of Python and of the loaded packages."""
    loaded = {"torch", "onnxruntime", "numpy"} & sys.modules.keys()
    found = {name: f"{name} {version}" for name, version in packages().items()}
    return {
        "chip": f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}",
        "system": platform.system(),
        "Python": f"Python {platform.python_version()}",
        **{name: words for name, words in found.items() if name.removesuffix("-gpu") in loaded},
    }


def _reason(error: BaseException) -> str:
    """An error in a few words that fit into a table."""
    words = first_words(error)
    return words if len(words) <= 100 else f"{words[:97]}..."
