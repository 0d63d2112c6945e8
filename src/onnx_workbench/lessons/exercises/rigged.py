"""05b: a benchmark that is wrong in five ways: name its flaws, and fix it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ...formatting import kind_of, table
from . import simulated
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

INNOCENT = {
    "input": "Both sides get `x`, the same numbers.",
    "count": "Both sides are called 100 times.",
    "direction": "PyTorch's time is on top: the more, the faster ONNX Runtime. As it should be.",
}
NUDGES = {
    "threads": "Two lines set a number of threads. Compare them.",
    "copy": "Look at what each side does to `x` while the clock runs.",
    "first call": "What does each loop do in its first iteration that it never does again?",
    "mode": "The model is used as it was handed over: nobody told it that this is no training.",
    "order": "The machine slows down after the first loop. Who is blamed for it?",
}


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
    """The benchmark, the words for what may be wrong with it, and a machine to try one on."""

    benchmark: simulated.Benchmark = benchmark
    truth: float = TRUTH

    def run(self, benchmark: simulated.Benchmark) -> Any:
        """What a benchmark says on a simulated machine on which the truth is known.

        >>> rigged = Rigged()
        >>> print(f"{rigged.run(rigged.benchmark):.1f}")
        3.3
        """
        return simulated.run(benchmark)[0]

    def __repr__(self) -> str:
        return f"{inspect.getsource(self.benchmark)}\n{table(SUSPECTS.items())}"


given = Rigged


def judge(answer: Any) -> Iterator[str]:
    pair = answer if isinstance(answer, tuple | list) and len(answer) == 2 else (None, None)
    fixed, flaws = pair
    if not callable(fixed) or isinstance(flaws, str) or not isinstance(flaws, Iterable):
        yield (
            "Answer with your benchmark and the flaws of the old one, as in "
            "`answer = benchmark, {'threads', 'order'}`."
        )
    named = set(flaws)
    for word in sorted(named - SUSPECTS.keys()):
        yield f"{word!r} is not on the list. Choose from: {', '.join(SUSPECTS)}."
    for word in sorted(named & INNOCENT.keys()):
        yield f"{word!r} is no flaw here. {INNOCENT[word]}"
    missing = [nudge for word, nudge in NUDGES.items() if word not in named]
    if missing:
        yield f"{len(missing)} of the five flaws not named yet. {missing[0]}"
    said, machine = simulated.run(fixed)
    if not isinstance(said, int | float):
        yield f"The benchmark must return one number; it returned {kind_of(said)}."
    yield from unequal(machine)
    yield from off(fixed)


def unequal(machine: Machine) -> Iterator[str]:
    """The terms on which a benchmark favors one side."""
    for side in SIDES:
        if not machine.of(side):
            yield f"All five are named. Your benchmark never runs {side}."
    if machine.reads < 2:
        yield "All five are named. Take the time from `clock`, an argument of your benchmark."
    ours, theirs = ({call.threads for call in machine.of(side)} for side in SIDES)
    if ours != theirs or len(ours) > 1:
        yield (
            f"All five are named, and the threads are still unequal: PyTorch ran on {_list(ours)}, "
            f"ONNX Runtime on {_list(theirs)}."
        )
    calls = machine.of(PYTORCH)
    if trained := sum(call.training for call in calls):
        yield f"The model was in training mode in {trained} of {len(calls)} calls: model.eval()."
    if kept := sum(call.gradients for call in calls):
        yield (
            f"The model is in eval mode, good. In {kept} of {len(calls)} calls PyTorch still kept "
            "what gradients need, which ONNX Runtime never does: torch.inference_mode()."
        )
    for side, other in (SIDES, SIDES[::-1]):
        copies = len(machine.inputs[side])
        if copies > 1 and len(machine.inputs[other]) == 1:
            yield (
                f"{side} got {copies} inputs, each a copy of its own, and {other} got one. Make "
                "the array once, before the clock starts."
            )
    if machine.turns < TURNS:
        yield (
            f"In {len(machine.calls)} calls the turn changed {machine.turns} times. Let them run "
            f"in turns, in {TURNS} rounds or more, and divide within each round."
        )


def off(fixed: simulated.Benchmark) -> Iterator[str]:
    """What a benchmark says on a machine without pitfalls, then with each of two."""
    quiet, begun, drifted = (
        simulated.run(fixed, first, drift)[0]
        for first, drift in ((False, False), (True, False), (True, True))
    )
    if near(quiet, 1 / TRUTH):
        yield "That is upside down: PyTorch's time goes on top. A smaller time is better."
    if not near(quiet, TRUTH):
        yield (
            f"Equal terms now, and on a machine without any pitfall it says {quiet:.2f}; the truth "
            f"is {TRUTH}. Time the calls alone, as many on each side."
        )
    if not near(begun, TRUTH):
        yield (
            f"The first call is still counted: it says {begun:.2f} where first calls take long, "
            f"and {quiet:.2f} where they do not. Call each once before the first round."
        )
    if not near(drifted, TRUTH):
        yield (
            f"In turns, and it still follows the machine: it says {drifted:.2f} where that slows "
            f"down, and {quiet:.2f} where it does not. Make the blocks shorter, or their order "
            "random; divide within each round, then take the median."
        )


def near(number: float, other: float) -> bool:
    return abs(number - other) <= CLOSE * other


def _list(numbers: set[int]) -> str:
    return " and ".join(map(str, sorted(numbers)))
