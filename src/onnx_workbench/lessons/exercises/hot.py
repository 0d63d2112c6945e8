"""05b: which line of the encoder takes the longest in ONNX Runtime, by a recorded profile?"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ... import formatting
from ...formatting import Code, Part, Percent, Report, Table
from ...source import Line
from ...timing.statistics import quartiles_of
from .. import transformer
from . import Hint, hint, is_line

ALIKE = 0.02
"""Shares of a run that differ by less are alike, however steady they are."""


@dataclass(frozen=True)
class Row:
    """A line: the seconds of each run in ONNX Runtime, its kernels, its seconds in PyTorch."""

    line: Line
    runs: tuple[float, ...]
    kernels: int
    torch: float

    @property
    def seconds(self) -> float:
        return float(np.median(self.runs))


@dataclass(frozen=True, repr=False)
class Profile(Report):
    """The lines of a profile, in the order of the source."""

    rows: tuple[Row, ...]

    @cached_property
    def shares(self) -> np.ndarray:
        """Each line's share of each run, ``float64[rows, runs]``: what slows down a whole run does
        not change them."""
        runs = np.array([row.runs for row in self.rows])
        return runs / runs.sum(0)

    def _parts(self) -> Iterator[Part]:
        runs = len(self.rows[0].runs)
        yield f"lessons.encoder(), {runs} runs; quartiles and share are of the time in kernels"
        header = ("ORT", "quartiles", "share", "kernels", "PyTorch", "line", "transformer.py")
        yield Table([*self._rows()], header, right=range(6))

    def _rows(self) -> Iterator[tuple[object, ...]]:
        for row, shares in zip(self.rows, self.shares, strict=True):
            low, share, high = quartiles_of(shares)
            yield (
                *(formatting.seconds(row.seconds), f"{low:.0%} to {high:.0%}", Percent(share)),
                *(str(row.kernels), formatting.seconds(row.torch), str(row.line.number)),
                Code(row.line.text),
            )


def given() -> Profile:
    """The profile of ``lessons.encoder()`` in ``hot.json``, of 25 runs.

    >>> given().rows[0].line
    transformer.py:30  query = self.split(self.query(words))
    """
    recorded = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
    source = inspect.getsource(transformer).splitlines()
    numbers = {text.strip(): number for number, text in enumerate(source, 1)}
    return Profile(
        tuple(
            Row(
                Line(transformer.__file__, numbers[text], "forward", text),
                tuple(1e-6 * run for run in row["ONNX Runtime us"]),
                row["kernels"],
                1e-6 * row["PyTorch us"],
            )
            for text, row in recorded.items()
        )
    )


def judge(answer: Any) -> Iterator[Hint]:
    yield from judged(answer, given())


def judged(answer: Any, profile: Profile) -> Iterator[Hint]:
    line, rows = getattr(answer, "line", answer), profile.rows
    if isinstance(line, bool) or not isinstance(line, Line | int | str):
        yield hint("kind", kind=formatting.kind_of(answer))
    line = line.place if isinstance(line, Line) else line
    index = next((i for i, row in enumerate(rows) if is_line(line, row.line)), None)
    if index is None:
        yield hint("silent", asked=repr(line))
        return
    medians = np.median(profile.shares, axis=1)
    low, gap, _ = quartiles_of(profile.shares[medians.argmax()] - profile.shares[index])
    if low <= 0 or gap < ALIKE:
        return
    text = f"{medians[index]:.0%} of the time in kernels, and another line takes more"
    if rows[index].torch == max(row.torch for row in rows):
        yield hint("torch", text=text)
    kernels = [row.kernels for row in rows]
    if rows[index].kernels == max(kernels) > min(kernels):
        yield hint("kernels", kernels=rows[index].kernels, text=text)
    yield hint("less", text=text)
