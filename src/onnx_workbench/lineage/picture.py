"""One line of the source followed to its kernels, for places that cannot run a page.

The picture and the table hold no times, so the same model gives the same text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

from ..formatting import plural, seconds
from ..proto import grouped
from ..source import Line, without_folders
from ..viewer.summary import one_line
from .sheet import BYTECODE, FX, KERNEL, ONNX, SOURCE

Sheet = Mapping[str, Any]

_COLUMNS = {  # floor -> title, noun, color; place and title tell the floors apart too
    BYTECODE: ("Python bytecode", "instruction", "#8a5a00"),
    FX: ("FX nodes", "FX node", "#0072b2"),
    ONNX: ("ONNX nodes", "ONNX node", "#00765a"),
    KERNEL: ("ONNX Runtime kernels", "kernel", "#b34700"),
}
_INK, _QUIET, _PAPER, _SHADE, _EDGE = "#1f2328", "#59636e", "#ffffff", "#f6f8fa", "#d0d7de"
_LIT, _LIT_EDGE = "#fff1c2", "#c99a1e"
_SANS = "-apple-system,BlinkMacSystemFont,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif"
_MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
_CHAR = 7.3  # pixels of a character at 12 pixels, on the generous side
_WIDTH, _MARGIN, _GAP, _TOP = 980, 24, 46, 186
_LINE, _PAD, _SPACE = 16, 7, 8
_MOST_BOXES, _MOST_INSTRUCTIONS = 4, 10


@dataclass
class _Box:
    lines: list[str]
    rows: set[int]
    top: float = 0

    @property
    def height(self) -> float:
        return _LINE * len(self.lines) + 2 * _PAD

    @property
    def middle(self) -> float:
        return self.top + self.height / 2


def best_line(sheet: Sheet) -> int:
    """The source row whose chain tells most; -1 where there is none.

    It reaches most floors, and most ONNX nodes of it converge in one kernel.
    """
    chains = _chains(sheet)

    def tells(row: int) -> tuple[int, int, int]:
        floors = sum(
            any(link[floor] >= 0 for link in chains[row]) for floor in range(len(sheet["floors"]))
        )
        nodes, kernels = len(_rows_on(chains[row], ONNX)), len(_rows_on(chains[row], KERNEL))
        return floors, nodes - kernels if kernels else 0, -row

    return max(chains, key=tells, default=-1)


def row_of(sheet: Sheet, line: Line) -> int | None:
    """The source row of a line, which has its number and its text without folders."""
    wanted = str(line.number), without_folders(line.text)
    rows = enumerate(sheet["floors"][SOURCE]["rows"])
    return max((at for at, row in rows if (row["m"], row["t"].strip()) == wanted), default=None)


def _chains(sheet: Sheet) -> dict[int, list[Sequence[int]]]:
    """The links of each of the user's lines, without those of a library."""
    rows = sheet["floors"][SOURCE]["rows"]
    links = ((link[SOURCE], link) for link in sheet["links"])
    return grouped((row, link) for row, link in links if row >= 0 and not rows[row].get("d"))


def svg(sheet: Sheet, row: int | None = None, times: bool = False) -> str:
    """The chain of one source row, else of :func:`best_line`, as an SVG document.

    The boxes of a floor stand below each other; nodes that one kernel runs have arrows into it.
    With ``times``, each kernel has its seconds a run.
    """
    row = best_line(sheet) if row is None else row
    links = [link for link in sheet["links"] if link[SOURCE] == row >= 0]
    columns = {floor: _boxes(sheet, floor, links) for floor in _COLUMNS}
    for box in columns[KERNEL] if times else ():
        spent = [sheet["floors"][KERNEL]["rows"][at].get("s", 0.0) for at in box.rows]
        box.lines.append(seconds(sum(spent)))
    columns = {floor: boxes for floor, boxes in columns.items() if boxes}
    high = max(map(_stacked, columns.values()), default=0)
    for boxes in columns.values():
        top = _TOP + (high - _stacked(boxes)) / 2
        for box in boxes:
            box.top, top = top, top + box.height + _SPACE
    wide = (_WIDTH - 2 * _MARGIN - _GAP * (len(columns) - 1)) / max(1, len(columns))
    lefts = {floor: _MARGIN + at * (wide + _GAP) for at, floor in enumerate(columns)}
    height, found = round(_TOP + high + _MARGIN), _counts(links)
    parts = [
        _text(_MARGIN, 34, "Follow one line of PyTorch", 17, weight=700),
        _text(_MARGIN, 56, f"to the kernel that runs it: {found}", 13, _QUIET),
        _text(_WIDTH - _MARGIN, 34, one_line(sheet["title"]), 13, _QUIET, anchor="end"),
        *_source(sheet["floors"][SOURCE]["rows"], row),
        *_arrows(columns, lefts, wide, links),
        *(part for floor in columns for part in _column(floor, columns[floor], lefts[floor], wide)),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="{_SANS}">'
        f"<title>{escape(one_line(sheet['title']))}: {found}</title>"
        f'<rect x=".5" y=".5" width="{_WIDTH - 1}" height="{height - 1}" rx="8" fill="{_PAPER}" '
        f'stroke="{_EDGE}"/>{"".join(parts)}</svg>'
    )


def _rows_on(links: Sequence[Sequence[int]], floor: int) -> list[int]:
    """The rows of a floor, each once, in their order."""
    return sorted({link[floor] for link in links} - {-1})


def _box_lines(row: Mapping[str, Any]) -> list[str]:
    """The operator of a node and its name, unless the name begins with it: relu_1."""
    name, operator = row["t"].strip(), row.get("m", "")
    return [name] if name.startswith(operator) else [operator, name]


def _cut(words: str, most: int) -> str:
    words = one_line(words, 1000)
    return words if len(words) <= most else f"{words[: most - 1]}…"


def _counts(links: Sequence[Sequence[int]]) -> str:
    found = {noun: len(_rows_on(links, floor)) for floor, (_, noun, _) in _COLUMNS.items()}
    return ", ".join(plural(count, noun) for noun, count in found.items() if count) or "no node"


def _boxes(sheet: Sheet, floor: int, links: Sequence[Sequence[int]]) -> list[_Box]:
    rows, lit = sheet["floors"][floor]["rows"], _rows_on(links, floor)
    if floor == BYTECODE:  # one box, with an instruction in each line
        codes = [rows[at]["t"].strip() for at in lit]
        cut = [*codes[: _MOST_INSTRUCTIONS - 1], f"and {len(codes) - _MOST_INSTRUCTIONS + 1} more"]
        return [_Box(codes if len(codes) <= _MOST_INSTRUCTIONS else cut, set(lit))] if lit else []
    shown = lit if len(lit) <= _MOST_BOXES else lit[: _MOST_BOXES - 1]
    boxes = [_Box(_box_lines(rows[at]), {at}) for at in shown]
    rest = set(lit) - set(shown)
    return [*boxes, _Box([f"and {len(rest)} more"], rest)] if rest else boxes


def _stacked(boxes: Sequence[_Box]) -> float:
    return sum(box.height + _SPACE for box in boxes) - _SPACE


def _source(rows: Sequence[Mapping[str, Any]], lit: int) -> Iterator[str]:
    """The line between its neighbors."""
    own = [at for at, row in enumerate(rows) if at == lit or (row.get("m") and not row.get("d"))]
    place = own.index(lit) if lit >= 0 else -2
    near = own[max(0, place - 1) : max(0, place + 2)]
    yield _rect(_MARGIN, 72, _WIDTH - 2 * _MARGIN, 22 * len(near) + 6, _SHADE, "none")
    for turn, at in enumerate(near):
        y = 75 + 22 * turn
        if at == lit:
            yield _rect(_MARGIN, y, _WIDTH - 2 * _MARGIN, 22, _LIT, _LIT_EDGE)
        number, shown = rows[at].get("m", ""), _cut(rows[at]["t"].rstrip(), 115)
        yield _text(_MARGIN + 38, y + 15.5, number, 12, _QUIET, mono=True, anchor="end")
        yield _text(_MARGIN + 52, y + 15.5, shown, 12, mono=True, weight=600 if at == lit else 400)


def _column(floor: int, boxes: Sequence[_Box], left: float, wide: float) -> Iterator[str]:
    title, _, color = _COLUMNS[floor]
    yield _text(left, _TOP - 12, title, 13, color, weight=700)
    fits = int((wide - 20) / _CHAR)
    for box in boxes:
        yield _rect(left, box.top, wide, box.height, _PAPER, color)
        for place, line in enumerate(box.lines):
            bold = len(box.lines) == 2 and place == 0 and floor != BYTECODE
            y = box.top + _PAD + 12 + _LINE * place
            yield _text(left + 10, y, _cut(line, fits), 12, mono=True, weight=700 if bold else 400)


def _arrows(
    columns: Mapping[int, Sequence[_Box]],
    lefts: Mapping[int, float],
    wide: float,
    links: Sequence[Sequence[int]],
) -> Iterator[str]:
    for left, right in pairwise(columns):
        pairs = {
            (a, b)
            for link in links
            for a, box in enumerate(columns[left])
            for b, other in enumerate(columns[right])
            if link[left] in box.rows and link[right] in other.rows
        }
        for a, b in sorted(pairs):
            (x, y), (to_x, to_y) = (
                (lefts[left] + wide, columns[left][a].middle),
                (lefts[right] - 7, columns[right][b].middle),
            )
            middle = (x + to_x) / 2
            yield (
                f'<path d="M{x:.1f} {y:.1f}C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} '
                f'{to_x:.1f} {to_y:.1f}" fill="none" stroke="{_QUIET}" stroke-width="1.5"/>'
                f'<path d="M{to_x:.1f} {to_y - 4:.1f}v8l6-4z" fill="{_QUIET}"/>'
            )


def _rect(x: float, y: float, wide: float, high: float, fill: str, stroke: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" rx="5" '
        f'fill="{fill}" stroke="{stroke}" stroke-width="1.3"/>'
    )


def _text(
    x: float,
    y: float,
    words: str,
    size: float,
    fill: str = _INK,
    *,
    mono: bool = False,
    weight: int = 400,
    anchor: str = "start",
) -> str:
    font = f' font-family="{_MONO}" xml:space="preserve"' if mono else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
        f'text-anchor="{anchor}"{font}>{escape(words)}</text>'
    )
