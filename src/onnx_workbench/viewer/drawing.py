"""A diagram as an SVG picture, for places that cannot run a page.

GitHub, nbconvert and a notebook without a kernel show it. It has no scripts, every name is escaped,
and the same model gives the same bytes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from statistics import fmean

from .diagram import Box, Diagram, layers
from .heat import Heat, ink
from .summary import one_line

_MARGIN, _HEADER, _LINE, _RAIL = 20, 24, 16, 12
FONT = "-apple-system,BlinkMacSystemFont,'Segoe UI',Ubuntu,'Noto Sans',Helvetica,Arial,sans-serif"
_INK, _SOFT, _PAPER = "#24292f", "#57606a", "#ffffff"

# Netron's colors (grapher.css) of the categories of its manual (onnx-metadata.json).
_CATEGORIES = {
    "#335588": "Conv ConvInteger ConvTranspose FusedConv GRU Gemm LSTM RNN",
    "#702921": "Clip Elu HardSigmoid HardSwish LeakyRelu LogSoftmax PRelu QuickGelu Relu Selu "
    "Sigmoid Softmax Softplus Softsign Tanh ThresholdedRelu",
    "#335533": "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool MaxRoiPool",
    "#335544": "BatchNormalization InstanceNormalization LRN LayerNormalization LpNormalization "
    "SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization "
    "Gather RotaryEmbedding Squeeze Transpose Unsqueeze",
    "#454770": "Dropout",
    "#6c4f47": "Flatten Reshape Tile",
    "#59423b": "Concat Pad Slice Split",
    "#555555": "Crop ImageScaler Upsample",
    "#eeeeee": "Constant",
    "#783c00": "Attention DecoderAttention DecoderMaskedMultiHeadAttention "
    "DecoderMaskedSelfAttention GroupQueryAttention LongformerAttention MultiHeadAttention "
    "PackedAttention PackedMultiHeadAttention QAttention QOrderedAttention "
    "QOrderedLongformerAttention SparseAttention",
}
COLORS = {op: color for color, ops in _CATEGORIES.items() for op in ops.split()}
OTHER = "#333333"
"""The color of an operator without a category."""


Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """``centers`` of the boxes, around an axis at x = 0, and ``bends``, the points that each arrow
    passes. Nothing is further than ``reach`` from the axis."""

    centers: list[Point]
    bends: list[list[Point]]
    reach: float
    height: float


def draw(
    name: str, picture: Diagram, heat: Heat | None = None, rows: Mapping[str, int] | None = None
) -> str:
    """An SVG document, layered from top to bottom, with shapes on the arrows and weights in boxes.

    With ``heat``, each box has the color of its value, and the value inside. With ``rows``, numbers
    of nodes in a list beside the picture, each box is a link that has the numbers of its nodes.

    >>> svg = draw("half", Diagram([Box("Relu")], []))
    >>> svg[:4], "Relu" in svg
    ('<svg', True)
    """
    boxes, title = picture.boxes, one_line(name)
    if heat:
        boxes = [replace(b, lines=(*b.lines, ("", heat.label(b.nodes)))) for b in boxes]
    sizes = [(max(_width(box), _wide(box.label, 10) + 12), _height(box)) for box in boxes]
    spots = layout(sizes, picture.arrows)
    key, key_width, key_height = legend(heat) if heat else ("", 0, 0)
    width = round(max(2 * spots.reach, _wide(title, 11) + 40, key_width) + 2 * _MARGIN)
    height = round(spots.height + 2 * _MARGIN + key_height)
    placed = list(zip(boxes, spots.centers, strict=True))
    drawn = [
        *_arrows(boxes, picture.arrows, spots),
        *(_linked(box, _box(box, center, heat), rows or {}) for box, center in placed),
        *(_label(box, center) for box, center in placed if box.label and box.kind != "gap"),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="{"group" if rows else "img"}" '
        f'width="{width}" height="{height}" '
        f'viewBox="{-width / 2} {-_MARGIN} {width} {height}" font-family="{FONT}" font-size="11">'
        f'<title>{escape(title)}</title><rect x="{-width / 2}" y="{-_MARGIN}" width="100%" '
        f'height="100%" rx="8" fill="{_PAPER}"/>{"".join(drawn)}'
        f'<g transform="translate({-key_width / 2:.1f} {spots.height + _MARGIN:.0f})">{key}</g>'
        "</svg>"
    )


def beside(pictures: Sequence[str]) -> str:
    """Several pictures of :func:`draw` as one, from left to right."""
    width, height, parts = 0, 0, []
    for picture in pictures:
        wide, high = size_of(picture)
        parts.append(picture.replace("<svg ", f'<svg x="{width}" ', 1))
        width, height = width + wide, max(height, high)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><rect width="100%" height="100%" rx="8" '
        f'fill="{_PAPER}"/>{"".join(parts)}</svg>'
    )


def size_of(svg: str) -> tuple[int, int]:
    """The width and the height of a picture of ours, in pixels."""
    wide, high = re.findall(r' (?:width|height)="(\d+)"', svg)[:2]
    return int(wide), int(high)


def layout(
    sizes: Sequence[Point], edges: Sequence[tuple[int, int]], gap: Point = (28, 46)
) -> Layout:
    """Place boxes of ``sizes`` (width, height in pixels) in centered rows, one for each layer.

    The boxes of a row are ordered by the mean position of the boxes they read. An edge over several
    layers runs beside the rows that it passes. ``gap`` is the space between boxes and between rows.

    >>> chain = layout([(60, 20), (80, 20)], [(0, 1)])
    >>> chain.centers, chain.reach, chain.height
    ([(0.0, 10.0), (0.0, 76.0)], 40.0, 86.0)
    """
    layer = layers(len(sizes), edges)
    rows: list[list[int]] = [[] for _ in range(1 + max(layer, default=-1))]
    for index, at in enumerate(layer):
        rows[at].append(index)
    reads = defaultdict(list)
    for tail, head in edges:
        reads[head].append(tail)
    centers = [(0.0, 0.0)] * len(sizes)
    extent, top = [], 0.0  # half the width and the middle of each row
    for row in rows:
        row.sort(key=lambda index: fmean([centers[tail][0] for tail in reads[index]] or [0.0]))
        half = (sum(sizes[index][0] for index in row) + gap[0] * (len(row) - 1)) / 2
        height, left = max(sizes[index][1] for index in row), -half
        extent.append((half, top + height / 2))
        for index in row:
            centers[index] = left + sizes[index][0] / 2, top + height / 2
            left += sizes[index][0] + gap[0]
        top += height + gap[1]
    bends: list[list[Point]] = []
    reach, rails = max((half for half, _ in extent), default=0.0), [0, 0]
    for tail, head in edges:
        passed = extent[layer[tail] + 1 : layer[head]]
        right = centers[tail][0] + centers[head][0] >= 0
        rail = max((half for half, _ in passed), default=0.0) + _RAIL * (rails[right] + 1)
        if passed:
            rails[right] += 1
            reach = max(reach, rail)
        bends.append([(rail if right else -rail, level) for _, level in passed])
    return Layout(centers, bends, reach, max(0.0, top - gap[1]))


def legend(heat: Heat) -> tuple[str, float, float]:
    """The SVG of the legend, its width and its height."""
    if heat.ends is None:
        rows = (
            f'<rect y="{18 * at}" width="11" height="11" rx="2" fill="{color}"/>'
            + _text(17, 18 * at + 9, words)
            for at, (color, words) in enumerate(heat.swatches)
        )
        return "".join(rows), 17 + max(_wide(words, 11) for _, words in heat.swatches), 50
    low, high = (one_line(end, 40) for end in heat.ends)
    side, long = max(_wide(low, 11), _wide(high, 11)) + 6, 4 * len(heat.colors)
    bars = (
        f'<rect x="{side + 4 * at:.1f}" width="4.5" height="10" fill="{color}"/>'
        for at, color in enumerate(heat.colors)
    )
    left = _text(side - 6, 9, low, more='text-anchor="end"')
    return "".join([*bars, left, _text(side + long + 6, 9, high)]), 2 * side + long, 32


def _wide(text: str, size: float) -> float:
    """A generous width of a line in a sans-serif font of ``size`` pixels."""
    return 0.6 * size * (len(text) + text.count("\u00d7") / 2)


def _height(box: Box) -> float:
    lines = sum(bool(shown) for _, shown in box.lines)
    return _HEADER + (_LINE * lines + 6 if lines else 0)


def _width(box: Box) -> float:
    lines = (_wide(f"{role}  {shown}", 10.5) for role, shown in box.lines)
    return max(_wide(box.title, 12), *lines, 36) + 20


def _text(x: float, y: float, text: str, fill: str = _INK, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" {more}>{escape(text)}</text>'


def _box(box: Box, center: Point, heat: Heat | None) -> str:
    width, height = _width(box), _height(box)
    left, top = center[0] - width / 2, center[1] - height / 2
    color = heat.color(heat.hottest(box.nodes)) if heat else COLORS.get(box.title, OTHER)
    lines = [(role, shown) for role, shown in box.lines if shown]
    look, words = {
        "op": (f'rx="5" fill="{_PAPER if lines else color}" stroke="{color}"', ink(color)),
        "end": ('rx="12" fill="#eeeeee" stroke="#8c959f"', _INK),
        "gap": (f'rx="5" fill="{_PAPER}" stroke="{_SOFT}" stroke-dasharray="4 4"', _SOFT),
    }[box.kind]
    bar = (
        f'<path d="M{left:.1f} {top + _HEADER:.1f}v{5 - _HEADER}q0-5 5-5h{width - 10:.1f}q5 0 5 5'
        f'v{_HEADER - 5}z" fill="{color}"/>'
    )
    bold = 'font-size="12" font-weight="600" text-anchor="middle"'
    rows = (
        f'<text x="{left + 10:.1f}" y="{top + _HEADER - 2 + _LINE * at:.1f}" font-size="10.5" '
        f'fill="{_SOFT}" xml:space="preserve">'
        + (f'<tspan font-weight="600" fill="{_INK}">{escape(role)}</tspan>  ' if role else "")
        + f"{escape(shown)}</text>"
        for at, (role, shown) in enumerate(lines, 1)
    )
    frame = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.0f}" {look}'
    title = _text(center[0], top + 16, box.title, words, bold)
    return "".join([f"<rect {frame}/>", bar if lines else "", title, *rows])


def _linked(box: Box, drawn: str, rows: Mapping[str, int]) -> str:
    own = [str(rows[node]) for node in box.nodes if node in rows]
    if not own:
        return drawn
    label = escape(" ".join([box.title, *(text for role, text in box.lines if not role)]))
    return f'<a href="#floors" aria-label="{label}" data-rows="{" ".join(own)}">{drawn}</a>'


def _label(box: Box, center: Point) -> str:
    """The shapes of a box's values, below it, on the arrows."""
    x, y, width = center[0], center[1] + _height(box) / 2 + 12, _wide(box.label, 10) + 8
    paper = f'y="{y - 8:.1f}" width="{width:.1f}" height="15" rx="4" fill="{_PAPER}"'
    words = _text(x, y + 3.5, box.label, _SOFT, 'font-size="10" text-anchor="middle"')
    return f'<rect x="{x - width / 2:.1f}" {paper}/>{words}'


def _arrows(
    boxes: Sequence[Box], arrows: Sequence[tuple[int, int]], spots: Layout
) -> Iterator[str]:
    """The arrows. Those into one box end side by side, ordered by where they come from."""
    into = defaultdict(list)
    for (tail, head), bends in zip(arrows, spots.bends, strict=True):
        into[head].append(((bends or [spots.centers[tail]])[-1][0], tail, bends))
    for head, incoming in into.items():
        (to_x, to_y), box = spots.centers[head], boxes[head]
        step = min(16.0, _width(box) / (len(incoming) + 1))
        for port, (_, tail, bends) in enumerate(sorted(incoming)):
            (x, y), under = spots.centers[tail], _height(boxes[tail]) / 2
            end = to_x + (port - (len(incoming) - 1) / 2) * step, to_y - _height(box) / 2 - 6
            yield _curve((x, y + under), [*bends, end])


def _curve(start: Point, targets: Sequence[Point]) -> str:
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
