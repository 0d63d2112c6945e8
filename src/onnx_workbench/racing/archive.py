"""A race or a sweep as a file, and beside another race of the same environment."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any, TypeVar

import numpy as np

from .. import files
from ..errors import InputError, LoadError
from .lane import Lane, Run
from .report import Conditions, Race, reason
from .verdict import LEVEL, Ratio, from_logs

T = TypeVar("T")
_FORMAT = "onnx-workbench {} 2"


def save(kind: str, content: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write ``content`` as JSON that :func:`load` reads."""
    files.write(path, json.dumps({"format": _FORMAT.format(kind), **content}))


def load(kind: str, made: Callable[[dict[str, Any]], T], path: str | os.PathLike[str]) -> T:
    """What ``made`` makes of the content that :func:`save` wrote.

    Raises:
        InputError: there is no such file.
        LoadError: the file holds nothing of that kind, or was cut short or changed.
    """
    file = files.existing(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_number)
        if content["format"] != (wanted := _FORMAT.format(kind)):
            raise ValueError(f"its format is {content['format']!r}, and {wanted!r} is expected")
        return made(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise LoadError(
            f"{file.name} is no {kind}: {type(error).__name__}: {error}.",
            f"pass a file that {kind.title()}.save() wrote.",
        ) from error


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no measured number")


def plain(race: Race) -> dict[str, Any]:
    """A race as JSON holds it."""
    return {"conditions": asdict(race.conditions), "lanes": list(map(_plain, race.lanes))}


def raced(content: dict[str, Any]) -> Race:
    """The race of which this is :func:`plain`."""
    lanes = tuple(map(_lane, content["lanes"]))
    if not lanes:
        raise ValueError("it has no lanes")
    return Race(lanes, _as_declared(Conditions(**content["conditions"])))


def since(now: Race, then: Race) -> dict[str, Ratio]:
    """Contestants of both races, the time of then over the time of now."""
    _check_same(now, then)
    common = {lane.name: lane for lane in then.lanes if lane.ran and not lane.control}
    return {
        lane.name: welch(common[lane.name], lane, now.conditions.matters)
        for lane in now.lanes
        if lane.ran and not lane.control and lane.name in common
    }


def _check_same(now: Race, then: Race) -> None:
    one, other = _environment(now), _environment(then)
    different = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    if different:
        said = "; ".join(f"{key}: {one.get(key)} now, {other.get(key)} then" for key in different)
        raise InputError(
            f"The two races ran in different environments ({said}), so that their times say "
            "nothing about the contestants. Race both in one environment, or in one race."
        )
    if min(now.strata, then.strata) < 2:
        raise InputError(
            "One of the races has a single process for each contestant, and nothing to take an "
            "interval from. Race again without quick=True."
        )


def _environment(race: Race) -> dict[str, Any]:
    at = race.conditions
    told = {"cores": at.cores, "threads": at.threads, "how": at.how, "one core": at.one_core}
    return {**at.environment, **told}


def welch(then: Lane, now: Lane, matters: float) -> Ratio:
    """The time of then over the time of now, where their processes have nothing in common."""
    from scipy import stats

    one, other = (
        np.array([np.median(np.log(run.times)) for run in lane.runs]) for lane in (then, now)
    )
    test = stats.ttest_ind(one, other, equal_var=False)
    low, high = test.confidence_interval(LEVEL)
    return from_logs(
        float(one.mean() - other.mean()),
        *(float(low), float(high), matters),
        differs=float(test.pvalue) < 1 - LEVEL,
    )


def _plain(lane: Lane) -> dict[str, Any]:
    plain = {entry.name: getattr(lane, entry.name) for entry in fields(lane)}
    runs = [asdict(run) for run in lane.runs]
    return plain | {"runs": runs, "error": lane.error and reason(lane.error)}


def _lane(plain: dict[str, Any]) -> Lane:
    runs = tuple(map(_run, plain["runs"]))
    error = plain["error"] and RuntimeError(plain["error"])
    return _as_declared(Lane(**{**plain, "runs": runs, "error": error}))


def _run(plain: dict[str, Any]) -> Run:
    raw = {key: tuple(plain.get(key, ())) for key in ("blocks", "queued", "laps")}
    run = _as_declared(Run(**{**plain, **raw}))
    queued = run.queued or (0,) * len(run.blocks)
    pairs = list(zip(run.blocks, queued, strict=True))
    whole = all(type(number) is int for number in (*run.blocks, *queued, *run.laps))
    if not (pairs and whole and min(run.laps, default=1) > 0 and run.calls > 0):
        raise ValueError("the times of a run are whole numbers of nanoseconds, above 0")
    if not all(0 <= waited < block for block, waited in pairs):
        raise ValueError("a run waited longer than its block took")
    return run


def _as_declared(made: T) -> T:
    """The same, if each plain field has the type that its class declares, and none is below 0."""
    for entry in fields(made):  # type: ignore[arg-type]
        value, names = getattr(made, entry.name), str(entry.type).split(" | ")
        plain = [_PLAIN[name] for name in names if name in _PLAIN]
        number = isinstance(value, (int, float)) and not value >= 0
        texts = value.values() if isinstance(value, dict) else ()
        typed = (
            len(plain) < len(names)
            or type(value) in plain
            or (float, int)
            == (
                plain[0],
                type(value),
            )
        )
        if number or not typed or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{entry.name} is {value!r:.80}")
    return made


_PLAIN = {kind.__name__: kind for kind in (int, float, str, bool)} | {
    "None": type(None),
    "Panel": str,
    "dict[str, str]": dict,
}
