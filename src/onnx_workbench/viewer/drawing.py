"""The picture for where no page lives: a diagram as an SVG that a person would want to look at.

GitHub, nbconvert and a notebook that is not running show it. It holds no script and no link,
every name is escaped, and the same model gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import escape

from .diagram import Box, Diagram
from .heat import STEPS, Contrast, Heat, ink, palette
from .layout import Layout, layout
from .summary import plain

_MARGIN, _HEADER, _LINE, _PAD, _LEGEND = 20, 24, 16, 10, 32
_FONT = "-apple-system,BlinkMacSystemFont,'Segoe UI',Ubuntu,'Noto Sans',Helvetica,Arial,sans-serif"
_INK, _SOFT, _PAPER = "#24292f", "#57606a", "#ffffff"

# Netron's colours (grapher.css), and its categories with the gaps in them filled.
_COLOURS = {
    "#335588": "Conv ConvInteger ConvTranspose FusedConv Gemm MatMul MatMulInteger Einsum GRU LSTM "
    "RNN QLinearConv QLinearMatMul DeformConv FusedMatMul",
    "#702921": "Relu LeakyRelu PRelu Elu Selu Celu Gelu Sigmoid HardSigmoid Tanh Softmax LogSoftmax"
    " Softplus Softsign HardSwish Mish Clip ThresholdedRelu Swish QuickGelu FastGelu Erf",
    "#335533": "MaxPool AveragePool LpPool GlobalMaxPool GlobalAveragePool GlobalLpPool MaxRoiPool "
    "RoiAlign",
    "#335544": "BatchNormalization InstanceNormalization LayerNormalization GroupNormalization "
    "RMSNormalization LpNormalization LRN SkipLayerNormalization MeanVarianceNormalization "
    "SimplifiedLayerNormalization SkipSimplifiedLayerNormalization Gather GatherND Transpose "
    "Squeeze Unsqueeze RotaryEmbedding",
    "#454770": "Dropout",
    "#6c4f47": "Reshape Flatten Tile Shape Size Expand",
    "#59423b": "Concat Split Slice Pad Where",
    "#783c00": "Attention MultiHeadAttention GroupQueryAttention",
    "#502800": "QuantizeLinear DequantizeLinear DynamicQuantizeLinear",
}
_COLOUR = {op: colour for colour, ops in _COLOURS.items() for op in ops.split()}
_NARROW, _WIDE = frozenset("iljtfrI.,:;'|!()[] "), frozenset("MWmw@%\u00d7\u2026")


def draw(name: str, picture: Diagram, heat: Heat | Contrast | None = None) -> str:
    """An SVG document: layered from top to bottom, shapes on the arrows, weights in the boxes.

    With ``heat`` each box has the colour of its value, and the value inside.

    >>> svg = draw("half", Diagram([Box("Relu")], []))
    >>> svg[:4], "Relu" in svg
    ('<svg', True)
    """
    if heat:
        picture = Diagram([_warm(box, heat) for box in picture.boxes], picture.arrows)
    sizes = [_size(box, _label(picture, index)) for index, box in enumerate(picture.boxes)]
    spots = layout(sizes, [(arrow.tail, arrow.head) for arrow in picture.arrows], gap=(28, 46))
    title = plain(name)
    words = _key_width(heat) if heat else 0
    width = max(spots.width, _wide(title, 11) + 40, words) + 2 * _MARGIN
    height = spots.height + 2 * _MARGIN + (_LEGEND if heat else 0)
    shift = (width - spots.width) / 2
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:.0f}" '
            f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'font-family="{_FONT}" font-size="11"><title>{escape(title)}</title>'
            f'<rect width="100%" height="100%" rx="8" fill="{_PAPER}"/>'
            f'<g transform="translate({shift:.1f} {_MARGIN})">',
            *_arrows(picture, spots),
            *(_box(box, spots, index, heat) for index, box in enumerate(picture.boxes)),
            *_labels(picture, spots),
            "</g>",
            *(_key(heat, width / 2, height - _MARGIN - 12) if heat else ()),
            "</svg>",
        ]
    )


def beside(pictures: Sequence[str]) -> str:
    """Several pictures of :func:`draw` as one, from left to right."""
    sizes = [re.findall(r' (?:width|height)="(\d+)"', picture)[:2] for picture in pictures]
    width, height = sum(int(w) for w, _ in sizes), max(int(h) for _, h in sizes)
    parts = [
        picture.replace("<svg ", f'<svg x="{sum(int(w) for w, _ in sizes[:at])}" ', 1)
        for at, picture in enumerate(pictures)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><rect width="100%" height="100%" rx="8" '
        f'fill="{_PAPER}"/>{"".join(parts)}</svg>'
    )


def _size(box: Box, label: str) -> tuple[float, float]:
    """Width and height; a label below the box counts as well, so that none covers another."""
    return max(_body_width(box), _wide(label, 10) + 12), _height(box)


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


def _label(picture: Diagram, index: int) -> str:
    """The shapes that leave a box."""
    labels = [arrow.label for arrow in picture.arrows if arrow.tail == index and arrow.label]
    return plain(", ".join(dict.fromkeys(labels)), 40)


def _warm(box: Box, heat: Heat | Contrast) -> Box:
    """With the colour and the value of the hottest node that it stands for."""
    node = heat.hottest(box.nodes)
    said = heat.said(box.nodes)
    return replace(box, nodes=(node,), lines=(*box.lines, *([("", said)] if said else ())))


def _key_width(heat: Heat | Contrast) -> float:
    if isinstance(heat, Heat):
        return 4 * STEPS + 12 + 2 * max(_wide(_end(end), 11) for end in (heat.low, heat.high))
    return max(_wide(words, 11) for _, words in heat.swatches) + 20


def _end(value: str) -> str:
    return plain(value, 40)


def _key(heat: Heat | Contrast, middle: float, top: float) -> Iterator[str]:
    if isinstance(heat, Heat):
        yield from _legend(heat, middle, top)
        return
    left = middle - max(_wide(words, 11) for _, words in heat.swatches) / 2 - 8
    for at, (colour, words) in enumerate(heat.swatches):
        y = top - 8 + 18 * at
        yield f'<rect x="{left:.1f}" y="{y}" width="11" height="11" rx="2" fill="{colour}"/>'
        yield f'<text x="{left + 17:.1f}" y="{y + 9}" fill="{_INK}">{escape(words)}</text>'


def _legend(heat: Heat, middle: float, top: float) -> Iterator[str]:
    """The colours from the least value to the greatest, with both."""
    left = middle - 2 * STEPS
    for at, colour in enumerate(palette()):
        yield f'<rect x="{left + 4 * at:.1f}" y="{top}" width="4.5" height="10" fill="{colour}"/>'
    for x, anchor, value in (
        (left - 6, "end", heat.low),
        (middle * 2 - left + 6, "start", heat.high),
    ):
        yield (
            f'<text x="{x:.1f}" y="{top + 9}" text-anchor="{anchor}" fill="{_INK}">'
            f"{escape(_end(value))}</text>"
        )


def _box(box: Box, spots: Layout, index: int, heat: Heat | Contrast | None) -> str:
    (x, y), width, height = spots.centers[index], _body_width(box), _height(box)
    left, top = x - width / 2, y - height / 2
    frame = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.0f}"'

    def title(fill: str) -> str:
        return (
            f'<text x="{x:.1f}" y="{top + 16:.1f}" font-size="12" font-weight="600" '
            f'text-anchor="middle" fill="{fill}">{escape(box.title)}</text>'
        )

    if box.kind == "end":
        return f'<rect {frame} rx="12" fill="#eaeef2" stroke="#d0d7de"/>{title(_INK)}'
    if box.kind == "gap":
        dashed = f'fill="{_PAPER}" stroke="{_SOFT}" stroke-dasharray="4 4"'
        return f'<rect {frame} rx="5" {dashed}/>{title(_SOFT)}'
    colour = heat.colour(*box.nodes) if heat else _COLOUR.get(box.title, "#444c56")
    head = title(ink(colour))
    paper = f'<rect {frame} rx="5" fill="{_PAPER if box.lines else colour}" stroke="{colour}"/>'
    if not box.lines:
        return paper + head
    bar = (
        f'<path d="M{left:.1f} {top + _HEADER:.1f}v{5 - _HEADER}q0-5 5-5h{width - 10:.1f}q5 0 5 5'
        f'v{_HEADER - 5}z" fill="{colour}"/>'
    )
    return paper + bar + head + "".join(_rows(box, left + _PAD, top))


def _rows(box: Box, left: float, top: float) -> Iterator[str]:
    for at, (role, shown) in enumerate(box.lines):
        y = top + _HEADER + _LINE * (at + 1) - 2
        bold = f'<tspan font-weight="600" fill="{_INK}">{escape(role)}</tspan>  ' if role else ""
        yield (
            f'<text x="{left:.1f}" y="{y:.1f}" font-size="10.5" fill="{_SOFT}" '
            f'xml:space="preserve">{bold}{escape(shown)}</text>'
        )


def _arrows(picture: Diagram, spots: Layout) -> Iterator[str]:
    ways = list(zip(picture.arrows, spots.bends, strict=True))
    comes = [(bends or [spots.centers[arrow.tail]])[-1][0] for arrow, bends in ways]
    for at, (arrow, bends) in enumerate(ways):
        (x, y), (to_x, to_y) = spots.centers[arrow.tail], spots.centers[arrow.head]
        tail, head = picture.boxes[arrow.tail], picture.boxes[arrow.head]
        others = [(comes[i], i) for i, (a, _) in enumerate(ways) if a.head == arrow.head]
        step = min(16.0, _body_width(head) / (len(others) + 1))
        port = (sorted(others).index((comes[at], at)) - (len(others) - 1) / 2) * step
        end = to_x + port, to_y - _height(head) / 2 - 6
        yield _curve((x, y + _height(tail) / 2), [*bends, end])


def _curve(start: tuple[float, float], targets: Sequence[tuple[float, float]]) -> str:
    """Straight down out of the tail, past the bends, and straight down into the head."""
    x, y = start
    path = [f"M{x:.1f} {y:.1f}v20"]
    y += 20
    for to_x, to_y in targets:
        middle = (y + to_y) / 2
        straight = abs(to_x - x) < 0.5
        path.append(
            f"V{to_y:.1f}"
            if straight
            else f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}"
        )
        x, y = (x if straight else to_x), to_y
    tip = f'<path d="M{x - 3.5:.1f} {y:.1f}h7l-3.5 6z" fill="{_SOFT}"/>'
    return f'<path d="{"".join(path)}" fill="none" stroke="{_SOFT}"/>{tip}'


def _labels(picture: Diagram, spots: Layout) -> Iterator[str]:
    for index in range(len(picture.boxes)):
        if label := _label(picture, index):
            x, y = spots.centers[index]
            y, width = y + _height(picture.boxes[index]) / 2 + 12, _wide(label, 10) + 8
            yield (
                f'<rect x="{x - width / 2:.1f}" y="{y - 8:.1f}" width="{width:.1f}" '
                f'height="15" rx="4" fill="{_PAPER}"/>'
                f'<text x="{x:.1f}" y="{y + 3.5:.1f}" font-size="10" text-anchor="middle" '
                f'fill="{_SOFT}">{escape(label)}</text>'
            )
