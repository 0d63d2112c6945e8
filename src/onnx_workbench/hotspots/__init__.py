"""``profile``: from a kernel's microseconds back to the line of PyTorch that it runs."""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from threading import TIMEOUT_MAX
from time import perf_counter
from typing import Any, Literal

import torch

from .. import calls, files, formatting, ort, plots
from ..artifact import Artifact
from ..calls import normalize_call
from ..errors import InputError
from ..formatting import Fold, Part, Percent, Report, Table, ToFrame
from ..lineage.annotated_source import annotated
from ..lineage.attribution import Share, attributed
from ..lineage.call import CallData
from ..lineage.kernels import RULES, matches
from ..lineage.library import MOST, Row, groups, rows_below
from ..lineage.operations import Operation
from ..lineage.table import Lineage, join
from ..ort import check_level
from ..proto import grouped, node_refs, producers
from ..runs import profiler
from ..runs.profiler import Kernel, Recording, typical
from ..runs.program import ProgramRun
from ..source import Line
from ..timing.statistics import quartiles_of
from ..timing.targets import thread_budget
from . import formats
from .flame import Flame, grown, modules_of, stack_of
from .memory import Memory

NOISY = 0.1
"""Interquartile range over median of the runs, above which the repr warns of noise."""

NO_KERNEL = "no kernel runs: the result is a constant in the file, or an input"
_COVERS = "the captured graph, node by node"
_HEADER = ("ORT", "quartiles", "share", "kernels", "by", "PyTorch")
_BY = _HEADER.index("by")
_WIDE = (_HEADER.index("quartiles"), _BY)
_SHOWN = 20
"""The most nodes without a line that the repr shows."""
_LABEL = 30
"""The most characters of a line's text beside the plot."""


@normalize_call
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
    """Measure where an artifact spends its time in ONNX Runtime, by line of the model's source.

    ONNX Runtime's profiler times each kernel of its optimized graph
    (``SessionOptions.enable_profiling``). The rules of ``lineage.kernels.RULES`` lead back to the
    exported nodes, and :func:`~onnx_workbench.trace` to the lines. Runs with the profiler alternate
    with runs without it, and with runs of the captured graph in PyTorch, node by node. The
    profiler's cost is subtracted from each kernel, so that the kernels add up to a plain run.

    Args:
        args, kwargs: the call to profile, as for the model itself.
        level: how far the graph is optimized: ``"off"``, ``"basic"``, ``"extended"``, ``"all"``.
        threads: intra-op threads, of torch too.
        seconds: the budget for the runs. At least 6 runs of each kind count, and at most 75.
        depth: if your line calls a library's model, how many calls below it the time is split;
            None is the innermost line, 0 only your line.

    Raises:
        InputError: ``artifact`` is no Artifact, there is no such level, or the call does not fit.
        LoadError: ONNX Runtime cannot load the model at this level.

    >>> from onnx_workbench import export, lessons
    >>> encoder = lessons.encoder()
    >>> path = getfixture("tmp_path") / "encoder.onnx"
    >>> onnx = export(encoder.model, encoder.inputs, path)
    >>> spots = profile(onnx, encoder.inputs, seconds=0.1)
    >>> spots.unattributed, spots.spots[0].line in spots.lineage.lines
    (0.0, True)
    """
    lineage = join(artifact, depth=depth, caller="profile")
    return measured(lineage, args, kwargs or {}, level, threads, seconds)


def measured(
    lineage: Lineage, args: tuple, kwargs: dict[str, Any], level: str, threads: int, seconds: float
) -> Hotspots:
    """The profile of a model whose lineage is known."""
    check_level(level)
    threads, seconds = calls.threads(threads), calls.number("seconds", seconds)
    artifact = lineage.artifact
    feeds = artifact.feeds(*args, **kwargs)
    path, model = artifact.unchanged, artifact.proto
    laps: list[dict[str, float]] = []
    in_torch = None
    if (graph := artifact.graph) and not artifact.isolated:
        leaves = graph.signature.flatten(args, kwargs)
        in_torch = partial(_add_lap, laps, ProgramRun(graph.program), leaves)

    def measure(function: Callable, *rest: Any) -> Any:
        """Call it in this process, or in that of an isolated file."""
        if artifact.isolated:
            timeout = min(artifact.timeout + seconds, TIMEOUT_MAX)
            file = replace(artifact.worker_file, timeout=timeout)
            work = partial(file.call, function, model, feeds, *rest)
        else:
            work = partial(function, path, model, artifact.provider, feeds, *rest)
        return ort.run(work, feeds, path.name)

    with thread_budget(threads):
        recording, plain = measure(profiler.record, level, threads, seconds, in_torch)
        matched = matches(recording.kernels, node_refs(model), recording.constants)
        fused = any(len(match.nodes) > 1 for match in matched.values())
        alone = measure(profiler.unfused, threads, recording.cost) if fused else {}
    laps = [lap for index, lap in enumerate(laps) if profiler.is_measured(index)]
    timed = laps[0] if laps else {}
    eager = {fx: statistics.median(lap[fx] for lap in laps) for fx in timed}
    shares = attributed(matched, lineage.origins, lineage.operations, alone, eager)
    lineage = replace(lineage, call=CallData(recording, matched, shares))
    return Hotspots(lineage, tuple(plain), tuple(laps), level, threads)


def _add_lap(laps: list[dict[str, float]], run: ProgramRun, leaves: Sequence[torch.Tensor]) -> None:
    """Run once in PyTorch and add a lap: FX node -> seconds."""
    lap: dict[str, float] = {}
    with torch.inference_mode():
        start = perf_counter()
        for node, _ in run.values(leaves):
            if node.op == "call_function":
                lap[node.name] = perf_counter() - start
            start = perf_counter()
    laps.append(lap)


@dataclass(frozen=True)
class Spot:
    """A line, or a node without one, and the time of its kernels.

    ``runs`` has the seconds of each run, ``seconds`` their mean over the fastest quarter. They are
    the sum over ``kernels``, which ``rules`` attributed. If one is ``fused``, it also runs other
    lines, and only its share counts. ``eager`` has the seconds of each run in PyTorch, ``torch``
    their typical value, None if not measured. ``below`` has the library lines that it calls, each
    with its ``module``. ``providers`` are the execution providers that its kernels run on.
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
    providers: tuple[str, ...] = ()

    @property
    def saved(self) -> float:
        """Seconds that ONNX Runtime saves on this line; negative if it is slower."""
        return (self.torch or 0.0) - self.seconds


@dataclass(frozen=True, repr=False, eq=False)
class Hotspots(Report, ToFrame):
    """The result of :func:`profile`.

    ``plain`` has the seconds of whole runs without the profiler; a lap is a run in PyTorch, and
    ``laps`` has a dict for each, from FX node to seconds.
    """

    lineage: Lineage
    plain: tuple[float, ...]
    laps: tuple[Mapping[str, float], ...]
    level: str
    threads: int

    @property
    def call(self) -> CallData:
        """What ``lineage`` knows of the profiled call: the rule, the exported nodes and the shares
        of each kernel."""
        return self.lineage.call  # type: ignore[return-value]

    @property
    def recording(self) -> Recording:
        """The kernels with every run."""
        return self.call.recording

    @cached_property
    def spots(self) -> tuple[Spot, ...]:
        """Every line with kernels and every node without a line, the slowest first."""
        parts: dict[tuple[Line | None, str], list[Share | Operation]] = {}
        for share, _ in self.call.spent:
            name = share.line.place if share.line else share.node or share.kernel
            parts.setdefault((share.line, name), []).append(share)
        for timed in self._timed:
            parts.setdefault((timed.line, timed.line.place), []).append(timed)  # type: ignore
        spots = []
        for (line, name), items in parts.items():
            inner = groups(items, self.lineage.depth)
            below = tuple(self._spot(g.line, g.line.place, g.items, g.module) for g in inner)
            spot = self._spot(line, name, items)
            ran_on = dict.fromkeys((*spot.providers, *self._assigned.get(line, ())))
            spots.append(replace(spot, below=below, providers=tuple(ran_on)))
        return tuple(sorted(spots, key=lambda spot: -spot.seconds))

    def _spot(
        self, line: Line | None, name: str, items: Sequence[Share | Operation], module: str = ""
    ) -> Spot:
        shares = [item for item in items if isinstance(item, Share)]
        nodes = [item.fx for item in items if isinstance(item, Operation)]
        kernels = tuple(dict.fromkeys(share.kernel for share in shares))
        found = {self.call.matches[kernel].rule for kernel in kernels}
        ran_on = dict.fromkeys(self.call.kernels[kernel].provider for kernel in kernels)
        runs = [[s.fraction * run for run in self.call.kernels[s.kernel].seconds] for s in shares]
        summed = tuple(map(sum, zip(*runs, strict=True)))
        eager = tuple(sum(lap[node] for node in nodes) for lap in self.laps) if nodes else ()
        return Spot(
            name=name,
            line=line,
            runs=summed,
            seconds=self.recording.typical(summed) if summed else 0.0,
            kernels=kernels,
            rules=tuple(rule for rule in RULES if rule in found),
            fused=any(len({share.line for share in self.call.shares[k]}) > 1 for k in kernels),
            eager=eager,
            torch=typical(eager, by=[sum(lap.values()) for lap in self.laps]) if eager else None,
            module=module,
            providers=tuple(filter(None, ran_on)),
        )

    @cached_property
    def _assigned(self) -> dict[Line | None, list[str]]:
        """Line -> the providers that its nodes were assigned to. One that compiles nodes runs them
        as one kernel, which has no line."""
        assigned = self.recording.assigned
        with_line = (origin for origin in self.lineage.origins if origin.line)
        return grouped((o.line, assigned[o.node]) for o in with_line if o.node in assigned)

    @property
    def hottest(self) -> Spot:
        """The line that takes the longest.

        Raises:
            InputError: no kernel runs.
        """
        if not self.call.kernels:
            raise InputError(
                f"{self.lineage.artifact.path.name}: {NO_KERNEL}.",
                "Export a model that computes something.",
            )
        return self.spots[0]

    @cached_property
    def total(self) -> float:
        """Seconds in all kernels: the sum over the spots."""
        return sum(spot.seconds for spot in self.spots)

    @property
    def too_short(self) -> str:
        """Words for kernels that all take less than the profiler's microsecond; else empty."""
        if self.total or not self.call.kernels:
            return ""
        kernels = formatting.plural(len(self.call.kernels), "kernel")
        return f"{kernels} too short for the profiler to time"

    @cached_property
    def whole(self) -> float:
        """Seconds of one ``session.run`` without the profiler."""
        return typical(self.plain)

    @property
    def covered(self) -> float:
        """The kernels' share of a run without the profiler, corrected for its cost."""
        return self.total / self.whole

    @property
    def counted(self) -> float:
        """:attr:`covered` as the profiler measures it, with its own cost."""
        spent = self.recording.typical(self.recording.sums)
        return (spent + sum(map(self.recording.cost.of, self.recording.kernels))) / self.whole

    @property
    def overhead(self) -> float:
        """The fraction that the profiler adds to a run."""
        return self.recording.typical(self.recording.whole) / self.whole - 1

    @cached_property
    def rules(self) -> dict[str, float]:
        """Each rule of ``lineage.kernels.RULES`` -> the share of kernel time that it matched."""
        return dict.fromkeys(RULES, 0.0) | self._parted(lambda k: self.call.matches[k.name].rule)

    @property
    def unattributed(self) -> float:
        """The share of kernel time without a line."""
        return self._share(sum(spot.seconds for spot in self.spots if spot.line is None))

    def _share(self, seconds: float) -> float:
        return seconds / self.total if self.total else 0.0

    def heat(self) -> dict[str, float]:
        """Exported node -> seconds a run, for ``view(artifact).heat(...)``; only nodes that a
        kernel runs."""
        spent: dict[str, float] = defaultdict(float)
        for share, seconds in self.call.spent:
            if share.node:
                spent[share.node] += seconds
        return dict(spent)

    @cached_property
    def memory(self) -> Memory:
        """What a run holds in memory, kernel by kernel, and which lines hold it at the peak."""
        lines = {kernel: share.line for kernel, share in self._result_share.items()}
        operators = {name: kernel.operator for name, kernel in self.call.kernels.items()}
        name = self.lineage.artifact.path.name
        return Memory(name, self.recording.footprint, lines, operators)

    @cached_property
    def providers(self) -> dict[str, float]:
        """Execution provider -> its share of kernel time."""
        return self._parted(lambda kernel: kernel.provider)

    def _parted(self, key: Callable[[Kernel], str]) -> dict[str, float]:
        """The shares of kernel time by a key of the kernel; those of an empty key are left out."""
        spent: dict[str, float] = defaultdict(float)
        for kernel in self.recording.kernels:
            spent[key(kernel)] += self.call.seconds[kernel.name]
        total = sum(spent.values()) or 1.0
        return {name: seconds / total for name, seconds in spent.items() if name}

    def records(self) -> list[dict[str, Any]]:
        """A dict for each share of a kernel, in the order of execution.

        ``fraction`` and ``seconds`` are the share's, ``bytes`` the size of the kernel's results:
        they count for the share that makes them, and are 0 in its others.
        """
        return [dict(record) for _, record in self._rows]

    @cached_property
    def _rows(self) -> list[tuple[Share, dict[str, Any]]]:
        """Each share with its record."""
        return [(share, self._record(share, seconds)) for share, seconds in self.call.spent]

    def _record(self, share: Share, seconds: float) -> dict[str, Any]:
        kernel = self.call.kernels[share.kernel]
        return {
            "line": share.line.place if share.line else None,
            "stack": " > ".join(f.line.place for f in stack_of(share) if f.line) or None,
            "module": share.module or None,
            "onnx": share.node or None,
            "kernel": kernel.name,
            "operator": kernel.operator,
            "rule": self.call.matches[kernel.name].rule,
            "seconds": seconds,
            "bytes": kernel.size if share is self._result_share[kernel.name] else 0,
            "provider": kernel.provider,
            "fraction": share.fraction,
        }

    def flame(self, by: Literal["stack", "module"] = "stack") -> Flame:
        """The kernels' time as boxes within boxes.

        Args:
            by: ``"stack"``, the lines that call each other down to the kernels, or ``"module"``.

        Raises:
            InputError: ``by`` is neither.
        """
        if by not in ("stack", "module"):
            raise InputError(f"flame() got by={by!r:.80}.", "Pass 'stack' or 'module'.")
        frames = stack_of if by == "stack" else modules_of
        paths = [(frames(share), seconds) for share, seconds in self.call.spent]
        return grown(self.lineage.artifact.path.name, paths)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one typical run for another tool: ``trace.json`` for Perfetto and chrome://tracing,
        ``profile.speedscope.json`` for speedscope.

        Raises:
            InputError: another suffix, or a path that cannot be written to.
        """
        goal, name = files.writable(path), self.lineage.artifact.path.name
        if goal.suffix != ".json":
            raise InputError(
                f"save() was given {goal.name!r}, but it writes .json, Chrome's trace events for "
                f"Perfetto, or {formats.SPEEDSCOPE}.",
                "Pass 'trace.json' or 'profile.speedscope.json', or write .records() yourself.",
            )
        write = formats.speedscope if goal.name.endswith(formats.SPEEDSCOPE) else formats.trace
        return files.write(goal, json.dumps(write(self._rows, name)))

    def plot(self, ax: plots.Axes | None = None) -> plots.Axes:
        """PyTorch against ONNX Runtime for every line, the one that saves most first."""
        leaves = [leaf for spot in self.spots for leaf in spot.below or (spot,)]
        rows = sorted(leaves, key=lambda spot: -spot.saved)
        lines = Counter(spot.line for spot in rows)  # a container has one line for all its layers
        times = {}
        for spot in rows:
            pair = {} if spot.torch is None else {"PyTorch": spot.torch}
            label = _label(spot, spot.module if lines[spot.line] > 1 else "")
            label = spot.name if label in times else label  # of two files with one name
            times[label] = pair | ({"ONNX Runtime": spot.seconds} if spot.runs else {})
        note = f"{self._how()}\nPyTorch: {_COVERS}" if self.laps else self._how()
        return plots.moves(times, title=self._title(rows), note=note, ax=ax)

    def _parts(self) -> Iterator[Part]:
        yield self._headline()
        yield from self._body()
        if self.call.kernels:
            yield Fold("How it was measured", [Table([*self._facts()])])
        else:
            yield NO_KERNEL

    @cached_property
    def _result_share(self) -> dict[str, Share]:
        """Kernel -> its share that makes its results: that of the last node fused in it."""
        made = producers(node_refs(self.lineage.artifact.proto))
        found = {}
        for name, shares in self.call.shares.items():
            nodes = {made[v].name for v in self.call.kernels[name].outputs if v in made}
            found[name] = next((share for share in shares if share.node in nodes), shares[0])
        return found

    @cached_property
    def _timed(self) -> list[Operation]:
        """The FX nodes that have a line and were timed in PyTorch."""
        timed = self.laps[0] if self.laps else {}
        return [op for op in self.lineage.operations if op.line and op.fx in timed]

    def _headline(self) -> str:
        name, whole = self.lineage.artifact.path.name, formatting.seconds(self.whole)
        kernels = formatting.plural(len(self.call.kernels), "kernel")
        spent = f"{formatting.seconds(self.total)} in {kernels}"
        return f"{name}: {whole} a run without the profiler, {self.too_short or spent}"

    def _body(self) -> Iterator[Part]:
        """Lines in execution order, then nodes without a line."""
        order = {line: index for index, line in enumerate(self.lineage.lines)}
        spots = [spot for spot in self.spots if spot.line]
        spots.sort(key=lambda spot: order.get(spot.line, len(order)))  # type: ignore[arg-type]
        if spots:
            cells = {spot.line: self._cells(spot) for spot in spots if spot.line}
            below = {spot.line: self._below(spot) for spot in spots if spot.line}
            left = {_BY, *range(len(_HEADER), len(self._header))}
            yield annotated(cells, self._header, left, self.lineage.sources, below, _WIDE)
        no_line = [spot for spot in self.spots if spot.line is None]
        if no_line:
            rows = [(*self._cells(spot), spot.name) for spot in no_line[:_SHOWN]]
            right = {*range(len(_HEADER))} - {_BY}
            yield Table(rows, (*self._header, "no line"), right, _WIDE)
        if len(no_line) > _SHOWN:
            yield f"and {formatting.plural(len(no_line) - _SHOWN, 'more node')}: see .spots"

    def _below(self, spot: Spot) -> list[Row]:
        """The slowest library lines, in execution order."""
        ran = [inner for inner in spot.below if inner.runs]
        slowest = sorted(ran, key=lambda inner: -inner.seconds)[:MOST]
        shown = [(self._cells(inner), inner) for inner in ran if inner in slowest]
        return rows_below(shown, len(spot.below))

    @property
    def _header(self) -> tuple[str, ...]:
        return (*_HEADER, "on") if len(self.providers) > 1 else _HEADER

    def _cells(self, spot: Spot) -> tuple[str | Percent, ...]:
        torch = "" if spot.torch is None else _time(spot.torch)
        ran_on = [", ".join(map(_short, spot.providers))] * (len(self._header) - len(_HEADER))
        if not spot.runs:
            return "", "", "", "0", "", torch, *ran_on
        low, _, high = (max(0.0, quartile) for quartile in quartiles_of(spot.runs))
        share = Percent(self._share(spot.seconds), "*" if spot.fused else " ")
        count, rules = str(len(spot.kernels)), ", ".join(spot.rules)
        span = f"{_time(low)} to {_time(high)}"
        return _time(spot.seconds), span, share, count, rules, torch, *ran_on

    def _facts(self) -> Iterator[tuple[str, str]]:
        if self.total:
            used = [f"{rule} {Percent(part)}" for rule, part in self.rules.items() if part]
            yield "by", f"the rule that found a kernel's line: {', '.join(used)}"
            yield "no line", f"{Percent(self.unattributed)} of kernel time{self._reasons()}"
            if self.providers:
                parts = [f"{_short(name)} {Percent(part)}" for name, part in self.providers.items()]
                yield "ran on", f"{', '.join(parts)} of kernel time"
            if any(spot.fused for spot in self.spots):
                yield (
                    "*",
                    "shares a fused kernel, split by the times of its nodes when not fused or, for "
                    "nodes merged at export, by the times of the FX nodes in PyTorch",
                )
            yield "coverage", f"kernels take {Percent(self.covered)} of a run without the profiler"
        cost = formatting.seconds(self.recording.cost.inside)
        yield (
            "profiler",
            f"adds {Percent(self.overhead)} to a run; {cost} is subtracted from each kernel "
            f"(coverage without that: {Percent(self.counted)})",
        )
        yield "runs", self._how()
        yield "", "times are means over the fastest quarter of the runs, quartiles over all runs"
        if self.laps:
            spent = sum(sum(lap.values()) for lap in self.laps)
            no_line = 1 - sum(lap[op.fx] for lap in self.laps for op in self._timed) / spent
            yield (
                "PyTorch",
                f"{_COVERS} (torch.fx.Interpreter, inference mode): the call of each operator, "
                f"without the Python code between them; {Percent(no_line)} of it in nodes without "
                "a line",
            )
        for doubt in self._doubts():
            yield "doubt", doubt

    def _reasons(self) -> str:
        known = {origin.node: origin.why for origin in self.lineage.without}
        names = [spot.name for spot in self.spots if spot.line is None]
        whys = dict.fromkeys(known.get(name, "no rule matches the kernel's name") for name in names)
        return f": {'; '.join(whys)}" if whys else ""

    def _doubts(self) -> Iterator[str]:
        if self.providers and (asked := self.lineage.artifact.provider) not in self.providers:
            yield f"no kernel ran on {_short(asked)}, the provider that the artifact asks for"
        low, median, high = quartiles_of(self.plain)
        if high - low > NOISY * median:
            apart = Percent((high - low) / median)
            yield f"runs differ: the quartiles are {apart} apart; stop other programs and repeat"
        if 0 < self.covered < 1 - NOISY:
            yield "part of a run is outside kernels: in a model this small, trust shares, not times"
        if self.covered > 1 + NOISY:
            yield "runs differ: profiled runs took longer than the overhead explains; repeat"
        if self.counted > 2 * self.covered > 0:
            yield "most of the measured time is the profiler's: trust the order, not the digits"

    def _how(self) -> str:
        return (
            f"{formatting.plural(len(self.plain), 'run')} of each, graph optimization "
            f"{self.level!r}, {formatting.plural(self.threads, 'thread')}"
        )

    def _title(self, rows: Sequence[Spot]) -> str:
        if not self.laps:
            return self.too_short or f"{self.hottest.name} takes the longest in ONNX Runtime"
        best, worst = rows[0], rows[-1]
        words = [f"most saved at {_short_name(best)}"] if best.saved > 0 else []
        words += [f"most lost at {_short_name(worst)}"] if worst.saved < 0 else []
        return f"Line by line, PyTorch and ONNX Runtime: {', '.join(words)}"


def _short_name(spot: Spot) -> str:
    return spot.line.short_place if spot.line else spot.name


def _label(spot: Spot, module: str) -> str:
    words = module or (spot.line.text if spot.line else "")
    words = words if len(words) <= _LABEL else f"{words[: _LABEL - 3]}..."
    return f"{_short_name(spot)}  {words}".strip()


def _short(provider: str) -> str:
    """``CPUExecutionProvider`` -> ``CPU``."""
    return provider.removesuffix("ExecutionProvider")


def _time(seconds: float) -> str:
    """A duration, padded so that the columns of two runs have the same width."""
    return f"{formatting.seconds(seconds):>7}"
