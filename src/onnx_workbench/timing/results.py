"""Raw results of a race: nanoseconds by process, the conditions, and how they are saved."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, Self, get_args, get_type_hints

import numpy as np

from .. import files
from ..errors import LoadError
from .bench import Started
from .statistics import quartiles_of

_FORMAT = "onnx-workbench {} 4"


class Saved:
    """Mixin for a dataclass that can be saved in a file."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as JSON, with every block and the environment, and return the path."""
        content = asdict(self)  # type: ignore[call-overload]
        head = {"format": _FORMAT.format(type(self).__name__), "digest": _digest(content)}
        return files.write(path, json.dumps(head | content))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Load a file that :meth:`save` wrote.

        Raises:
            InputError: there is no such file.
            LoadError: the file is of another kind, truncated or changed.
        """
        file, wanted = files.existing(path), _FORMAT.format(cls.__name__)
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if (given := content.pop("format")) != wanted:
                raise ValueError(f"its format is {given!r:.80}, but {wanted!r} is expected")
            if content.pop("digest") != _digest(content):
                raise ValueError("it was changed after it was saved")
            return _built(cls, content)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
            raise LoadError(
                f"{file.name} is not a saved {cls.__name__}: {type(error).__name__}: {error}.",
                f"Pass a file that {cls.__name__}.save() wrote.",
            ) from error


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _built(kind: Any, value: Any) -> Any:
    """Convert a value of JSON to the type of an annotation.

    >>> _built(tuple[int, ...], [1, 2]), _built(dict[int, str], {"1": "a"})
    ((1, 2), {1: 'a'})
    """
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _built(hints[name], item) for name, item in value.items()})  # type: ignore[operator]
    inner = get_args(kind)
    if isinstance(value, list):
        return tuple(_built(inner[0], item) for item in value)
    if isinstance(value, dict):
        return {inner[0](key): _built(inner[1], item) for key, item in value.items()}
    return value


@dataclass(frozen=True)
class Replicate:
    """One process of a target.

    Args:
        blocks: nanoseconds of each block; block ``i`` ran in round ``i`` of this replicate.
        queued: the part of each in which other processes had the core, if the system reports it.
        laps: nanoseconds of calls timed one by one, after the rounds.

    >>> Replicate((4000, 6000), started=Started(calls=2)).times.tolist()
    [2e-06, 3e-06]
    """

    blocks: tuple[int, ...]
    queued: tuple[int, ...] = ()
    laps: tuple[int, ...] = ()
    started: Started = field(default_factory=Started)

    @cached_property
    def times(self) -> np.ndarray:
        """Seconds per call, without the time that it waited for the core: ``float64[rounds]``."""
        return np.subtract(self.blocks, self.queued or 0) / self.started.calls / 1e9


@dataclass(frozen=True)
class Result:
    """One target, with a Replicate for each fresh start.

    Args:
        unbound: the target that makes the same call without IOBinding, if the race has one.
        control: True for the copy of the baseline, which checks the race and counts as part of it.
        error: why this target failed, or empty.
    """

    name: str
    replicates: tuple[Replicate, ...] = ()
    unbound: str = ""
    control: bool = False
    error: str = ""

    @property
    def ran(self) -> bool:
        return bool(self.replicates)

    @property
    def started(self) -> Started:
        """What is timed, the threads and the mode, which are the same in every process."""
        return self.replicates[0].started if self.ran else Started()

    @property
    def rounds(self) -> list[np.ndarray]:
        """Seconds per call, one array a replicate, one number a round."""
        return [one.times for one in self.replicates]

    @property
    def times(self) -> np.ndarray:
        """Seconds per call of every block of every replicate."""
        return np.concatenate([np.empty(0), *self.rounds])

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of the seconds per call, over blocks."""
        return quartiles_of(self.times)

    @property
    def median(self) -> float:
        return self.quartiles[1]

    def percentile(self, percent: float) -> float:
        """A percentile of the seconds of single calls."""
        laps = [lap / 1e9 for one in self.replicates for lap in one.laps]
        return float(np.percentile(laps or self.times, percent))

    @property
    def startup(self) -> dict[str, float]:
        """Seconds of import, load and first call: medians over replicates."""
        every = [one.started for one in self.replicates]
        return {
            "import": median(one.imported for one in every),
            "load": median(one.load for one in every),
            "first call": median(one.first for one in every),
        }

    @property
    def peak(self) -> int | None:
        """Peak memory until a process was warm, in bytes: the median over replicates."""
        peaks = [one.started.peak for one in self.replicates if one.started.peak is not None]
        return int(median(peaks)) if peaks else None


@dataclass(frozen=True)
class Conditions:
    """The conditions of a race.

    Args:
        environment: the machine and the versions; only races with equal ones are compared.
        load: how many cores other processes kept busy at the start; None for one thread.
        seconds, took: the budget, and the time that the race took.
        workers: each target ran in fresh processes; else in this process, because ``why``.
        one_core: all workers of a replicate were pinned to the same core.
        stopped: why the race ended.
    """

    environment: dict[str, str] = field(default_factory=dict)
    threads: int = 1
    cores: int = 1
    load: float | None = None
    seconds: float = 25.0
    took: float = 0.0
    matters: float = 0.03
    seed: int = 0
    workers: bool = True
    why: str = ""
    one_core: bool = False
    stopped: str = ""
    interrupted: bool = False

    @property
    def contended(self) -> bool:
        """Whether several threads raced on too few free cores.

        With one thread, a busy core slows all targets alike.
        """
        return self.threads > 1 and self.threads + (self.load or 0.0) > self.cores + 0.5
