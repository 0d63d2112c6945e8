"""ONNX Runtime's own profiler: how long each kernel of the optimized graph takes.

Imports no torch: an isolated file is profiled in a process without it.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from .. import progress
from ..errors import LoadError
from ..ort import Options, call_of, explained, model_bytes, session_of
from ..proto import NodeRef, grouped, named, node_refs
from .liveness import EMPTY, Footprint, footprint, result_bytes

if TYPE_CHECKING:
    import onnxruntime

BLOCK = 4
"""Runs in a row. The first one does not count, since the caches hold data of other work."""
LEAST, MOST = 2, 25
"""The fewest and the most blocks that count, after one block to warm up."""

EXECUTOR = "SequentialExecutor::Execute"
_SUFFIX = "_kernel_time"
_SECOND = 1e6  # the profiler counts in microseconds
_IDLE = '<ir_version: 10, opset_import: ["": 20]> idle (float[4] x) => (float[4] y) { y = Neg(x) }'
_TRIALS = 60
_OPTIMIZED = "session.optimized_model_external_initializers_"
_RENUMBERED = frozenset({"ReorderOutput"})
"""Operators that the optimizer inserts in no order: each session numbers their nodes anew."""
_ASSIGNED = "session.record_ep_graph_assignment_info"

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Kernel:
    """One node of the optimized graph and its time, without the time of its body.

    ``seconds`` has one entry a run: the sum over the iterations of a loop. ``calls`` counts the
    profiler's events per run, ``inner`` those directly in its body. ``inputs`` has no initializers.
    ``size`` are the bytes of its results in one run, ``provider`` the execution provider.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    seconds: tuple[float, ...]
    calls: float = 1.0
    inner: float = 0.0
    provider: str = ""
    size: int = 0


@dataclass(frozen=True)
class Cost:
    """Seconds that the profiler adds for each event, ``inside`` and ``outside`` the event."""

    inside: float = 0.0
    outside: float = 0.0

    def of(self, kernel: Kernel) -> float:
        """Seconds a run."""
        return kernel.calls * self.inside + kernel.inner * self.outside


FREE = Cost()


@dataclass(frozen=True)
class Recording:
    """``whole`` has the profiler's time of each run, ``executed`` the time from the first kernel to
    the last; ``cost`` is already subtracted from the kernels' seconds. ``footprint`` is the memory
    of one run, ``assigned`` the execution provider of each node before ONNX Runtime optimized the
    graph, where it tells. ``constants`` are the values that the optimized graph has as weights."""

    kernels: tuple[Kernel, ...]
    whole: tuple[float, ...]
    executed: tuple[float, ...]
    cost: Cost = FREE
    footprint: Footprint = EMPTY
    assigned: Mapping[str, str] = field(default_factory=dict)
    constants: Collection[str] = frozenset()

    @cached_property
    def sums(self) -> tuple[float, ...]:
        """Seconds in all kernels of each run."""
        return tuple(map(sum, zip(*(kernel.seconds for kernel in self.kernels), strict=True)))

    def typical(self, runs: Sequence[float]) -> float:
        """The mean of ``runs`` over the quarter of the runs with the fastest kernels, at least 0.

        It is as robust as a median and finer than the profiler's whole microseconds, and the means
        of parts add up to the mean of the whole.
        """
        return max(0.0, typical(runs, by=self.sums or None)) if runs else 0.0

    def cost_beside(self, alone: float) -> Cost:
        """Estimate the profiler's cost, if the kernels take ``alone`` seconds without it.

        Its bookkeeping adds about the same time to each event. The estimate is at most the time
        between two events, so that noise does not count as cost.
        """
        if not self.kernels:
            return FREE
        events, inner = (sum(getattr(k, n) for k in self.kernels) for n in ("calls", "inner"))
        spent = self.typical(self.sums)
        outside = max(0.0, self.typical(self.executed) - spent) / (events - inner)
        inside = (spent - inner * outside - alone) / events
        return Cost(inside=max(0.0, min(inside, outside)), outside=outside)

    def less(self, cost: Cost) -> Recording:
        """Subtract the profiler's cost from each kernel."""
        kernels = tuple(
            replace(k, seconds=tuple(s - cost.of(k) for s in k.seconds)) for k in self.kernels
        )
        return replace(self, kernels=kernels, cost=cost)


def typical(runs: Sequence[float], by: Sequence[float] | None = None) -> float:
    """The mean over the fastest quarter of the runs: interference only ever adds time.

    >>> typical([90.0, 2.0, 9.0, 3.0]), typical([1.0, 2.0, 3.0, 4.0], by=[90.0, 2.0, 9.0, 3.0])
    (2.5, 3.0)
    """
    order = sorted(range(len(runs)), key=(runs if by is None else by).__getitem__)
    return statistics.fmean(runs[run] for run in order[: len(order) // 4 + 1])


def record(
    path: Path,
    model: onnx.ModelProto,
    provider: str,
    feeds: Mapping[str, Any],
    level: str,
    threads: int,
    seconds: float,
    in_torch: Callable[[], object] | None = None,
) -> tuple[Recording, list[float]]:
    """Time the kernels, and whole runs without the profiler.

    Blocks with the profiler, without it, and of ``in_torch`` alternate, so that drift affects all.
    """
    plain: list[float] = []
    with _profiled(path, model, provider, level, threads) as profile:
        others: list[Callable[[], object]] = [call_of(profile.session, feeds)]
        others += [in_torch] if in_torch else []
        alone = call_of(profile.open(), feeds)
        end = perf_counter() + seconds
        with progress.bar("profile", total=MOST + 1) as step:
            while not enough(len(plain) // BLOCK - 1, end):
                plain += [_timed(alone) for _ in range(BLOCK)]
                for call in others:
                    for _ in range(BLOCK):
                        call()
                step()
        recording = profile.read()
    plain = [run for index, run in enumerate(plain) if is_measured(index)]
    least = typical(plain) - _idle(provider, threads)
    return recording.less(recording.cost_beside(least)), plain


def unfused(
    path: Path,
    model: onnx.ModelProto,
    provider: str,
    feeds: Mapping[str, Any],
    threads: int,
    cost: Cost,
) -> dict[str, float]:
    """Exported node -> seconds a run without fusion; empty if the model needs the optimizer."""
    try:
        with _profiled(path, model, provider, "off", threads) as profile:
            call = call_of(profile.session, feeds)
            for _ in range(2 * BLOCK):
                call()
            recording = profile.read().less(cost)
    except LoadError:
        return {}
    return {kernel.name: recording.typical(kernel.seconds) for kernel in recording.kernels}


def is_measured(run: int) -> bool:
    """Whether a run counts: it is not in the first block, and not the first of its block."""
    return run >= BLOCK and run % BLOCK > 0


def enough(blocks: int, end: float) -> bool:
    return blocks >= MOST or (blocks >= LEAST and perf_counter() > end)


@dataclass
class _Profile:
    """A session with the profiler on, which writes into ``folder``, and others of its model."""

    folder: Path
    path: Path
    model: onnx.ModelProto
    provider: str
    level: str
    threads: int

    def __post_init__(self) -> None:
        self.renamed = named(self.model)  # the profiler tells kernels by name: each needs its own
        self.session = self.open(profiled=True)

    def open(self, profiled: bool = False) -> Any:
        """Open a session.

        Raises:
            LoadError: this level cannot run the model (a function needs the basic level).
        """
        options = Options(level=self.level).for_session(self.threads)  # type: ignore[arg-type]
        model: bytes | str = os.fspath(self.path)
        if self.renamed:
            model = model_bytes(self.renamed, self.path, options)
        failed = f"ONNX Runtime cannot load the model at the optimization level {self.level!r}"
        with explained(LoadError, failed, "Pass another `level`."):
            if profiled:
                self._write_graph(options, model)
                options.add_session_config_entry(_ASSIGNED, "1")
                options.enable_profiling = True
                options.profile_file_prefix = os.fspath(self.folder / "profile")
            return session_of(model, self.provider, options)

    def _write_graph(self, options: onnxruntime.SessionOptions, model: bytes | str) -> None:
        """Write the optimized graph, from a temporary session, which holds each weight twice."""
        options.optimized_model_filepath = os.fspath(self.folder / "optimized.onnx")
        # weights go into another file, so that only the graph is read back
        options.add_session_config_entry(f"{_OPTIMIZED}file_name", "optimized.weights")
        options.add_session_config_entry(f"{_OPTIMIZED}min_size_in_bytes", "128")
        session_of(model, self.provider, options)
        options.optimized_model_filepath = ""

    def read(self) -> Recording:
        """End the profile and read it."""
        events = json.loads(Path(self.session.end_profiling()).read_text(encoding="utf-8"))
        graph = onnx.load(self.folder / "optimized.onnx", load_external_data=False)
        return replace(recording_of(events, graph, is_measured), assigned=_assigned(self.session))


def _assigned(session: Any) -> dict[str, str]:
    """Node before optimization -> its execution provider; empty before ONNX Runtime 1.24."""
    parts: Any = getattr(session, "get_provider_graph_assignment_info", tuple)()
    return {node.name: part.ep_name for part in parts for node in part.get_nodes()}


@contextmanager
def _profiled(*of: Any) -> Iterator[_Profile]:
    """A profiled session in a temporary folder. An error ends the profile before the folder is
    removed, since Windows removes no open file."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        profile = _Profile(Path(folder), *of)
        try:
            yield profile
        except BaseException:
            profile.session.end_profiling()
            raise


def _idle(provider: str, threads: int) -> float:
    """Seconds of a ``session.run`` outside its kernels, measured on a model without work."""
    model = onnx.parser.parse_model(_IDLE).SerializeToString()
    session = session_of(model, provider, Options(level="off").for_session(threads))
    feeds = {"x": np.zeros(4, np.float32)}
    return min(_timed(lambda: session.run(None, feeds)) for _ in range(_TRIALS))


def _timed(run: Callable[[], object]) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start


# From events to kernels


_Call = tuple[int, float, int, Mapping[str, Any]]
"""The run of an event, its exclusive seconds, how many are directly inside it, its ``args``."""


def recording_of(
    events: Sequence[Event], graph: onnx.ModelProto, kept: Callable[[int], bool]
) -> Recording:
    """Read the profiler's events. ``kept`` says which runs count, by their number from 0.

    >>> graph = onnx.parser.parse_model('<ir_version: 10, opset_import: ["": 20]> '
    ...     'g (float[2] x) => (float[2] y) { [one] y = Relu(x) }')
    >>> run = {"cat": "Session", "name": "model_run", "ts": 0, "dur": 9, "args": {}}
    >>> relu = {"cat": "Node", "name": "one_kernel_time", "ts": 1, "dur": 5, "args": {}}
    >>> recording_of([relu, run], graph, lambda run: True).kernels[0].seconds
    (5e-06,)
    """
    runs = sorted((e["ts"], e["dur"]) for e in events if e["name"] == "model_run")
    columns = {run: column for column, run in enumerate(filter(kept, range(len(runs))))}
    starts = [start for start, _ in runs]

    def column_of(event: Event) -> int | None:
        return columns.get(bisect_right(starts, event["ts"]) - 1)

    refs = {ref.name: ref for ref in node_refs(graph)}
    nodes = [e for e in events if e["cat"] == "Node" and e["name"].endswith(_SUFFIX)]
    ran: dict[str, list[_Call]] = grouped(
        (event["name"].removesuffix(_SUFFIX), (column, seconds, inner, event["args"]))
        for event, seconds, inner in _exclusive(nodes, {ref.inside for ref in refs.values()})
        if (column := column_of(event)) is not None
    )
    whole = tuple(runs[run][1] / _SECOND for run in columns)
    executors = [e for e in events if e["name"] == EXECUTOR]
    executed = [0.0] * len(columns) if executors else [*whole]
    for event in executors:
        if (column := column_of(event)) is not None:  # those of bodies are shorter
            executed[column] = max(executed[column], event["dur"] / _SECOND)
    refs |= _nameless({name: _operator(calls) for name, calls in ran.items()}, refs)
    fixed = frozenset(tensor.name for tensor in graph.graph.initializer)
    kernels = tuple(
        _kernel(name, calls, len(columns), refs.get(name), fixed) for name, calls in ran.items()
    )
    second = starts[1] if len(starts) > 1 else math.inf
    first = [(e["name"].removesuffix(_SUFFIX), e["args"]) for e in nodes if e["ts"] < second]
    held = footprint(first, refs, graph)
    return Recording(kernels, whole, tuple(executed), footprint=held, constants=fixed)


def _kernel(
    name: str, calls: Sequence[_Call], runs: int, ref: NodeRef | None, fixed: Collection[str]
) -> Kernel:
    columns, seconds, inner, args = zip(*calls, strict=True)
    return Kernel(
        name=name,
        operator=_operator(calls),
        inputs=tuple(value for value in ref.inputs if value not in fixed) if ref else (),
        outputs=ref.outputs if ref else (),
        seconds=tuple(np.bincount(columns, seconds, runs).tolist()),
        calls=len(calls) / runs,
        inner=sum(inner) / runs,
        provider=args[-1].get("provider", ""),
        size=sum(map(result_bytes, args)) // runs,
    )


def _operator(calls: Sequence[_Call]) -> str:
    return calls[-1][-1].get("op_name", "")


def _nameless(operators: Mapping[str, str], refs: Mapping[str, NodeRef]) -> dict[str, NodeRef]:
    """Find the nodes of kernels without a name, such as those of an inlined function, and of those
    whose name is another node's in the optimized graph, which another session wrote.

    The profiler calls the first by operator and a number that the graph does not have. Kernels and
    nodes are both in execution order. Where their numbers differ, none is known.
    """
    doubtful = grouped(
        (operator, name)
        for name, operator in operators.items()
        if operator in _RENUMBERED
        or (name not in refs and re.fullmatch(rf"{re.escape(operator)}_\d+", name))
    )
    matched: dict[str, NodeRef] = {}
    for operator, names in doubtful.items():
        nodes = [r for r in refs.values() if r.node.op_type == operator]
        nodes = [r for r in nodes if not r.node.name or operator in _RENUMBERED]
        if len(nodes) == len(names):
            matched |= zip(names, nodes, strict=True)
    return matched


def _exclusive(
    events: Sequence[Event], owners: Collection[str]
) -> Iterator[tuple[Event, float, int]]:
    """Yield each event with its exclusive seconds and the number of events directly inside it: the
    event of an ``If`` or ``Loop`` includes the kernels of its body.

    The profiler writes an event when it ends, so if two began in the same microsecond, the later
    one in the file is the outer one.
    """
    order = sorted(range(len(events)), key=lambda i: (events[i]["ts"], -events[i]["dur"], -i))
    exclusive = {i: events[i]["dur"] / _SECOND for i in order}
    ends = {i: events[i]["ts"] + events[i]["dur"] for i in order}
    inner = dict.fromkeys(order, 0)
    around: list[int] = []
    for i in order:
        while around and ends[around[-1]] < max(ends[i], events[i]["ts"] + 1):
            around.pop()
        if around:
            exclusive[around[-1]] -= events[i]["dur"] / _SECOND
            inner[around[-1]] += 1
        if events[i]["name"].removesuffix(_SUFFIX) in owners:
            around.append(i)
    return ((events[i], exclusive[i], inner[i]) for i in order)
