"""Source code with columns in its margin, as readers of line_profiler know it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from ..formatting import table
from ..source import NOTHING_MORE, Line, Sources

_GAP = 4
"""Lines without anything in the margin that are still shown between two that have something."""


def annotated(
    cells: Mapping[Line, Sequence[str]],
    header: Sequence[str],
    left: Collection[int] = (),
    sources: Sources = NOTHING_MORE,
    below: Mapping[Line, Sequence[tuple[Sequence[str], str]]] | None = None,
) -> str:
    """Each line's cells, its number and its text, function by function.

    Lines between them are shown too, and so is the ``def``; what lies far apart is cut. Where
    ``sources`` does not give the file, or it has changed since, the lines stand alone. Columns
    whose index is in ``left`` are flushed left. ``below`` has more rows for a line: cells and text.

    >>> line = Line("/home/ada/model.py", 12, "forward", "return x.relu()")
    >>> print(annotated({line: ("3",)}, ("nodes",)))
    nodes  line  source
    -----  ----  ---------------------
                 model.py, in forward:
        3    12  return x.relu()
    """
    blank = ("",) * len(header)
    rows: list[tuple[str, ...]] = []
    for title, shown in stretches(cells, sources):
        rows.append((*blank, "", f"{title}:"))
        for number, text, line in shown:
            rows.append((*(cells[line] if line else blank), str(number) if number else "", text))
            inner = (below or {}).get(line, ()) if line else ()
            rows += [(*more, "", words) for more, words in inner]
    return table(rows, (*header, "line", "source"), right={*range(len(header) + 1)} - {*left})


def stretches(
    lines: Iterable[Line], sources: Sources
) -> Iterator[tuple[str, list[tuple[int, str, Line | None]]]]:
    """Function by function its title, and (number, text, the line if it is among those passed)."""
    for (_, function), group in groupby(_sorted(lines), key=_home):
        found = list(group)
        at = {line.number: line for line in found}
        shown = [(n, text, at.get(n)) for n, text in _stretch(function, found, sources)]
        yield f"{_short(found[0])}, in {function}", shown


def _sorted(lines: Iterable[Line]) -> list[Line]:
    """Files and functions in the order of their first line as passed, lines by number."""
    order: dict[tuple[str, str], int] = {}
    unsorted = list(lines)
    for line in unsorted:
        order.setdefault(_home(line), len(order))
    return sorted(unsorted, key=lambda line: (order[_home(line)], line.number))


def _home(line: Line) -> tuple[str, str]:
    return line.file, line.function


def _short(line: Line) -> str:
    return line.place.rpartition(":")[0]


def _stretch(function: str, found: Sequence[Line], sources: Sources) -> list[tuple[int, str]]:
    """(number, text) from the ``def`` to the last line; a cut is (0, "...")."""
    texts = {line.number: line.text for line in found}
    source = sources.read(found)
    if not source:
        return sorted(texts.items())
    starts = {_definition(source, function, number) for number in texts}
    shown = [(n, source[n - 1].rstrip()) for n in _filled(sorted(texts.keys() | starts - {0}))]
    margin = min((_indent(text) for _, text in shown if text), default=0)
    return [(n, text[margin:] if n else "...") for n, text in _with_cuts(shown)]


def _definition(source: Sequence[str], function: str, number: int) -> int:
    """The number of the nearest ``def function`` above; 0 where there is none."""
    pattern = re.compile(rf"\s*(async\s+)?def\s+{re.escape(function)}\b")
    above = range(number - 1, 0, -1)
    return next((n for n in above if pattern.match(source[n - 1])), 0)


def _filled(numbers: Sequence[int]) -> list[int]:
    filled = list(numbers[:1])
    for number in numbers[1:]:
        if number - filled[-1] - 1 <= _GAP:
            filled += range(filled[-1] + 1, number)
        if number != filled[-1]:
            filled.append(number)
    return filled


def _with_cuts(shown: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    rows: list[tuple[int, str]] = []
    for number, text in shown:
        if rows and number > rows[-1][0] + 1:
            rows.append((0, ""))
        rows.append((number, text))
    return rows


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())
