"""Time as a flame graph: who calls whom, and how long it takes, as boxes within boxes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from .. import formatting
from ..lineage.attribution import Share
from ..proto import grouped
from ..source import Line, called_lines, is_user_file

_LEAST = 0.01
"""Share of the time from which a box is a row of the repr."""
_ROWS = 40
_WIDTH, _HEIGHT = 960, 22
_LETTER = 6.7  # width of a letter of the SVG's font
_SHADES = ("#FFF4DC", "#FFE3AE", "#FFCC80", "#FFB14E")
"""Pale to strong by share of the time: one hue, under dark text, on light and dark pages."""
_SHADE_FROM = (0.05, 0.2, 0.5)


@dataclass(frozen=True)
class FlameFrame:
    """One call on the way to a kernel; ``line`` is None for a module, a kernel, or without one."""

    name: str
    line: Line | None = None

    @classmethod
    def of(cls, line: Line) -> FlameFrame:
        return cls(f"{line.place}  {line.text}".rstrip(), line)


NO_LINE = FlameFrame("no line")


def stack_of(share: Share) -> tuple[FlameFrame, ...]:
    """The user's lines that led to a share of a kernel, outermost first, then the library's."""
    if share.line is None:
        return (NO_LINE,)
    own = [line for line in share.stack if is_user_file(line.file)]
    known = own[: own.index(share.line) + 1] if share.line in own else [share.line]
    return tuple(map(FlameFrame.of, (*known, *called_lines(share.stack))))


def modules_of(share: Share) -> tuple[FlameFrame, ...]:
    """The modules around a share of a kernel: ``blocks``, ``blocks.0``, ``blocks.0.conv``."""
    parts = share.module.split(".") if share.module else []
    return tuple(FlameFrame(".".join(parts[: n + 1])) for n in range(len(parts)))


@dataclass(frozen=True, repr=False)
class Flame:
    """A box: its ``seconds`` are those of its ``children`` and what it spends beside them.

    >>> a, b = FlameFrame("a"), FlameFrame("b")
    >>> flame = grown("run", [((a, b), 3e-6), ((a,), 1e-6)])
    >>> flame
       time    share
    -------  -------  -----
    4.00 us  100.0 %  run
    4.00 us  100.0 %    a
    3.00 us   75.0 %      b
    """

    name: str
    seconds: float
    line: Line | None = None
    children: tuple[Flame, ...] = ()

    def tree(self) -> dict[str, Any]:
        """Nested dicts of name, seconds, line and children; a line is its place, or None."""
        place = self.line.place if self.line else None
        children = [child.tree() for child in self.children]
        return {"name": self.name, "seconds": self.seconds, "line": place, "children": children}

    def svg(self) -> str:
        """An icicle: the whole on top, each box above what it calls, in the order of execution."""
        boxes = [*_boxes(self, 0.0, 0)]
        height = _HEIGHT * (1 + max(depth for _, _, depth in boxes))
        drawn = "".join(_drawn(box, start, depth, self.seconds) for box, start, depth in boxes)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
            f'aria-label="flame graph of {escape(self.name)}" style="width:100%;max-width:'
            f'{_WIDTH}px" font-family="ui-monospace, Menlo, Consolas, monospace" font-size="11">'
            f"{drawn}</svg>"
        )

    def __repr__(self) -> str:
        whole = self.seconds or 1.0
        boxes = [(box, depth) for box, _, depth in _boxes(self, 0.0, 0)]
        shown = [pair for pair in boxes if pair[0].seconds >= _LEAST * self.seconds][:_ROWS]
        rows = [(*_cost(box, whole), "  " * depth + box.name) for box, depth in shown]
        rest = len(boxes) - len(shown)
        more = [f"and {rest:,} more: see .tree()"] if rest else []
        return "\n".join([formatting.table(rows, ("time", "share", ""), right=(0, 1)), *more])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        picture = self.svg()
        return {"text/plain": repr(self), "image/svg+xml": picture, "text/html": picture}


def grown(name: str, paths: Iterable[tuple[Sequence[FlameFrame], float]]) -> Flame:
    """Add up the seconds of each path of frames; children are in the order of first appearance."""
    found = [(tuple(path), seconds) for path, seconds in paths]
    return _grown(FlameFrame(name), found)


def _grown(frame: FlameFrame, paths: Sequence[tuple[tuple[FlameFrame, ...], float]]) -> Flame:
    below = grouped((path[0], (path[1:], seconds)) for path, seconds in paths if path)
    children = tuple(_grown(first, rest) for first, rest in below.items())
    return Flame(frame.name, sum(seconds for _, seconds in paths), frame.line, children)


def _boxes(box: Flame, start: float, depth: int) -> Iterator[tuple[Flame, float, int]]:
    """Each box, the seconds before it, and how deep it lies."""
    yield box, start, depth
    for child in box.children:
        yield from _boxes(child, start, depth + 1)
        start += child.seconds


def _cost(box: Flame, whole: float) -> tuple[str, str]:
    return formatting.seconds(box.seconds), f"{100 * box.seconds / whole:.1f} %"


def _drawn(box: Flame, start: float, depth: int, whole: float) -> str:
    """A box with its name, cut to its width, and its time and share as its title."""
    part = box.seconds / whole if whole else 1.0
    x, width, y = _WIDTH * (start / whole if whole else 0.0), _WIDTH * part, _HEIGHT * depth
    room = int((width - 8) / _LETTER)
    label = box.name if len(box.name) <= room or box.line else box.name.rpartition(".")[2]
    if len(label) > room:
        label = f"{label[: room - 1]}…" if room > 5 else ""
    time, share = _cost(box, whole or 1.0)
    shade = _SHADES[sum(part >= least for least in _SHADE_FROM)]
    return (
        f"<g><title>{escape(f'{box.name}  {time}, {share}')}</title>"
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_HEIGHT}" fill="{shade}" '
        f'stroke="#6B5B3E" stroke-width="0.5"/>'
        f'<text x="{x + 4:.1f}" y="{y + 15}" fill="#1A1A1A">{escape(label)}</text></g>'
    )
