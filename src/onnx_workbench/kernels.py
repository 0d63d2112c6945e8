"""One model in ONNX Runtime's own profiler: what each kernel of the optimised graph takes."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from .errors import InputError, LoadError
from .proto import Site, named, sites

if TYPE_CHECKING:
    import onnxruntime

LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
"""Our word for a level of graph optimisation -> ONNX Runtime's."""

_SUFFIX = "_kernel_time"
_SECOND = 1e6  # the profiler counts in microseconds
_LENGTH, _TRIALS = 64, 60  # of the chain that the profiler's own cost is measured on
_EXTERNAL = "session.model_external_initializers_file_folder_path"
_OPTIMISED = "session.optimized_model_external_initializers_"


@dataclass(frozen=True)
class Kernel:
    """One node of the optimised graph: what each run spent in it, without what its body spent.

    ``seconds`` has one entry a run, in which all turns of a loop are summed. What the profiler
    itself is known to cost is taken off, so that one that does nothing may come out below 0.
    ``inputs`` leaves out what is known before the run (initializers).
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds a run, never below 0."""
        return max(0.0, statistics.median(self.seconds))


@dataclass(frozen=True)
class Recording:
    """``whole`` is what the profiler itself says one run took, ``kernels`` what it was spent on."""

    kernels: tuple[Kernel, ...]
    whole: tuple[float, ...]


@dataclass(frozen=True)
class Cost:
    """Seconds that the profiler adds for each kernel, ``inside`` its event and ``outside``."""

    inside: float = 0.0
    outside: float = 0.0


FREE = Cost()


class Recorder:
    """Sessions of one model, with the profiler on or off. Made by :func:`recorder`."""

    def __init__(self, path: Path, model: onnx.ModelProto, provider: str, folder: Path) -> None:
        renamed = named(model)  # a kernel without a name of its own cannot be told from others
        self._model = renamed.SerializeToString() if renamed else os.fspath(path)
        self._home, self._folder, self.provider = path.resolve().parent, folder, provider

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
        if isinstance(self._model, bytes):
            options.add_session_config_entry(_EXTERNAL, os.fspath(self._home))
        if profiled:
            options.enable_profiling = True
            options.profile_file_prefix = os.fspath(self._folder / f"profile-{level}")
            options.optimized_model_filepath = os.fspath(self._graph(level))
            # the weights beside the graph, so that only the graph need be read
            options.add_session_config_entry(f"{_OPTIMISED}file_name", f"{level}.weights")
            options.add_session_config_entry(f"{_OPTIMISED}min_size_in_bytes", "128")
        try:
            return onnxruntime.InferenceSession(self._model, options, providers=[self.provider])
        except Exception as error:
            raise LoadError(
                f"ONNX Runtime cannot load the model at the optimisation level {level!r}: "
                f"{str(error).splitlines()[0]}\nWhat helps: pass another `level`."
            ) from error

    def close(
        self,
        session: onnxruntime.InferenceSession,
        level: str,
        kept: Callable[[int], bool],
        cost: Cost = FREE,
    ) -> Recording:
        """End the profile of a session and read it."""
        profile = Path(session.end_profiling())
        events = json.loads(profile.read_text(encoding="utf-8"))
        graph = onnx.load(self._graph(level), load_external_data=False)
        return recorded(events, graph, kept, cost)

    def _graph(self, level: str) -> Path:
        """Where the optimised graph is written, which the names of the kernels belong to."""
        return self._folder / f"{level}.onnx"


@contextmanager
def recorder(path: Path, model: onnx.ModelProto, provider: str) -> Iterator[Recorder]:
    """Sessions of the model at ``path``, whose profiles lie in a temporary folder that is gone
    afterwards, come what may."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Recorder(path, model, provider, Path(folder))


def check_level(level: str) -> None:
    if level not in LEVELS:
        raise InputError(
            f"`level` is {level!r}, and it takes one of {', '.join(map(repr, LEVELS))}: how far "
            "ONNX Runtime may optimise the graph before it runs."
        )


def recorded(
    events: Sequence[Mapping[str, Any]],
    graph: onnx.ModelProto,
    kept: Callable[[int], bool],
    cost: Cost = FREE,
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
    found = {site.name: site for site in sites(graph)}
    nodes = [e for e in events if e["cat"] == "Node" and e["name"].endswith(_SUFFIX)]
    spent: dict[str, list[float]] = {}
    operators: dict[str, str] = {}
    starts = [start for start, _ in runs]
    for event, own in _exclusive(nodes, {site.inside for site in found.values()}, cost):
        column = columns.get(bisect_right(starts, event["ts"]) - 1)
        if column is not None:
            name = event["name"].removesuffix(_SUFFIX)
            spent.setdefault(name, [0.0] * len(columns))[column] += own
            operators[name] = event["args"].get("op_name", "")
    fixed = {tensor.name for tensor in graph.graph.initializer}
    kernels = tuple(
        _kernel(name, operators[name], found.get(name), seconds, fixed)
        for name, seconds in spent.items()
    )
    return Recording(kernels, tuple(runs[run][1] / _SECOND for run in columns))


def _exclusive(
    events: Sequence[Mapping[str, Any]], owners: Collection[str], cost: Cost
) -> Iterator[tuple[Mapping[str, Any], float]]:
    """Each event with its own seconds: an ``If`` or ``Loop`` covers the kernels of its body.

    The profiler writes an event when it ends, so of two that began in the same microsecond the one
    that comes later in the file is the outer one.
    """
    order = sorted(range(len(events)), key=lambda i: (events[i]["ts"], -events[i]["dur"], -i))
    own = {i: events[i]["dur"] / _SECOND - cost.inside for i in order}
    around: list[int] = []
    for i in order:
        while around and _end(events[around[-1]]) < max(_end(events[i]), events[i]["ts"] + 1):
            around.pop()
        if around:
            own[around[-1]] -= events[i]["dur"] / _SECOND + cost.outside
        if events[i]["name"].removesuffix(_SUFFIX) in owners:
            around.append(i)
    return ((events[i], own[i]) for i in order)


def _end(event: Mapping[str, Any]) -> int:
    return event["ts"] + event["dur"]


def _kernel(
    name: str, operator: str, site: Site | None, seconds: Sequence[float], fixed: set[str]
) -> Kernel:
    inputs = tuple(value for value in site.inputs if value not in fixed) if site else ()
    return Kernel(name, operator, inputs, site.outputs if site else (), tuple(seconds))


def profiler_cost(provider: str, threads: int) -> Cost:
    """What the profiler adds to a kernel, measured here and now on a chain of kernels that do next
    to nothing: their events are longer than the time a run without the profiler has for them."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        recorder = Recorder(Path(folder) / "chain.onnx", _chain(), provider, Path(folder))
        feeds = {"x": np.zeros(4, np.float32)}
        plain = recorder.open("none", threads, profiled=False)
        profiled = recorder.open("none", threads, profiled=True)
        try:
            spent = [_timed(plain.run, feeds) for _ in range(_TRIALS) if profiled.run(None, feeds)]
        finally:
            recording = recorder.close(profiled, "none", lambda run: run >= _TRIALS // 2)
    alone = statistics.median(spent[_TRIALS // 2 :]) / _LENGTH
    runs = zip(*(kernel.seconds for kernel in recording.kernels), strict=True)
    event = statistics.median(map(sum, runs)) / _LENGTH
    whole = statistics.median(recording.whole) / _LENGTH
    return Cost(inside=max(0.0, event - alone), outside=max(0.0, whole - event))


def _timed(run: Callable[..., object], feeds: Mapping[str, Any]) -> float:
    start = perf_counter()
    run(None, feeds)
    return perf_counter() - start


def _chain() -> onnx.ModelProto:
    helper = onnx.helper
    nodes = [
        helper.make_node("Add", [f"v{i}" if i else "x", "b"], [f"v{i + 1}"]) for i in range(_LENGTH)
    ]
    ends = [helper.make_tensor_value_info(n, 1, [4]) for n in ("x", f"v{_LENGTH}")]
    bias = helper.make_tensor("b", 1, [4], [0.0] * 4)
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [bias])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
