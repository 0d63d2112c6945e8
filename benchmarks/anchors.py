"""How the field compares two callables: each protocol gives the time of one over the other.

torch's Timer is called. The others are written down here after their sources, with their defaults,
since they come with no wheel, need a GPU, or take a session of their own and round to 10 us.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from statistics import fmean, median
from time import perf_counter

from scipy import stats
from torch.utils.benchmark import Timer

Run = Callable[[], object]
Said = tuple[float, bool | None]
"""The ratio, and whether the protocol calls it a difference; None where it has no such word."""


def blocked_autorange(one: Run, other: Run) -> Said:
    """``torch.utils.benchmark.Timer.blocked_autorange()``: the median of 0.2 s."""
    return _timer(one).blocked_autorange().median / _timer(other).blocked_autorange().median, None


def adaptive_autorange(one: Run, other: Run) -> Said:
    """``torch.utils.benchmark.Timer.adaptive_autorange()``: until the quartiles are within 10 %."""
    return _timer(one).adaptive_autorange().median / _timer(other).adaptive_autorange().median, None


def do_bench(one: Run, other: Run) -> Said:
    """``triton.testing.do_bench``: 25 ms to warm up, the mean of 100 ms, without its flush of a
    GPU's cache."""
    return _do_bench(one) / _do_bench(other), None


def speedup_experiment(one: Run, other: Run) -> Said:
    """pytorch's ``benchmarks/dynamo/common.py``: medians of 30 pairs, "SAME" from p = 0.1 on."""
    one(), other()
    pairs = [(_once(one), _once(other)) for _ in range(30)]
    ours, theirs = zip(*pairs, strict=True)
    return median(ours) / median(theirs), bool(stats.ttest_ind(ours, theirs).pvalue <= 0.1)


def inference_ort(one: Run, other: Run) -> Said:
    """``onnxruntime.transformers.benchmark_helper``: the mean of 100 calls after a dry run."""
    return _inference_ort(one) / _inference_ort(other), None


ANCHORS: dict[str, Callable[[Run, Run], Said]] = {
    "torch Timer, blocked_autorange": blocked_autorange,
    "torch Timer, adaptive_autorange": adaptive_autorange,
    "triton-style do_bench": do_bench,
    "dynamo speedup_experiment": speedup_experiment,
    "onnxruntime benchmark loop": inference_ort,
}


def _timer(run: Run) -> Timer:
    return Timer("run()", globals={"run": run}, num_threads=1)


def _do_bench(run: Run, warmup: float = 25e-3, rep: float = 100e-3) -> float:
    run()
    estimate = fmean(_once(run) for _ in range(5))
    for _ in range(max(1, int(warmup / estimate))):
        run()
    return fmean(_once(run) for _ in range(max(1, int(rep / estimate))))


def _inference_ort(run: Run) -> float:
    run()
    return fmean(timeit.repeat(run, number=1, repeat=100))


def _once(run: Run) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start
