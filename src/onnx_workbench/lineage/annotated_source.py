"""Source code with columns in the margin, like the output of line_profiler."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ..formatting import Code, Table
from ..proto import grouped
from ..source import NO_SOURCES, Line, Sources, functions_in

_GAP = 4
"""The most lines with an empty margin that are shown between two lines with cells."""


def annotated(
    cells: Mapping[Line, Sequence[object]],
    header: Sequence[str],
    left: Collection[int] = (),
    sources: Sources = NO_SOURCES,
    below: Mapping[Line, Sequence[tuple[Sequence[object], Code]]] | None = None,
    wide: Collection[int] = (),
) -> Table:
    """Each line's cells, its number and its text, function by function.

    The lines between them and the ``def`` are shown too; long gaps are cut. If ``sources`` does not
    have the file, or it has changed, only the lines themselves are shown. ``left`` has the indices
    of left-aligned columns, ``below`` more rows for a line: cells and code. ``wide`` is
    :class:`Table`'s.

    >>> line = Line("/home/ada/model.py", 12, "forward", "return x.relu()")
    >>> annotated({line: ("3",)}, ("nodes",)).rows
    [('', '', 'model.py, in forward:'), ('3', '12', 'return x.relu()')]
    """
    blank = ("",) * len(header)
    rows: list[tuple[object, ...]] = []
    for title, shown in stretches(cells, sources):
        rows.append((*blank, "", f"{title}:"))
        for number, text, line in shown:
            rows.append((*(cells[line] if line else blank), str(number or ""), Code(text)))
            inner = (below or {}).get(line, ()) if line else ()
            rows += [(*more, "", code) for more, code in inner]
    return Table(rows, (*header, "line", "source"), {*range(len(header) + 1)} - {*left}, wide)


def stretches(
    lines: Iterable[Line], sources: Sources
) -> Iterator[tuple[str, list[tuple[int, str, Line | None]]]]:
    """Yield the title of each function, and its rows: (number, text, the line if it was passed).

    Functions are in the order in which their lines were passed, rows in the order of the file.
    """
    functions = grouped(((line.file, line.function), line) for line in lines)
    for (_, function), passed in functions.items():
        at = {line.number: line for line in sorted(passed, key=lambda line: line.number)}
        shown = [(n, text, at.get(n)) for n, text in _stretch(function, at, sources)]
        yield f"{passed[0].place.rpartition(':')[0]}, in {function}", shown


def _stretch(function: str, at: Mapping[int, Line], sources: Sources) -> list[tuple[int, str]]:
    """(number, text) of each line from the ``def`` to the last; a gap is (0, "...")."""
    source = sources.read([*at.values()])
    if not source:
        return [(number, line.text) for number, line in at.items()]
    spans = [s for s in functions_in("".join(source)) if s[2].rpartition(".")[2] == function]
    starts = {max((s[0] for s in spans if s[0] <= n <= s[1]), default=0) for n in at}
    texts = {n: source[n - 1].rstrip() for n in _filled(sorted({*at} | starts - {0}))}
    margin = min((len(t) - len(t.lstrip()) for t in texts.values() if t), default=0)
    rows: list[tuple[int, str]] = []
    for number, text in texts.items():
        if rows and number > rows[-1][0] + 1:
            rows.append((0, "..."))
        rows.append((number, text[margin:]))
    return rows


def _filled(numbers: Sequence[int]) -> list[int]:
    """Fill the short gaps."""
    filled = list(numbers[:1])
    for number in numbers[1:]:
        near = number - filled[-1] - 1 <= _GAP
        filled += range(filled[-1] + 1 if near else number, number + 1)
    return filled
