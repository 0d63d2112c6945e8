"""The runs that a profile is made of. Without torch: a file is run in a process that has none."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import onnx

from .. import progress
from ..errors import LoadError
from ..ort import call_of
from ..proto import node_refs
from ..runs import profiler
from ..runs.profiler import Cost, Recorder, Recording, calm, timed
from . import kernels

if TYPE_CHECKING:
    import onnxruntime

BLOCK = 4
"""Runs in a row. The first of them finds caches full of the others' data, and does not count."""
LEAST, MOST = 2, 25
"""Blocks that count whatever they take, and that are enough however short they are; one more comes
before them to warm up."""


def recorded(
    path: Path,
    model: onnx.ModelProto,
    provider: str,
    feeds: Mapping[str, Any],
    level: str,
    threads: int,
    seconds: float,
    lap: Callable[[], None] | None = None,
) -> tuple[Recording, list[float], dict[str, float]]:
    """The kernels; seconds of whole runs without the profiler; and where kernels are fused, the
    seconds of each exported node alone."""
    with profiler.recorder(path, model, provider) as recorder:
        recording, plain = _record(recorder, level, threads, feeds, seconds, lap)
        fused = _any_fused(kernels.matches(recording.kernels, node_refs(model)))
        alone = _unfused(recorder, threads, feeds, recording.cost) if fused else {}
    return recording, plain, alone


def _record(
    recorder: Recorder,
    level: str,
    threads: int,
    feeds: Mapping[str, Any],
    seconds: float,
    lap: Callable[[], None] | None,
) -> tuple[Recording, list[float]]:
    """Blocks with the profiler, without it, and in PyTorch, in turn, so that drift meets all."""
    profiled = recorder.open(level, threads, profiled=True)  # first: this takes the most memory
    quiet = recorder.open(level, threads, profiled=False)
    plain: list[float] = []
    end = perf_counter() + seconds
    alone, watched = call_of(quiet, feeds), call_of(profiled, feeds)
    with _profiling(profiled), progress.bar(total=MOST + 1, desc="profile", delay=2) as bar:
        while not _enough(len(plain) // BLOCK - 1, end):
            plain += [timed(alone) for _ in range(BLOCK)]
            for _ in range(BLOCK):
                watched()
            if lap:
                for _ in range(BLOCK):
                    lap()
            bar.update()
    plain = [run for index, run in enumerate(plain) if counts(index)]
    recording = recorder.close(profiled, level, counts)
    least = typical(plain) - profiler.idle(recorder.provider, threads)
    return recording.less(recording.cost_beside(least)), plain


@contextmanager
def _profiling(session: onnxruntime.InferenceSession) -> Iterator[None]:
    """Whatever stops the runs, the profile's file is closed, so that its folder can go."""
    try:
        yield
    except BaseException:
        session.end_profiling()
        raise


def counts(run: int) -> bool:
    """Not those of the first block, and not the first of any."""
    return run >= BLOCK and run % BLOCK > 0


def _enough(blocks: int, end: float) -> bool:
    return blocks >= MOST or (blocks >= LEAST and perf_counter() > end)


def _unfused(
    recorder: Recorder, threads: int, feeds: Mapping[str, Any], cost: Cost
) -> dict[str, float]:
    """Exported node -> seconds a run where nothing is fused; empty where that cannot run."""
    try:
        session = recorder.open("off", threads, profiled=True)
    except LoadError:
        return {}
    call = call_of(session, feeds)
    with _profiling(session):
        for _ in range(2 * BLOCK):
            call()
    found = recorder.close(session, "off", counts).less(cost)
    return {kernel.name: found.typical(kernel.seconds) for kernel in found.kernels}


def typical(runs: Sequence[float]) -> float:
    return statistics.fmean(runs[run] for run in calm(runs))


def _any_fused(matches: Mapping[str, kernels.Match]) -> bool:
    return any(len(match.nodes) > 1 for match in matches.values())
