"""One model in ONNX Runtime's own profiler: what each kernel of the optimized graph takes."""

from __future__ import annotations

import json
import os
import re
import statistics
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from ..errors import LoadError
from ..ort import LEVELS, model_bytes
from ..proto import NodeRef, named, node_refs

if TYPE_CHECKING:
    import onnxruntime

_SUFFIX = "_kernel_time"
_SECOND = 1e6  # the profiler counts in microseconds
_EXECUTOR = "SequentialExecutor::Execute"
_IDLE = '<ir_version: 10, opset_import: ["": 20]> idle (float[4] x) => (float[4] y) { y = Neg(x) }'
_TRIALS = 60
_OPTIMIZED = "session.optimized_model_external_initializers_"


@dataclass(frozen=True)
class Kernel:
    """One node of the optimized graph: what each run spent in it, without what its body spent.

    ``seconds`` has one entry a run, in which all turns of a loop are summed; ``calls`` is how many
    events of the profiler that was in a run, ``inner`` how many stood directly in its body.
    ``inputs`` leaves out what is known before the run (initializers).
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    seconds: tuple[float, ...]
    calls: float = 1.0
    inner: float = 0.0


@dataclass(frozen=True)
class Cost:
    """Seconds that the profiler adds for each event, ``inside`` the event and ``outside`` it."""

    inside: float = 0.0
    outside: float = 0.0

    def of(self, kernel: Kernel) -> float:
        """Seconds a run."""
        return kernel.calls * self.inside + kernel.inner * self.outside


FREE = Cost()


@dataclass(frozen=True)
class Recording:
    """``whole`` is what the profiler says that each run took, and ``executed`` the part of it from
    the first kernel to the last; ``cost`` is what was taken off the kernels' seconds."""

    kernels: tuple[Kernel, ...]
    whole: tuple[float, ...]
    executed: tuple[float, ...]
    cost: Cost = FREE

    @cached_property
    def sums(self) -> tuple[float, ...]:
        """Seconds in all kernels of each run."""
        return tuple(map(sum, zip(*(kernel.seconds for kernel in self.kernels), strict=True)))

    @cached_property
    def calm(self) -> tuple[int, ...]:
        """The fastest quarter of the runs, by what all their kernels took."""
        return calm(self.sums)

    def typical(self, runs: Sequence[float]) -> float:
        """Of one entry a run, the mean over the calm runs, never below 0.

        As robust as a median, finer than the whole microseconds that the profiler counts in, and
        what is typical of the parts adds up to what is typical of the whole.
        """
        calm = [runs[run] for run in self.calm]
        return max(0.0, statistics.fmean(calm)) if calm else 0.0  # where everything was folded away

    def cost_beside(self, alone: float) -> Cost:
        """What the profiler costs, if the kernels together take ``alone`` seconds without it.

        Its events are longer than the kernels by its own bookkeeping: as much for each, near
        enough, and no more than it takes between two events, so that noise cannot pass for it.
        """
        if not self.kernels:
            return FREE
        events, inner = (sum(getattr(k, n) for k in self.kernels) for n in ("calls", "inner"))
        spent = self.typical(self.sums)
        outside = max(0.0, self.typical(self.executed) - spent) / (events - inner)
        inside = (spent - inner * outside - alone) / events
        return Cost(inside=max(0.0, min(inside, outside)), outside=outside)

    def less(self, cost: Cost) -> Recording:
        """The same with the profiler's cost taken off each kernel."""
        kernels = tuple(
            replace(k, seconds=tuple(s - cost.of(k) for s in k.seconds)) for k in self.kernels
        )
        return replace(self, kernels=kernels, cost=cost)


def calm(runs: Sequence[float]) -> tuple[int, ...]:
    """The indices of the fastest quarter: what else happens on a machine only ever adds.

    >>> calm([90.0, 2.0, 9.0, 3.0])
    (1, 3)
    """
    order = sorted(range(len(runs)), key=runs.__getitem__)
    return tuple(sorted(order[: len(order) // 4 + 1]))


class Recorder:
    """Sessions of one model, with the profiler on or off. Made by :func:`recorder`."""

    def __init__(self, path: Path, model: onnx.ModelProto, provider: str, folder: Path) -> None:
        # A kernel without a name of its own cannot be told from others.
        self._renamed = named(model)
        self._path, self._folder, self.provider = path, folder, provider

    def open(self, level: str, threads: int, profiled: bool) -> onnxruntime.InferenceSession:
        """
        Raises:
            LoadError: this level cannot run the model (a function needs the basic one).
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = getattr(
            onnxruntime.GraphOptimizationLevel, LEVELS[level]
        )
        model: bytes | str = os.fspath(self._path)
        if self._renamed:
            model = model_bytes(self._renamed, self._path, options)
        try:
            if profiled:
                self._write_graph(level, options, model)
                options.enable_profiling = True
                options.profile_file_prefix = os.fspath(self._folder / f"profile-{level}")
            return onnxruntime.InferenceSession(model, options, providers=[self.provider])
        except Exception as error:
            raise LoadError(
                f"ONNX Runtime cannot load the model at the optimization level {level!r}: "
                f"{str(error).splitlines()[0]}",
                "pass another `level`.",
            ) from error

    def _write_graph(
        self, level: str, options: onnxruntime.SessionOptions, model: bytes | str
    ) -> None:
        """Write the optimized graph. A session that writes it keeps each weight twice: it ends."""
        import onnxruntime

        options.optimized_model_filepath = os.fspath(self._graph(level))
        # the weights beside the graph, so that only the graph need be read
        options.add_session_config_entry(f"{_OPTIMIZED}file_name", f"{level}.weights")
        options.add_session_config_entry(f"{_OPTIMIZED}min_size_in_bytes", "128")
        onnxruntime.InferenceSession(model, options, providers=[self.provider])
        options.optimized_model_filepath = ""

    def close(
        self,
        session: onnxruntime.InferenceSession,
        level: str,
        kept: Callable[[int], bool],
    ) -> Recording:
        """End the profile of a session and read it."""
        profile = Path(session.end_profiling())
        events = json.loads(profile.read_text(encoding="utf-8"))
        graph = onnx.load(self._graph(level), load_external_data=False)
        return recorded(events, graph, kept)

    def _graph(self, level: str) -> Path:
        """Where the optimized graph is written, which the names of the kernels belong to."""
        return self._folder / f"{level}.onnx"


@contextmanager
def recorder(path: Path, model: onnx.ModelProto, provider: str) -> Iterator[Recorder]:
    """Sessions of the model at ``path``, whose profiles lie in a temporary folder that is gone
    afterwards, come what may."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Recorder(path, model, provider, Path(folder))


def recorded(
    events: Sequence[Mapping[str, Any]], graph: onnx.ModelProto, kept: Callable[[int], bool]
) -> Recording:
    """The runs that are ``kept``, by number from 0, of what the profiler wrote.

    >>> graph = onnx.parser.parse_model('<ir_version: 10, opset_import: ["": 20]> '
    ...     'g (float[2] x) => (float[2] y) { [one] y = Relu(x) }')
    >>> run = {"cat": "Session", "name": "model_run", "ts": 0, "dur": 9, "args": {}}
    >>> relu = {"cat": "Node", "name": "one_kernel_time", "ts": 1, "dur": 5, "args": {}}
    >>> recorded([relu, run], graph, lambda run: True).kernels[0].seconds
    (5e-06,)
    """
    runs = sorted((e["ts"], e["dur"]) for e in events if e["name"] == "model_run")
    columns = {run: column for column, run in enumerate(filter(kept, range(len(runs))))}
    starts = [start for start, _ in runs]

    def column_of(event: Mapping[str, Any]) -> int | None:
        return columns.get(bisect_right(starts, event["ts"]) - 1)

    found = {ref.name: ref for ref in node_refs(graph)}
    spent: dict[str, _Spent] = {}
    nodes = [e for e in events if e["cat"] == "Node" and e["name"].endswith(_SUFFIX)]
    for event, own, inner in _exclusive(nodes, {ref.inside for ref in found.values()}):
        column = column_of(event)
        if column is not None:
            name = event["name"].removesuffix(_SUFFIX)
            spent.setdefault(name, _Spent(len(columns))).add(event, column, own, inner)
    whole = tuple(runs[run][1] / _SECOND for run in columns)
    executors = [e for e in events if e["name"] == _EXECUTOR]
    executed = list(whole) if not executors else [0.0] * len(columns)
    for event in executors:
        if (column := column_of(event)) is not None:  # those of bodies are shorter
            executed[column] = max(executed[column], event["dur"] / _SECOND)
    fixed = {tensor.name for tensor in graph.graph.initializer}
    found |= _nameless(spent, found)
    kernels = tuple(part.kernel(name, found.get(name), fixed) for name, part in spent.items())
    return Recording(kernels, whole, tuple(executed))


def _nameless(spent: Mapping[str, _Spent], found: Mapping[str, NodeRef]) -> dict[str, NodeRef]:
    """Kernels of nodes that have no name, as those of a function that the optimizer inlined.

    The profiler calls them by operator and a number that the graph does not have; both are in the
    order in which they run. Where their counts differ, none is known.
    """
    events: dict[str, list[str]] = {}
    for name, part in spent.items():
        if name not in found and re.fullmatch(rf"{re.escape(part.operator)}_\d+", name):
            events.setdefault(part.operator, []).append(name)
    nodes: dict[str, list[NodeRef]] = {}
    for ref in found.values():
        if not ref.node.name:
            nodes.setdefault(ref.node.op_type, []).append(ref)
    pairs = ((names, nodes.get(operator, [])) for operator, names in events.items())
    return {
        n: s
        for names, sites_ in pairs
        if len(names) == len(sites_)
        for n, s in zip(names, sites_, strict=True)
    }


class _Spent:
    """What is summed up of one kernel's events."""

    def __init__(self, runs: int) -> None:
        self.seconds, self.calls, self.inner, self.operator = [0.0] * runs, 0, 0, ""

    def add(self, event: Mapping[str, Any], run: int, own: float, inner: int) -> None:
        self.seconds[run] += own
        self.calls, self.inner = self.calls + 1, self.inner + inner
        self.operator = event["args"].get("op_name", "")

    def kernel(self, name: str, ref: NodeRef | None, fixed: set[str]) -> Kernel:
        inputs = tuple(value for value in ref.inputs if value not in fixed) if ref else ()
        runs = len(self.seconds)
        return Kernel(
            *(name, self.operator, inputs, ref.outputs if ref else (), tuple(self.seconds)),
            calls=self.calls / runs,
            inner=self.inner / runs,
        )


def _exclusive(
    events: Sequence[Mapping[str, Any]], owners: Collection[str]
) -> Iterator[tuple[Mapping[str, Any], float, int]]:
    """Each event with its own seconds, and how many stand directly in it: an ``If`` or ``Loop``
    covers the kernels of its body.

    The profiler writes an event when it ends, so of two that began in the same microsecond the one
    that comes later in the file is the outer one.
    """
    order = sorted(range(len(events)), key=lambda i: (events[i]["ts"], -events[i]["dur"], -i))
    own = {i: events[i]["dur"] / _SECOND for i in order}
    inner = dict.fromkeys(order, 0)
    around: list[int] = []
    for i in order:
        while around and _end(events[around[-1]]) < max(_end(events[i]), events[i]["ts"] + 1):
            around.pop()
        if around:
            own[around[-1]] -= events[i]["dur"] / _SECOND
            inner[around[-1]] += 1
        if events[i]["name"].removesuffix(_SUFFIX) in owners:
            around.append(i)
    return ((events[i], own[i], inner[i]) for i in order)


def _end(event: Mapping[str, Any]) -> int:
    return event["ts"] + event["dur"]


def idle(provider: str, threads: int) -> float:
    """Seconds that a ``session.run`` takes around its kernels: that of a model without work."""
    model = onnx.parser.parse_model(_IDLE)
    feeds = {"x": np.zeros(4, np.float32)}
    with recorder(Path("idle.onnx"), model, provider) as sessions:
        session = sessions.open("off", threads, profiled=False)
        spent = [timed(lambda: session.run(None, feeds)) for _ in range(_TRIALS)]
    return min(spent)


def timed(run: Callable[[], object]) -> float:
    """The seconds of one call."""
    start = perf_counter()
    run()
    return perf_counter() - start
