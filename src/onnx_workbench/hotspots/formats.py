"""A profile as files that other tools open: Perfetto, chrome://tracing, speedscope."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..source import Line
from .flame import NO_LINE, FlameFrame

SPEEDSCOPE = ".speedscope.json"
_SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_SECOND = 10**9  # times are whole nanoseconds, so that boxes nest exactly


@dataclass(frozen=True)
class Slice:
    """A share of a kernel: the frames that lead to it, and its row of :meth:`Hotspots.records`.

    ``line`` is the user's line among the frames, None without one.
    """

    frames: tuple[FlameFrame, ...]
    line: Line | None
    record: dict[str, Any]

    @property
    def kernel(self) -> FlameFrame:
        return FlameFrame(
            f"{self.record['operator']}  {self.record['onnx'] or self.record['kernel']}"
        )


class _Step(NamedTuple):
    """A frame opens or closes ``at`` a nanosecond; ``slice`` is set where it is a kernel."""

    opens: bool
    frame: FlameFrame
    at: int
    slice: Slice | None = None


def _steps(slices: Sequence[Slice]) -> Iterator[_Step]:
    """Lay the slices out end to end; a frame stays open as long as the slices share it."""
    open_frames: list[FlameFrame] = []
    exact = 0.0
    for item in slices:
        start, exact = round(exact * _SECOND), exact + item.record["seconds"]
        pairs = zip(open_frames, item.frames, strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        same = min(len(open_frames), len(item.frames)) if same is None else same
        yield from (_Step(False, frame, start) for frame in reversed(open_frames[same:]))
        yield from (_Step(True, frame, start) for frame in item.frames[same:])
        open_frames = [*item.frames]
        yield _Step(True, item.kernel, start, item)
        yield _Step(False, item.kernel, round(exact * _SECOND), item)
    yield from (_Step(False, frame, round(exact * _SECOND)) for frame in reversed(open_frames))


def trace(slices: Sequence[Slice], name: str) -> dict[str, Any]:
    """Chrome's trace event format: a track for each source line, on it the library's lines and the
    kernels of one run. Times are in microseconds."""
    tracks = {line: tid for tid, line in enumerate(dict.fromkeys(s.line for s in slices), 1)}
    events: list[dict[str, Any]] = [_metadata_event("process_name", 0, name)]
    for line, tid in tracks.items():
        events.append(
            _metadata_event("thread_name", tid, (FlameFrame.of(line) if line else NO_LINE).name)
        )
        events.append(
            {**_metadata_event("thread_sort_index", tid, ""), "args": {"sort_index": tid}}
        )
    begun: list[dict[str, Any]] = []
    for step in _steps([_below_line(item) for item in slices]):
        if not step.opens:
            event = begun.pop()
            event["dur"] = (step.at - event.pop("start")) / 1000
            continue
        found = {"name": step.frame.name, "cat": "kernel" if step.slice else "source", "ph": "X"}
        track = begun[0]["tid"] if begun else tracks[step.frame.line]
        times = {"start": step.at, "ts": step.at / 1000, "pid": 1, "tid": track}
        begun.append({**found, **times, "args": step.slice.record if step.slice else {}})
        if len(begun) > 1:  # the outermost is the track itself
            events.append(begun[-1])
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _below_line(item: Slice) -> Slice:
    """Without the user's lines that call the slice's own."""
    at = next((i for i, frame in enumerate(item.frames) if frame.line == item.line), 0)
    return Slice(item.frames[at:], item.line, item.record)


def _metadata_event(what: str, tid: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": 1, "tid": tid, "args": {"name": name}}


def speedscope(slices: Sequence[Slice], name: str) -> dict[str, Any]:
    """speedscope's own format, an evented profile of one run: source lines, then kernels."""
    numbers: dict[FlameFrame, int] = {}
    events = [
        {
            "type": "O" if step.opens else "C",
            "frame": numbers.setdefault(step.frame, len(numbers)),
            "at": step.at,
        }
        for step in _steps(slices)
    ]
    profile = {"type": "evented", "name": name, "unit": "nanoseconds", "startValue": 0}
    return {
        "$schema": _SCHEMA,
        "exporter": "onnx-workbench",
        "name": name,
        "activeProfileIndex": 0,
        "shared": {"frames": [_frame(frame) for frame in numbers]},
        "profiles": [{**profile, "endValue": events[-1]["at"] if events else 0, "events": events}],
    }


def _frame(frame: FlameFrame) -> dict[str, Any]:
    """Without the folder of the file, which is only on its author's machine."""
    if frame.line is None:
        return {"name": frame.name}
    file = frame.line.place.rpartition(":")[0]
    return {"name": frame.name, "file": file, "line": frame.line.number}
