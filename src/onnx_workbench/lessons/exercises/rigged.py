"""05b: a benchmark that is wrong in five ways: name its flaws, and mend it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from ...formatting import table
from ..task import Exercise
from . import simulated
from .simulated import TRUTH, Machine

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
"""What may be wrong with a benchmark, in a word; five of these are."""

INNOCENT = {
    "input": "Both sides get `x`, the same numbers.",
    "count": "Both sides are called 100 times.",
    "direction": "PyTorch's time stands on top: the more, the faster ONNX Runtime. As it is meant.",
}
NUDGES = {
    "threads": "Two lines set a number of threads. Compare them.",
    "copy": "Look at what happens to `x` on its way in, on either side, while the clock runs.",
    "first call": "What does each loop do in its very first lap that it never does again?",
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


def judge(answer: Any) -> str | None:
    try:
        mended, flaws = answer
    except (TypeError, ValueError):
        mended = flaws = None
    if not callable(mended) or isinstance(flaws, str) or not isinstance(flaws, Iterable):
        return (
            "Two things are asked for: your benchmark and the flaws of the old one, as in "
            "`answer = benchmark, {'threads', 'order'}`."
        )
    return _misnamed(set(flaws)) or _still_rigged(mended)


def _misnamed(named: set[Any]) -> str | None:
    if unknown := [word for word in named if word not in SUSPECTS]:
        return f"{unknown[0]!r} is not on the list. Choose from: {', '.join(SUSPECTS)}."
    for word, defence in INNOCENT.items():
        if word in named:
            return f"{word!r} is no flaw here. {defence}"
    if missing := [nudge for word, nudge in NUDGES.items() if word not in named]:
        return f"{len(missing)} of the five flaws not named yet. {missing[0]}"
    return None


def _still_rigged(mended: simulated.Benchmark) -> str | None:
    """What a benchmark did to its targets, then what it says where the truth is known."""
    said, machine = simulated.run(mended)
    if not isinstance(said, int | float):
        return f"One number is asked of the benchmark, and it gave a {type(said).__name__}."
    tests: tuple[Callable[[Machine], str | None], ...] = (_unused, _threads, _mode, _copy, _order)
    hints = (test(machine) for test in tests)
    return next(filter(None, hints), None) or _wrong_number(mended)


def _unused(machine: Machine) -> str | None:
    for side in ("PyTorch", "ONNX Runtime"):
        if not machine.of(side):
            return f"All five are named. Your benchmark never runs {side}."
    if machine.reads < 2:
        return "All five are named. Take the time from `clock`, which is handed to your benchmark."
    return None


def _threads(machine: Machine) -> str | None:
    ours, theirs = (
        {call.threads for call in machine.of(side)} for side in ("PyTorch", "ONNX Runtime")
    )
    if ours == theirs and len(ours) == 1:
        return None
    return (
        f"All five are named, and the threads are still unequal: PyTorch ran on {_several(ours)}, "
        f"ONNX Runtime on {_several(theirs)}."
    )


def _mode(machine: Machine) -> str | None:
    calls = machine.of("PyTorch")
    trained = sum(call.training for call in calls)
    if trained:
        return f"The model was in training mode in {trained} of {len(calls)} calls: model.eval()."
    kept = sum(call.gradients for call in calls)
    if kept:
        return (
            f"The model is in eval mode, good. In {kept} of {len(calls)} calls PyTorch still kept "
            "what gradients need, which ONNX Runtime never does: torch.inference_mode()."
        )
    return None


def _copy(machine: Machine) -> str | None:
    copies = {side: machine.copies(side) for side in ("PyTorch", "ONNX Runtime")}
    if (copies["PyTorch"] > 1) == (copies["ONNX Runtime"] > 1):
        return None
    side = max(copies, key=copies.__getitem__)
    return (
        f"{side} got {copies[side]} inputs, each a copy of its own, and the other side none. Make "
        "the array once, before the clock starts."
    )


def _order(machine: Machine) -> str | None:
    if machine.turns >= TURNS:
        return None
    return (
        f"In {len(machine.calls)} calls the turn changed {machine.turns} times. Let them run in "
        f"turns, in {TURNS} rounds or more, and divide within each round."
    )


def _wrong_number(mended: simulated.Benchmark) -> str | None:
    """On a machine without pitfalls, then with each of two."""
    calm = simulated.run(mended, first=False, drift=False)[0]
    if _near(calm, 1 / TRUTH):
        return "That is upside down: PyTorch's time goes on top. A smaller time is better."
    if not _near(calm, TRUTH):
        return (
            f"Equal terms now, and on a machine without any pitfall it says {calm:.2f}; the truth "
            f"is {TRUTH}. Time the calls alone, as many on each side."
        )
    begun = simulated.run(mended, drift=False)[0]
    if not _near(begun, TRUTH):
        return (
            f"The first call is still counted: it says {begun:.2f} where first calls take long, "
            f"and {calm:.2f} where they do not. Call each once before the first round."
        )
    drifted = simulated.run(mended)[0]
    if not _near(drifted, TRUTH):
        return (
            f"In turns, and it still follows the machine: it says {drifted:.2f} where that slows "
            f"down, and {calm:.2f} where it does not. Make the blocks shorter, or their order "
            "random; divide within each round, then take the median."
        )
    return None


def _near(number: float, other: float) -> bool:
    return abs(number - other) <= CLOSE * other


def _several(threads: set[int]) -> str:
    return " and ".join(map(str, sorted(threads)))


EXERCISE = Exercise(
    number="05b",
    title="The rigged race",
    text=(
        "`rigged = exercise.given` is a benchmark that somebody published. On a machine where ONNX "
        f"Runtime is {TRUTH} times as fast, it says something else: `rigged.run(rigged.benchmark)`."
        " It has **five flaws**. The list below it says what may be wrong; three of these are not."
        "\n\n**Name the five, and write a benchmark without them**: one that takes the same four "
        "arguments and reads the time from `clock`. Try it with `rigged.run(benchmark)`. Answer "
        "with both: `answer = benchmark, {'a flaw', 'another'}`."
    ),
    start="Begin with `rigged = exercise.given`, print it, and copy its benchmark into a cell.",
    judge=judge,
    material=Rigged,
    source="""
        import statistics

        import torch

        def benchmark(model, open_session, x, clock):
            torch.set_num_threads(1)
            session = open_session(threads=1)
            array = x.numpy()

            def seconds(call):
                start = clock()
                for _ in range(5):
                    call()
                return clock() - start

            def ours():
                model.eval()(x)

            def theirs():
                session.run(None, {"x": array})

            with torch.inference_mode():
                ours(), theirs()  # the first call of each, apart
                rounds = [seconds(ours) / seconds(theirs) for _ in range(40)]
            return statistics.median(rounds)

        answer = benchmark, {"threads", "copy", "first call", "mode", "order"}
        """,
)
