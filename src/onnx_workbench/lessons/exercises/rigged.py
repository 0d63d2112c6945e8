"""10: a benchmark that is wrong in five ways: name its flaws, and fix it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ...formatting import kind_of, table
from . import Hint, hint, simulated
from .simulated import PYTORCH, SIDES, TRUTH, Machine

CLOSE = 0.03
TURNS = 10
SUSPECTS = {
    "threads": "one side may use more threads than the other",
    "input": "the two sides get different inputs",
    "copy": "one side pays for a copy, the other does not",
    "first call": "what happens only once is counted",
    "count": "one side is called more often than the other",
    "mode": "the model trains, or keeps what gradients need",
    "order": "one long run comes after the other",
    "direction": "the ratio is upside down",
}
"""What may be wrong with a benchmark; five of these are."""

FLAWS = ("threads", "copy", "first call", "mode", "order")


def benchmark(model, open_session, x, clock):
    torch.set_num_threads(1)
    session = open_session(threads=4)
    start = clock()
    for _ in range(100):
        model(x)
    eager = clock() - start
    start = clock()
    for _ in range(100):
        session.run(None, {"x": x.numpy().copy()})
    return eager / (clock() - start)


@dataclass(frozen=True, repr=False)
class Rigged:
    """The benchmark, words for its possible flaws, and a machine to try a fixed one on."""

    benchmark: simulated.Benchmark = benchmark
    truth: float = TRUTH

    def run(self, benchmark: simulated.Benchmark) -> Any:
        """The result of a benchmark on a simulated machine on which the true ratio is known.

        >>> rigged = Rigged()
        >>> print(f"{rigged.run(rigged.benchmark):.1f}")
        3.3
        """
        return simulated.run(benchmark)[0]

    def __repr__(self) -> str:
        return f"{inspect.getsource(self.benchmark)}\n{table(SUSPECTS.items())}"


given = Rigged


def judge(answer: Any) -> Iterator[Hint]:
    pair: Any = answer if isinstance(answer, tuple | list) and len(answer) == 2 else (None, None)
    fixed, flaws = pair
    if not callable(fixed) or isinstance(flaws, str) or not isinstance(flaws, Iterable):
        yield hint("kind")
    named = set(flaws)
    for word in sorted(named - SUSPECTS.keys()):
        yield hint("unknown", word=repr(word), known=", ".join(SUSPECTS))
    for word in sorted(named - set(FLAWS)):
        yield hint(f"innocent {word}")
    missing = [word for word in FLAWS if word not in named]
    if missing:
        yield hint(f"missing {missing[0]}", count=len(missing))
    ratio, machine = simulated.run(fixed)
    if not isinstance(ratio, int | float):
        yield hint("number", kind=kind_of(ratio))
    yield from unequal(machine)
    yield from off(fixed)


def unequal(machine: Machine) -> Iterator[Hint]:
    """The ways in which a benchmark favors one side."""
    for side in SIDES:
        if not machine.of(side):
            yield hint("silent", side=side)
    if machine.reads < 2:
        yield hint("clock")
    ours, theirs = ({call.threads for call in machine.of(side)} for side in SIDES)
    if ours != theirs or len(ours) > 1:
        yield hint("threads", ours=_list(ours), theirs=_list(theirs))
    calls = machine.of(PYTORCH)
    if trained := sum(call.training for call in calls):
        yield hint("training", trained=trained, calls=len(calls))
    if kept := sum(call.gradients for call in calls):
        yield hint("gradients", kept=kept, calls=len(calls))
    for side, other in (SIDES, SIDES[::-1]):
        copies = len(machine.inputs[side])
        if copies > 1 and len(machine.inputs[other]) == 1:
            yield hint("copies", side=side, copies=copies, other=other)
    if machine.turns < TURNS:
        yield hint("turns", calls=len(machine.calls), turns=machine.turns, asked=TURNS)


def off(fixed: simulated.Benchmark) -> Iterator[Hint]:
    """The wrong results of a benchmark on machines without pitfalls, then with each of two."""
    quiet, begun, drifted = (
        simulated.run(fixed, first, drift)[0]
        for first, drift in ((False, False), (True, False), (True, True))
    )
    ratios = {"quiet": f"{quiet:.2f}", "begun": f"{begun:.2f}", "drifted": f"{drifted:.2f}"}
    if near(quiet, 1 / TRUTH):
        yield hint("upside down")
    if not near(quiet, TRUTH):
        yield hint("untrue", truth=TRUTH, **ratios)
    if not near(twice := simulated.run(fixed, False, False, 2 * TRUTH)[0], 2 * TRUTH):
        yield hint("fixed", said=f"{twice:.2f}", truth=2 * TRUTH)
    if not near(begun, TRUTH):
        yield hint("first counted", **ratios)
    if not near(drifted, TRUTH):
        yield hint("drift", **ratios)


def near(number: float, other: float) -> bool:
    return abs(number - other) <= CLOSE * other


def _list(numbers: set[int]) -> str:
    return " and ".join(map(str, sorted(numbers)))
