"""05c: which line of the encoder takes the longest in ONNX Runtime?"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import artifact
from ...formatting import plural
from ...lines import hotspots
from ...lines.hotspots import Spot
from ...source import Line
from ...timing.statistics import quartiles_of
from ..task import Exercise
from ..transformer import encoder

SECONDS = 1.0
ALIKE = 0.02
"""Shares of a run that lie no further apart are alike, whatever the noise says."""


def measured() -> tuple[Spot, ...]:
    """The lines that ONNX Runtime runs, from a profile made for the purpose."""
    small = encoder()
    with tempfile.TemporaryDirectory() as folder:
        file = artifact.export(small.model, small.inputs, Path(folder) / "encoder.onnx")
        spots = hotspots.profile(file, small.inputs, seconds=SECONDS).spots
    return tuple(spot for spot in spots if spot.line and spot.runs)


def judge(answer: Any) -> str | None:
    asked = getattr(answer, "line", answer)
    if isinstance(asked, bool) or not isinstance(asked, Line | int | str):
        return (
            f"A line is asked for, and this is a {type(answer).__name__}. Answer with its text, "
            "its place such as 'transformer.py:12', or its number."
        )
    spots = measured()
    mine = [spot for spot in spots if _is(spot.line, asked)]
    if not mine:
        return (
            f"ONNX Runtime runs no kernel for {asked!r}. Copy a line of the encoder from the "
            "report of ow.profile(): its text, its place or its number."
        )
    return _misjudged(mine[0], spots)


def _is(line: Line | None, asked: Line | int | str) -> bool:
    if line is None or isinstance(asked, Line):
        return line == asked
    return str(asked).strip() in (line.text, line.place, str(line.number))


def _misjudged(mine: Spot, spots: Sequence[Spot]) -> str | None:
    _, typical, high = shares(mine, spots)
    top = max((shares(spot, spots) for spot in spots), key=lambda quartiles: quartiles[1])
    if high >= top[0] or top[1] - typical < ALIKE:
        return None
    told = f"{100 * typical:.0f} % of the time in kernels, and another line takes more"
    if mine.torch == max(spot.torch or 0.0 for spot in spots):
        return (
            f"PyTorch spends the longest on that line. In ONNX Runtime it takes {told}: read the "
            "column ORT."
        )
    if len(mine.kernels) == max(len(spot.kernels) for spot in spots):
        return (
            f"No line has more kernels, {plural(len(mine.kernels), 'kernel')}, and they are short: "
            f"together {told}. Count the time, not the kernels."
        )
    return f"That line takes {told}. Look down the column `share` of the report."


def shares(spot: Spot, spots: Sequence[Spot]) -> tuple[float, float, float]:
    """The quartiles of a line's share of each run: what slows a whole run does not move it."""
    runs = zip(*(other.runs for other in spots), strict=True)
    return quartiles_of([own / sum(run) for own, run in zip(spot.runs, runs, strict=True)])


EXERCISE = Exercise(
    number="05c",
    title="Which line first?",
    text=(
        "You have an afternoon to make the encoder faster in ONNX Runtime "
        "(`encoder = lessons.encoder()`, then `ow.export(encoder.model, encoder.inputs, path)`)."
        "\n\n**Which line would you rewrite first?** Answer with the line that takes the longest "
        "there: its text, its place such as `'transformer.py:12'`, or its number. It is checked "
        "against a new profile."
    ),
    start="Begin with ow.profile(): pass the exported encoder and `encoder.inputs`.",
    judge=judge,
    source="""
        import onnx_workbench as ow

        encoder = ow.lessons.encoder()
        file = ow.export(encoder.model, encoder.inputs, "encoder.onnx")
        answer = ow.profile(file, encoder.inputs).hottest.line
        """,
)
