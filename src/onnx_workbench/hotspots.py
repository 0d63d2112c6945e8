"""From a kernel's microseconds back to the line of PyTorch that it runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from html import escape
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any

from . import calls, formatting, ort, plots
from .artifact import Artifact
from .calls import door
from .lineage import attribution as shares
from .lineage import kernels as join
from .lineage.annotated_source import annotated
from .lineage.attribution import Share
from .lineage.library import MOST as MOST_BELOW
from .lineage.library import Group, Item, groups, rows_and_more, texts
from .lineage.recording import counts, recorded, typical
from .lineage.table import Lineage, trace
from .ort import check_level
from .proto import node_refs
from .runs import profiler as kernels
from .runs.eager import COVERS, Stopwatch
from .runs.profiler import Recording, calm
from .source import Line
from .timing.statistics import quartiles_of
from .timing.targets import thread_budget

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESTLESS = 0.1
"""Distance of the quartiles of a run, over its median, from which on the repr says so."""

Part = tuple[str, Share]
"""A kernel, and the share of it that a line has."""

_HEADER = ("ORT", "quartiles", "share", "kernels", "by", "PyTorch")
_BY = _HEADER.index("by")


@door
def profile(
    artifact: Artifact,
    args: Any = (),
    kwargs: dict[str, Any] | None = None,
    *,
    level: str = "all",
    threads: int = 1,
    seconds: float = 2.0,
    depth: int | None = None,
) -> Hotspots:
    """Where the time of an artifact goes in ONNX Runtime, by line of the model's source.

    ONNX Runtime's own profiler says what each kernel of its optimized graph took
    (``SessionOptions.enable_profiling``); the rules of :data:`onnx_workbench.lineage.kernels.RULES`
    lead back to the exported nodes, and :func:`~onnx_workbench.trace` to the lines. In turn with
    these runs go runs of a session without the profiler, and of the captured graph in PyTorch,
    node by node.
    What the profiler itself takes is taken off each kernel, so that kernels and run agree.

    Args:
        args, kwargs: the call to profile, as for the model itself.
        level: how far the graph is optimized: ``"off"``, ``"basic"``, ``"extended"``, ``"all"``.
        threads: intra-op threads, of torch too.
        seconds: how long the runs may go on. At least 6 runs of each count, and at most 75.
        depth: of a library's model that a line of yours calls, how many calls below that line its
            time is told apart; None is the innermost line, 0 your line alone.

    Raises:
        InputError: no Artifact, no such level, or a call that does not fit the model.
        LoadError: ONNX Runtime cannot load the model at this level.

    >>> from onnx_workbench import export, lessons
    >>> encoder = lessons.encoder()
    >>> path = getfixture("tmp_path") / "encoder.onnx"
    >>> onnx = export(encoder.model, encoder.inputs, path)
    >>> spots = profile(onnx, encoder.inputs, seconds=0.1)
    >>> spots.unattributed, spots.spots[0].line in spots.lineage.lines
    (0.0, True)
    """
    lineage = trace(artifact, depth=depth)
    check_level(level)
    threads, seconds = calls.threads(threads), calls.number("seconds", seconds)
    feeds = artifact.feeds(*args, **(kwargs or {}))
    watch = Stopwatch(artifact.graph) if artifact.graph else None
    lap = partial(watch.lap, args, kwargs) if watch else None
    rest, path = (level, threads, seconds), artifact.unchanged
    file = replace(artifact.file, timeout=min(artifact.timeout + seconds, TIMEOUT_MAX))
    with thread_budget(threads):
        recording, plain, alone = ort.run(
            lambda: (
                file.call(recorded, artifact.proto, feeds, *rest)
                if artifact.isolated
                else recorded(path, artifact.proto, artifact.provider, feeds, *rest, lap)
            ),
            feeds,
            artifact.path.name,
        )
    matches = join.matches(recording.kernels, node_refs(artifact.proto))
    laps = tuple(lap for i, lap in enumerate(watch.laps) if counts(i)) if watch else ()
    found = shares.of(matches, lineage, alone, shares.medians(laps))
    return Hotspots(
        lineage, recording, matches, found, tuple(plain), laps, level=level, threads=threads
    )


@dataclass(frozen=True)
class Spot:
    """One line, with ``runs``: what ONNX Runtime spent on it in each run, in seconds.

    ``line`` is None for what no line is known of; ``name`` is the line's place then the node's or
    kernel's. ``seconds`` are those of the calm runs. ``fused`` says that a kernel of it runs other
    lines too, and was shared out. ``eager`` has the runs of the same line in PyTorch, and ``torch``
    the seconds of the calm ones; None where it was not measured. ``below`` has the lines of a
    library that the line calls, with the ``module`` that each works for.
    """

    name: str
    line: Line | None
    runs: tuple[float, ...]
    seconds: float
    kernels: tuple[str, ...]
    rules: tuple[str, ...]
    fused: bool
    eager: tuple[float, ...] = ()
    torch: float | None = None
    module: str = ""
    below: tuple[Spot, ...] = ()

    @property
    def saved(self) -> float:
        """Seconds that the move to ONNX Runtime saved on this line; negative where it cost."""
        return (self.torch or 0.0) - self.seconds


@dataclass(frozen=True, repr=False, eq=False)
class Hotspots:
    """The answer of :func:`profile`.

    ``recording`` has the kernels with every run; ``matches`` the rule and the exported nodes of
    each; ``shares`` how each is shared out; ``plain`` the seconds of whole runs without the
    profiler; ``laps`` the seconds of each FX node in PyTorch, one dict a run.
    """

    lineage: Lineage
    recording: Recording
    matches: Mapping[str, join.Match]
    shares: Mapping[str, tuple[Share, ...]]
    plain: tuple[float, ...]
    laps: tuple[Mapping[str, float], ...]
    level: str
    threads: int

    @cached_property
    def spots(self) -> tuple[Spot, ...]:
        """Every line that a kernel runs, the slowest first; nodes that have no line likewise."""
        found = [self._spot(key, parts) for key, parts in self._parts().items()]
        return tuple(sorted(found, key=lambda spot: -spot.seconds))

    @property
    def hottest(self) -> Spot:
        """The line that takes the longest."""
        return self.spots[0]

    @cached_property
    def total(self) -> float:
        """Seconds in all kernels: the sum over the spots."""
        return sum(spot.seconds for spot in self.spots)

    @cached_property
    def whole(self) -> float:
        """Seconds of one ``session.run`` without the profiler."""
        return typical(self.plain)

    @property
    def covered(self) -> float:
        """The kernels' share of a run without the profiler, after its cost is taken off them."""
        return self.total / self.whole

    @property
    def counted(self) -> float:
        """The same as the profiler counts, with nothing taken off."""
        spent = self.recording.typical(self.recording.sums)
        return (spent + sum(map(self.recording.cost.of, self.recording.kernels))) / self.whole

    @property
    def overhead(self) -> float:
        """What the profiler adds to a run, as a fraction."""
        return self.recording.typical(self.recording.whole) / self.whole - 1

    @cached_property
    def rules(self) -> dict[str, float]:
        """Each rule of ``lineage.kernels.RULES`` -> the share of time it joined."""
        spent = dict.fromkeys(join.RULES, 0.0)
        for kernel in self.recording.kernels:
            spent[self.matches[kernel.name].rule] += self.recording.typical(kernel.seconds)
        total = sum(spent.values()) or 1.0
        return {rule: seconds / total for rule, seconds in spent.items()}

    @property
    def unattributed(self) -> float:
        """The share of kernel time without a line."""
        return self._share(sum(spot.seconds for spot in self.spots if spot.line is None))

    def _share(self, seconds: float) -> float:
        return seconds / self.total if self.total else 0.0

    def heat(self) -> dict[str, float]:
        """Exported node -> seconds a run, for ``view(artifact).heat(...)``. A node that no kernel
        runs is not in it."""
        spent: dict[str, float] = {}
        for kernel in self.recording.kernels:
            for part in self.shares[kernel.name]:
                if part.node:
                    seconds = part.fraction * self.recording.typical(kernel.seconds)
                    spent[part.node] = spent.get(part.node, 0.0) + seconds
        return spent

    def plot(self, ax: Axes | None = None) -> Axes:
        """PyTorch against ONNX Runtime for every line, what the move saved most first."""
        leaves = [leaf for spot in self.spots for leaf in spot.below or (spot,)]
        rows = sorted(leaves, key=lambda spot: -spot.saved)
        times = {_label(spot): _pair(spot) for spot in rows}
        note = f"{self._how()}\nPyTorch: {COVERS}" if self.laps else self._how()
        return plots.moves(times, self._title(rows), note, ax)

    def __repr__(self) -> str:
        return "\n".join([self._headline(), *self._body(), formatting.table(self._facts())])

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"

    def _parts(self) -> dict[tuple[Line | None, str], list[Part]]:
        parts: dict[tuple[Line | None, str], list[Part]] = {}
        for kernel, shared in self.shares.items():
            for share in shared:
                place = share.line.place if share.line else share.node or kernel
                parts.setdefault((share.line, place), []).append((kernel, share))
        for line in self._eager:
            parts.setdefault((line, line.place), [])
        return parts

    def _spot(self, key: tuple[Line | None, str], parts: Sequence[Part]) -> Spot:
        line, name = key
        nodes = self._eager.get(line, []) if line else []
        spot = self._timed(line, name, parts, [item.what for item in nodes])
        every: list[Item[Part | str]] = [Item(p[1].stack, p[1].module, p) for p in parts]
        below = [
            self._timed(
                group.line,
                group.line.place,
                [what for what in group.items if not isinstance(what, str)],
                [what for what in group.items if isinstance(what, str)],
                group.module,
            )
            for group in groups([*every, *nodes], self.lineage.depth)
        ]
        return replace(spot, below=tuple(below))

    def _timed(
        self,
        line: Line | None,
        name: str,
        parts: Sequence[Part],
        nodes: Sequence[str],
        module: str = "",
    ) -> Spot:
        owned = list(dict.fromkeys(kernel for kernel, _ in parts))
        runs = [
            [share.fraction * seconds for seconds in self._kernels[kernel].seconds]
            for kernel, share in parts
        ]
        summed = tuple(map(sum, zip(*runs, strict=True)))
        eager = tuple(sum(lap[node] for node in nodes) for lap in self.laps) if nodes else ()
        return Spot(
            name=name,
            line=line,
            runs=summed,
            seconds=self.recording.typical(summed) if summed else 0.0,
            kernels=tuple(owned),
            rules=tuple(r for r in join.RULES if r in {self.matches[k].rule for k in owned}),
            fused=any(len({part.line for part in self.shares[k]}) > 1 for k in owned),
            eager=eager,
            torch=statistics.fmean(eager[lap] for lap in self._calm_laps) if eager else None,
            module=module,
        )

    @cached_property
    def _kernels(self) -> dict[str, kernels.Kernel]:
        return {kernel.name: kernel for kernel in self.recording.kernels}

    @cached_property
    def _eager(self) -> dict[Line, list[Item[str]]]:
        return shares.by_line(self.laps, self.lineage)

    @cached_property
    def _calm_laps(self) -> tuple[int, ...]:
        return calm([sum(lap.values()) for lap in self.laps])

    @property
    def _homeless(self) -> float:
        """The share of PyTorch's time in FX nodes that have no line, such as inserted checks."""
        placed = [item.what for items in self._eager.values() for item in items]
        spent = sum(sum(lap.values()) for lap in self.laps)
        return 1 - sum(lap[name] for lap in self.laps for name in placed) / spent

    def _headline(self) -> str:
        return (
            f"{self.lineage.artifact.path.name}: {_time(self.whole)} a run, "
            f"{_time(self.total)} of it in {formatting.plural(len(self._kernels), 'kernel')}"
        )

    def _body(self) -> Iterator[str]:
        cells = {spot.line: self._cells(spot) for spot in self._in_order() if spot.line}
        if cells:
            below = {spot.line: self._below(spot) for spot in self.spots if spot.line}
            yield annotated(cells, _HEADER, {_BY}, self.lineage.sources, below)
        lost = [spot for spot in self.spots if spot.line is None]
        if lost:
            rows = [(*self._cells(spot), spot.name) for spot in lost[:_SHOWN]]
            yield formatting.table(
                rows, (*_HEADER, "no line"), right={*range(len(_HEADER))} - {_BY}
            )
        if len(lost) > _SHOWN:
            yield f"and {formatting.plural(len(lost) - _SHOWN, 'more node')}: see .spots"

    def _below(self, spot: Spot) -> list[tuple[tuple[str, ...], str]]:
        """The slowest lines of the library, in the order in which the file runs them."""
        ran = [inner for inner in spot.below if inner.runs]
        shown = sorted(sorted(ran, key=lambda inner: -inner.seconds)[:MOST_BELOW], key=ran.index)
        named = texts([Group(inner.line, inner.module, ()) for inner in shown if inner.line])
        more = len(spot.below) - len(shown)
        return rows_and_more([*zip(map(self._cells, shown), named, strict=True)], more)

    def _in_order(self) -> list[Spot]:
        """The spots in the order in which the file runs their lines."""
        order = {line: index for index, line in enumerate(self.lineage.lines)}
        return sorted(self.spots, key=lambda spot: order.get(spot.line, len(order)))  # type: ignore[arg-type]

    def _cells(self, spot: Spot) -> tuple[str, ...]:
        torch = "" if spot.torch is None else _time(spot.torch)
        if not spot.runs:
            return "", "", "", "0", "", torch
        low, _, high = quartiles_of(spot.runs)
        share = f"{_percent(self._share(spot.seconds))}{'*' if spot.fused else ' '}"
        span = f"{_time(max(0.0, low))} to {_time(max(0.0, high))}"
        count, rules = str(len(spot.kernels)), ", ".join(spot.rules)
        return _time(spot.seconds), span, share, count, rules, torch

    def _facts(self) -> Iterator[tuple[str, str]]:
        used = [f"{rule} {_percent(part)}" for rule, part in self.rules.items() if part]
        yield "joined by", ", ".join(used)
        yield "no line", f"{_percent(self.unattributed)} of kernel time{self._reasons()}"
        if any(spot.fused for spot in self.spots):
            yield "*", "shared with other lines: a fused kernel goes to its lines as the nodes take"
            yield "", "unfused; what export merged goes as the FX nodes take in PyTorch"
        yield "whole", f"kernels are {_percent(self.covered)} of a run without the profiler"
        yield (
            "profiler",
            f"adds {_percent(self.overhead)} to a run; {_time(self.recording.cost.inside)} are "
            "taken off each kernel,",
        )
        yield "", f"so that both agree; as the profiler counts, it were {_percent(self.counted)}"
        yield "runs", self._how()
        yield "", "times are means over the fastest quarter of them, quartiles are of all"
        if self.laps:
            yield "PyTorch", f"{COVERS} (torch.fx.Interpreter, inference mode):"
            yield "", "with the call of each operator, without the Python code between them;"
            yield "", f"{_percent(self._homeless)} of it in nodes without a line"
        for doubt in self._doubts():
            yield "doubt", doubt

    def _reasons(self) -> str:
        known = {origin.node: origin.why for origin in self.lineage.without}
        lost = [spot.name for spot in self.spots if spot.line is None]
        whys = dict.fromkeys(known.get(name, "named in a way that no rule knows") for name in lost)
        return f": {'; '.join(whys)}" if whys else ""

    def _doubts(self) -> Iterator[str]:
        low, median, high = quartiles_of(self.plain)
        if high - low > RESTLESS * median:
            apart = _percent((high - low) / median)
            yield f"runs differ: quartiles of a run are {apart} apart; quieten the machine, repeat"
        if self.covered < 1 - RESTLESS:
            yield "part of a run is outside its kernels: for a model this small, read the shares"
        if self.covered > 1 + RESTLESS:
            yield "runs differ: with the profiler they took longer than it explains; repeat"
        if self.counted > 2 * self.covered:
            yield "most of what was counted is the profiler's own: trust the order, not the digits"

    def _how(self) -> str:
        return (
            f"{formatting.plural(len(self.plain), 'run')} of each, graph optimization "
            f"{self.level!r}, {formatting.plural(self.threads, 'thread')}"
        )

    def _title(self, rows: Sequence[Spot]) -> str:
        if not self.laps:
            return f"{self.hottest.name} takes the longest in ONNX Runtime"
        saved, cost = rows[0], rows[-1]
        words = [f"most saved at {saved.name}"] if saved.saved > 0 else []
        words += [f"most lost at {cost.name}"] if cost.saved < 0 else []
        return f"Line by line, PyTorch and ONNX Runtime: {', '.join(words)}"


_SHOWN = 20
"""Nodes without a line that the repr shows."""
_LABEL = 30
"""Letters of a line's text beside the plot."""


def _label(spot: Spot) -> str:
    words = spot.line.text if spot.line else ""
    return f"{spot.name}  {words if len(words) <= _LABEL else words[: _LABEL - 3] + '...'}".strip()


def _pair(spot: Spot) -> dict[str, float]:
    pair = {} if spot.torch is None else {"PyTorch": spot.torch}
    return pair | ({"ONNX Runtime": spot.seconds} if spot.runs else {})


def _time(seconds: float) -> str:
    """Always as wide, whatever the digits, so that two runs align alike."""
    return f"{formatting.seconds(seconds):>7}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:5.1f} %"
