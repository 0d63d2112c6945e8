"""Which session options are faster on this machine: each raced against ONNX Runtime's defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from . import plots, text
from .artifact import Artifact, Variant
from .calls import door
from .errors import InputError
from .racing.race import race
from .racing.report import Race
from .racing.verdict import Ratio
from .session import Entry, Options
from .tabled import Tabled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DEFAULT, TUNED, ALONE = "defaults", "together", "1 thread"
CHANGES = (
    Options(level="extended"),
    Options(level="basic"),
    Options(level="off"),
    Options(arena=False),
    Options(parallel=True),
    Options(bound=True),
)
POOLED = (Options(), Options(spinning=False))
"""What is tried with more than one thread: a pool of one has no idle threads that could spin."""
_HEADER = ("change", "ratio", "95 % interval", "verdict")


@dataclass(frozen=True)
class Setting(Variant):
    """A Variant with a number of threads of its own, and the cost of copies in its ratio."""

    threads: int = 1

    def entry(self, args: tuple, kwargs: Mapping[str, Any], threads: int = 1) -> Entry:
        return replace(super().entry(args, kwargs, self.threads), panel="")

    def __repr__(self) -> str:
        return f"{text.plural(self.threads, 'thread')}, {self.options}"


@dataclass(frozen=True, repr=False)
class Tuning(Tabled):
    """What was tried, one change at a time, and what the changes that won give together.

    Args:
        setting: what to use: the changes that won and held, else the defaults.
        races: the defaults against each change; against all that won, measured afresh, since what
            won once won in part by chance; and one thread against more, where there are cores.
    """

    setting: Setting
    races: tuple[Race, ...]

    def __bool__(self) -> bool:
        """Something is faster than ONNX Runtime's defaults at 1 thread."""
        return self.setting != Setting(self.setting.artifact)

    @property
    def interrupted(self) -> bool:
        """Ctrl-C ended the last race; what it measured until then decides nothing."""
        return self.races[-1].conditions.interrupted

    @property
    def finding(self) -> str:
        """What to set, and what it gives; or that the defaults stand."""
        if self.interrupted and not self:
            return "interrupted before anything was surely faster than the defaults"
        if not self:
            if won := _won(self.races[0]):
                return f"the defaults stand: raced again, {' and '.join(won)} did not hold"
            least = f"{100 * self.races[0].conditions.matters:g} %"
            return f"the defaults stand: no change is surely faster by more than {least}"
        whole = [race for race in self.races[1:] if not race.conditions.interrupted]
        held = [race.finding for race in whole if _won(race)]
        return "\n".join([repr(self.setting), *held])

    def ratios(self) -> dict[str, Ratio]:
        """Every change with how many times as fast it was."""
        return {name: ratio for race in self.races for name, ratio in _ratios(race).items()}

    def records(self) -> list[dict[str, Any]]:
        """One flat dict a change."""
        return [
            {"change": name, "ratio": r.value, "low": r.low, "high": r.high, "verdict": r.verdict}
            for name, r in self.ratios().items()
        ]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Each change with its interval."""
        intervals = {name: (r.low, r.value, r.high) for name, r in self.ratios().items()}
        matters = self.races[0].conditions.matters
        return plots.ratios(intervals, matters, title=self.finding, ax=ax)

    def __repr__(self) -> str:
        rows = [
            (name, f"{r.value:.2f}x", f"{r.low:.2f} to {r.high:.2f}", r.verdict)
            for name, r in self.ratios().items()
        ]
        table = text.table(rows, _HEADER, right=[1, 2])
        state = ", interrupted: what was measured until then" * self.interrupted
        return f"Tuning{state}: {self.finding}\n{table}\n\n{text.table(self._facts())}"

    def _facts(self) -> Iterator[tuple[str, str]]:
        at = self.races[0].conditions
        yield "ratio", "the defaults at 1 thread / the change; for threads 1 / so many"
        yield DEFAULT, "graph optimisation all, arena, one node after the other, session.run"
        yield TUNED, "what won, in a race of its own: only that counts"
        yield "IOBinding", "leaves out the copies of inputs and outputs: a call of another kind"
        yield "threads", f"tried up to the {text.plural(at.cores, 'core')} of this machine"
        yield "races", f"{len(self.races)} of up to {at.seconds:g} s, each as ow.race() runs it"


@door
def tune(
    artifact: Artifact,
    args: Any = (),
    kwargs: dict[str, Any] | None = None,
    *,
    seconds: float = 40.0,
    matters: float = 0.03,
    seed: int = 0,
) -> Tuning:
    """Find the session options that make one model faster on this machine.

    Each change is raced on its own against ONNX Runtime's defaults at one thread. What is surely
    faster is then raced again, all together, and only a win that this confirms is called one. More
    threads are tried last, with what won.

    Args:
        artifact: made by :func:`~onnx_workbench.export` or :func:`~onnx_workbench.load`.
        args, kwargs: the inputs of a call.
        seconds: the budget of each of the two or three races.
        matters: the least difference that counts, as a fraction.
        seed: of every random order.

    Ctrl-C ends it with what was measured until then, and the result says so.

    Raises:
        InputError: this is no Artifact, or the inputs do not fit it.

    >>> tune("model.onnx", 1)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    onnx_workbench.errors.InputError: tune() was given a str, and it takes an Artifact: ...
    """
    if not isinstance(artifact, Artifact):
        raise InputError(
            f"tune() was given {text.kind_of(artifact)}, and it takes an Artifact: session "
            "options are ONNX Runtime's. Pass what export() or load() returns."
        )

    def race_of(entrants: Mapping[str, Setting], threads: int = 1) -> list[str]:
        races.append(
            race(
                entrants,
                args,
                kwargs,
                threads=threads,
                seconds=seconds,
                matters=matters,
                seed=seed,
            )
        )
        return [] if races[-1].conditions.interrupted else _won(races[-1])

    artifact.feeds(*args, **(kwargs or {}))  # told before anything is started
    best, races = Setting(artifact), list[Race]()
    changes = {repr(change): change for change in CHANGES}
    singles = {name: Setting(artifact, change) for name, change in changes.items()}
    if won := race_of({DEFAULT: best, **singles}):
        wish = Setting(artifact, _together([changes[name] for name in reversed(won)]))
        best = wish if race_of({DEFAULT: best, TUNED: wish}) else best
    stopped = races[-1].conditions.interrupted
    pools = {} if stopped else _pools(best, races[0].conditions.cores)
    if pools:
        most = max(pool.threads for pool in pools.values())
        if won := race_of({ALONE: best, **pools}, threads=most):
            best = pools[won[0]]
    return Tuning(best, tuple(races))


def _pools(best: Setting, cores: int) -> dict[str, Setting]:
    """Twice as many threads each time, up to the cores; with idle threads that spin, and not."""
    counts = [count for count in range(2, cores + 1) if count & (count - 1) == 0 or count == cores]
    settings = (
        replace(best, threads=count, options=replace(best.options, spinning=pool.spinning))
        for count in counts
        for pool in POOLED
    )
    return {repr(setting): setting for setting in settings}


def _together(changes: Sequence[Options]) -> Options:
    """All of them at once; of two that exclude each other the last."""
    merged = {
        entry.name: getattr(change, entry.name)
        for change in changes
        for entry in fields(change)
        if getattr(change, entry.name) != entry.default
    }
    return Options(**merged)


def _ratios(race: Race) -> dict[str, Ratio]:
    found = {lane.name: race.ratio(lane.name) for lane in race.lanes if not lane.control}
    return {name: ratio for name, ratio in found.items() if ratio}


def _won(race: Race) -> list[str]:
    """The challengers that are surely faster, the fastest first."""
    ratios = _ratios(race)
    won = [name for name, ratio in ratios.items() if ratio.verdict == "faster"]
    return sorted(won, key=lambda name: -ratios[name].value)
