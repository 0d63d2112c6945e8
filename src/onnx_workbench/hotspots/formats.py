"""A profile as files that other tools open: Perfetto, chrome://tracing, speedscope."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any, NamedTuple

from ..lineage.attribution import Share
from ..source import Line
from .flame import NO_LINE, FlameFrame, stack_of

SPEEDSCOPE = ".speedscope.json"
_SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_SECOND = 10**9  # times are whole nanoseconds, so that boxes nest exactly

Rows = Sequence[tuple[Share, dict[str, Any]]]
"""Shares of kernels in the order of execution, each with its row of :meth:`Hotspots.records`."""


class _Slice(NamedTuple):
    """A share of a kernel in one typical run, from ``start`` to ``end`` in nanoseconds, and the
    frames that lead to it, outermost first."""

    line: Line | None
    frames: tuple[FlameFrame, ...]
    record: dict[str, Any]
    start: int
    end: int

    @property
    def below(self) -> tuple[FlameFrame, ...]:
        """The frames that the user's line calls."""
        lines = [frame.line for frame in self.frames]
        return self.frames[lines.index(self.line) + 1 :]

    @property
    def kernel(self) -> str:
        return f"{self.record['operator']}  {self.record['onnx'] or self.record['kernel']}"


def _slices(rows: Rows) -> list[_Slice]:
    """The shares end to end."""
    ends = accumulate((record["seconds"] for _, record in rows), initial=0.0)
    times = pairwise(round(end * _SECOND) for end in ends)
    return [
        _Slice(share.line, stack_of(share), record, *time)
        for (share, record), time in zip(rows, times, strict=True)
    ]


def trace(rows: Rows, name: str) -> dict[str, Any]:
    """Chrome's trace event format: a track for each source line, on it the library's lines and the
    kernels of one run. Times are in microseconds."""
    slices = _slices(rows)
    tracks = {line: tid for tid, line in enumerate(dict.fromkeys(one.line for one in slices), 1)}
    events = [_metadata_event("process_name", 0, {"name": name})]
    for line, tid in tracks.items():
        frame = FlameFrame.of(line) if line else NO_LINE
        events.append(_metadata_event("thread_name", tid, {"name": frame.name}))
        events.append(_metadata_event("thread_sort_index", tid, {"sort_index": tid}))
    for line, run in groupby(slices, key=lambda one: one.line):
        events += _nested([*run], tracks[line])
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _nested(slices: Sequence[_Slice], tid: int, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The library's lines at this depth, each around what it calls, and the kernels."""
    for frames, group in groupby(slices, key=lambda one: one.below[depth : depth + 1]):
        run = [*group]
        if frames:
            yield _event(frames[0].name, "source", run, tid)
            yield from _nested(run, tid, depth + 1)
        else:
            yield from (_event(one.kernel, "kernel", [one], tid, one.record) for one in run)


def _event(
    name: str, category: str, run: Sequence[_Slice], tid: int, args: dict[str, Any] | None = None
) -> dict[str, Any]:
    start, end = run[0].start, run[-1].end
    times = {"ph": "X", "ts": start / 1000, "dur": (end - start) / 1000}
    return {"name": name, "cat": category, **times, "pid": 1, "tid": tid, "args": args or {}}


def _metadata_event(what: str, tid: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": 1, "tid": tid, "args": args}


def speedscope(rows: Rows, name: str) -> dict[str, Any]:
    """speedscope's own format, a sampled profile of one run: a sample is a share of a kernel, below
    its source lines, and weighs as much as it takes."""
    slices, numbers = _slices(rows), dict[FlameFrame, int]()
    samples = [
        [numbers.setdefault(frame, len(numbers)) for frame in (*one.frames, FlameFrame(one.kernel))]
        for one in slices
    ]
    weights = [one.end - one.start for one in slices]
    times = {"unit": "nanoseconds", "startValue": 0, "endValue": sum(weights)}
    profile = {"type": "sampled", "name": name, **times, "samples": samples, "weights": weights}
    return {
        "$schema": _SCHEMA,
        "exporter": "onnx-workbench",
        "name": name,
        "activeProfileIndex": 0,
        "shared": {"frames": [_frame(frame) for frame in numbers]},
        "profiles": [profile],
    }


def _frame(frame: FlameFrame) -> dict[str, Any]:
    """Without the folder of the file, which is only on its author's machine."""
    if frame.line is None:
        return {"name": frame.name}
    file = frame.line.place.rpartition(":")[0]
    return {"name": frame.name, "file": file, "line": frame.line.number}
