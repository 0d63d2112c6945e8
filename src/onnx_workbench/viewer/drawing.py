"""The picture for where no page lives: a diagram as an SVG that a person would want to look at.

GitHub, nbconvert and a notebook that is not running show it. It holds no script and no link,
every name is escaped, and the same model gives the same bytes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from statistics import fmean

from .diagram import Box, Diagram, layers
from .heat import Heat, ink
from .summary import plain

_MARGIN, _HEADER, _LINE, _PAD, _RAIL = 20, 24, 16, 10, 12
_FONT = "-apple-system,BlinkMacSystemFont,'Segoe UI',Ubuntu,'Noto Sans',Helvetica,Arial,sans-serif"
_INK, _SOFT, _PAPER = "#24292f", "#57606a", "#ffffff"
_NARROW, _WIDE = frozenset("iljtfrI.,:;'|!()[] "), frozenset("MWmw@%\u00d7\u2026")

# Netron's colors (grapher.css) by what is in an operator's name; the first that fits counts.
_COLORS = {
    r"Attention": "#783c00",
    r"uantizeLinear": "#502800",
    r"Pool|Roi": "#335533",
    r"Conv|Gemm|MatMul|Einsum|GRU|LSTM|RNN": "#335588",
    r"Norm|LRN|Gather|Transpose|queeze|Rotary": "#335544",
    r"[Ee]lu|Sigmoid|Tanh|Soft|Swish|Mish|Clip|Erf": "#702921",
    r"Dropout": "#454770",
    r"Reshape|Flatten|Tile|Shape|Size|Expand": "#6c4f47",
    r"Concat|Split|Slice|Pad|Where": "#59423b",
    r"": "#444c56",
}


@dataclass(frozen=True)
class Layout:
    """``centers`` of the boxes; ``bends`` are the points that each arrow passes on its way."""

    centers: list[tuple[float, float]]
    bends: list[list[tuple[float, float]]]
    width: float
    height: float


def draw(name: str, picture: Diagram, heat: Heat | None = None) -> str:
    """An SVG document: layered from top to bottom, shapes on the arrows, weights in the boxes.

    With ``heat`` each box has the color of its value, and the value inside.

    >>> svg = draw("half", Diagram([Box("Relu")], []))
    >>> svg[:4], "Relu" in svg
    ('<svg', True)
    """
    if heat:
        boxes = [replace(b, lines=(*b.lines, *_value(b, heat))) for b in picture.boxes]
        picture = Diagram(boxes, picture.arrows)
    spots = layout([_size(box) for box in picture.boxes], picture.arrows)
    title, (key, key_width, key_height) = plain(name), legend(heat) if heat else ("", 0, 0)
    width = max(spots.width, _wide(title, 11) + 40, key_width) + 2 * _MARGIN
    height = spots.height + 2 * _MARGIN + key_height
    drawn = [
        *_arrows(picture, spots),
        *(
            _box(box, center, heat)
            for box, center in zip(picture.boxes, spots.centers, strict=True)
        ),
        *(_label(box, center) for box, center in zip(picture.boxes, spots.centers, strict=True)),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'font-family="{_FONT}" font-size="11"><title>{escape(title)}</title>'
        f'<rect width="100%" height="100%" rx="8" fill="{_PAPER}"/>'
        f'<g transform="translate({(width - spots.width) / 2:.1f} {_MARGIN})">{"".join(drawn)}</g>'
        f'<g transform="translate({(width - key_width) / 2:.1f} '
        f'{height - key_height:.0f})">{key}</g></svg>'
    )


def beside(pictures: Sequence[str]) -> str:
    """Several pictures of :func:`draw` as one, from left to right."""
    width, height, parts = 0, 0, []
    for picture in pictures:
        wide, high = re.findall(r' (?:width|height)="(\d+)"', picture)[:2]
        parts.append(picture.replace("<svg ", f'<svg x="{width}" ', 1))
        width, height = width + int(wide), max(height, int(high))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><rect width="100%" height="100%" rx="8" '
        f'fill="{_PAPER}"/>{"".join(parts)}</svg>'
    )


def layout(
    sizes: Sequence[tuple[float, float]],
    edges: Sequence[tuple[int, int]],
    gap: tuple[float, float] = (28, 46),
) -> Layout:
    """Place boxes of ``sizes`` (width, height in pixels) in centered rows, one for each layer.

    A row is ordered by the mean place of what its boxes read. An edge over several layers runs down
    beside the rows that it passes. ``gap`` is the space between two boxes and between two rows.

    >>> chain = layout([(60, 20), (80, 20)], [(0, 1)])
    >>> chain.centers, chain.width, chain.height
    ([(40.0, 10.0), (40.0, 76.0)], 80.0, 86.0)
    """
    layer = layers(len(sizes), edges)
    rows: list[list[int]] = [[] for _ in range(1 + max(layer, default=-1))]
    for index, at in enumerate(layer):
        rows[at].append(index)
    reads = defaultdict(list)
    for tail, head in edges:
        reads[head].append(tail)
    x, y = [0.0] * len(sizes), [0.0] * len(sizes)
    extent, top = [], 0.0
    for row in rows:
        row.sort(key=lambda index: fmean([x[tail] for tail in reads[index]] or [0.0]))
        half = (sum(sizes[index][0] for index in row) + gap[0] * (len(row) - 1)) / 2
        height, left = max(sizes[index][1] for index in row), -half
        for index in row:
            x[index], y[index] = left + sizes[index][0] / 2, top + height / 2
            left += sizes[index][0] + gap[0]
        extent.append((half, top + height / 2))
        top += height + gap[1]
    bends: list[list[tuple[float, float]]] = []
    reach, rails = max((half for half, _ in extent), default=0.0), [0, 0]
    for tail, head in edges:
        passed = extent[layer[tail] + 1 : layer[head]]
        right = x[tail] + x[head] >= 0
        rail = max((half for half, _ in passed), default=0.0) + _RAIL * (rails[right] + 1)
        rails[right] += bool(passed)
        reach = max(reach, rail) if passed else reach
        bends.append([(rail if right else -rail, level) for _, level in passed])
    return Layout(
        [(reach + across, down) for across, down in zip(x, y, strict=True)],
        [[(reach + across, down) for across, down in bend] for bend in bends],
        2 * reach,
        max(0.0, top - gap[1]),
    )


def _value(box: Box, heat: Heat) -> list[tuple[str, str]]:
    label = heat.label(box.nodes)
    return [("", label)] if label else []


def _size(box: Box) -> tuple[float, float]:
    """Width and height; a label below the box counts as well, so that none covers another."""
    return max(_body_width(box), _wide(box.label, 10) + 12), _height(box)


def _height(box: Box) -> float:
    return _HEADER + (_LINE * len(box.lines) + 6 if box.lines else 0)


def _body_width(box: Box) -> float:
    lines = (_wide(f"{role} {shown}", 10.5) + 8 for role, shown in box.lines)
    return max(_wide(box.title, 12), *lines, 36) + 2 * _PAD


def _wide(text: str, size: float) -> float:
    """Width of a line in a sans-serif font of ``size`` pixels, on the generous side."""
    ems = sum(
        0.34 if char in _NARROW else 0.95 if char in _WIDE else 0.7 if char.isupper() else 0.58
        for char in text
    )
    return ems * size


def _text(x: float, y: float, text: str, fill: str = _INK, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}"{more}>{escape(text)}</text>'


def legend(heat: Heat) -> tuple[str, float, float]:
    """The SVG of the legend, its width and its height."""
    if heat.ends is None:
        rows = (
            f'<rect y="{18 * at}" width="11" height="11" rx="2" fill="{color}"/>'
            + _text(17, 18 * at + 9, words)
            for at, (color, words) in enumerate(heat.swatches)
        )
        return "".join(rows), 17 + max(_wide(words, 11) for _, words in heat.swatches), 50
    low, high = (plain(end, 40) for end in heat.ends)
    side, long = max(_wide(low, 11), _wide(high, 11)) + 6, 4 * len(heat.colors)
    bars = (
        f'<rect x="{side + 4 * at:.1f}" width="4.5" height="10" fill="{color}"/>'
        for at, color in enumerate(heat.colors)
    )
    left, right = (
        _text(side - 6, 9, low, more=' text-anchor="end"'),
        _text(side + long + 6, 9, high),
    )
    return "".join([*bars, left, right]), 2 * side + long, 32


def _box(box: Box, center: tuple[float, float], heat: Heat | None) -> str:
    (x, y), width, height = center, _body_width(box), _height(box)
    left, top = x - width / 2, y - height / 2
    frame = f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.0f}"'

    def title(fill: str) -> str:
        bold = ' font-size="12" font-weight="600" text-anchor="middle"'
        return _text(x, top + 16, box.title, fill, bold)

    if box.kind == "end":
        return f'{frame} rx="12" fill="#eaeef2" stroke="#d0d7de"/>{title(_INK)}'
    if box.kind == "gap":
        dashed = f'rx="5" fill="{_PAPER}" stroke="{_SOFT}" stroke-dasharray="4 4"'
        return f"{frame} {dashed}/>{title(_SOFT)}"
    usual = next(color for part, color in _COLORS.items() if re.search(part, box.title))
    color = heat.color(heat.hottest(box.nodes)) if heat else usual
    paper = f'{frame} rx="5" fill="{_PAPER if box.lines else color}" stroke="{color}"/>'
    bar = (
        f'<path d="M{left:.1f} {top + _HEADER:.1f}v{5 - _HEADER}q0-5 5-5h{width - 10:.1f}q5 0 5 5'
        f'v{_HEADER - 5}z" fill="{color}"/>'
    )
    rows = _rows(box, left + _PAD, top + _HEADER - 2)
    return "".join([paper, bar if box.lines else "", title(ink(color)), *rows])


def _rows(box: Box, left: float, y: float) -> Iterator[str]:
    for role, shown in box.lines:
        y += _LINE
        bold = f'<tspan font-weight="600" fill="{_INK}">{escape(role)}</tspan>  ' if role else ""
        yield (
            f'<text x="{left:.1f}" y="{y:.1f}" font-size="10.5" fill="{_SOFT}" '
            f'xml:space="preserve">{bold}{escape(shown)}</text>'
        )


def _label(box: Box, center: tuple[float, float]) -> str:
    """The shapes of a box's values, below it, on the arrows."""
    if not box.label or box.kind == "gap":
        return ""
    x, y, width = center[0], center[1] + _height(box) / 2 + 12, _wide(box.label, 10) + 8
    return (
        f'<rect x="{x - width / 2:.1f}" y="{y - 8:.1f}" width="{width:.1f}" '
        f'height="15" rx="4" fill="{_PAPER}"/>'
        + _text(x, y + 3.5, box.label, _SOFT, ' font-size="10" text-anchor="middle"')
    )


def _arrows(picture: Diagram, spots: Layout) -> Iterator[str]:
    """Those into one box end side by side, in the order in which they come."""
    into = defaultdict(list)
    for (tail, head), bends in zip(picture.arrows, spots.bends, strict=True):
        into[head].append(((bends or [spots.centers[tail]])[-1][0], tail, bends))
    for head, comes in into.items():
        (to_x, to_y), box = spots.centers[head], picture.boxes[head]
        step = min(16.0, _body_width(box) / (len(comes) + 1))
        for port, (_, tail, bends) in enumerate(sorted(comes)):
            (x, y), under = spots.centers[tail], _height(picture.boxes[tail]) / 2
            end = to_x + (port - (len(comes) - 1) / 2) * step, to_y - _height(box) / 2 - 6
            yield _curve((x, y + under), [*bends, end])


def _curve(start: tuple[float, float], targets: Sequence[tuple[float, float]]) -> str:
    """Straight down out of the tail, past the bends, and straight down into the head."""
    x, y = start
    path = [f"M{x:.1f} {y:.1f}v20"]
    y += 20
    for to_x, to_y in targets:
        middle = (y + to_y) / 2
        path.append(f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    tip = f'<path d="M{x - 3.5:.1f} {y:.1f}h7l-3.5 6z" fill="{_SOFT}"/>'
    return f'<path d="{"".join(path)}" fill="none" stroke="{_SOFT}"/>{tip}'
