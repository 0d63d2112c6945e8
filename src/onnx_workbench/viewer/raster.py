"""A picture of ours as a PNG, for a notebook that is not trusted: Lab leaves SVG and widgets out.

It knows what our pictures are made of: svg, g, rect, path, text and tspan.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

SCALE = 1.5  # pixels of the PNG for each of the picture: sharp enough on most screens, and small
_COLORS = 64
_STEPS = 12  # lines that make a curve

Point = tuple[float, float]
Place = tuple[float, float, float]
Look = dict[str, str]
Color = tuple[int, ...] | None


def png(svg: str) -> bytes | None:
    """The picture as a PNG file, with SCALE pixels for each of its own; None without matplotlib,
    which brings Pillow and the fonts along.

    >>> png('<svg xmlns="http://www.w3.org/2000/svg" width="8" height="4" viewBox="0 0 2 1"/>')[1:4]
    b'PNG'
    """
    if not find_spec("matplotlib"):
        return None
    from PIL import Image, ImageDraw

    root = ElementTree.fromstring(svg)
    size = [round(SCALE * float(root.attrib[side])) for side in ("width", "height")]
    image = Image.new("RGB", size, "white")
    _Painter(ImageDraw.Draw(image)).paint(root, {}, (SCALE, 0.0, 0.0))
    palette = Image.new("P", (1, 1))
    palette.putpalette([shade for color in _frequent(image) for shade in color])
    small = image.quantize(palette=palette, dither=Image.Dither.NONE)
    small.save(stream := io.BytesIO(), "PNG", compress_level=9)
    return stream.getvalue()


def _frequent(image: Any) -> list[tuple[int, ...]]:
    """The colors that fill most of the image, none close to another: Pillow would confuse them."""
    kept: list[tuple[int, ...]] = []
    for _, color in sorted(image.getcolors(image.width * image.height), reverse=True):
        if all(max(abs(a - b) for a, b in zip(color, old, strict=True)) > 7 for old in kept):
            kept.append(color)
    return kept[:_COLORS]


class _Painter:
    """Draws elements with Pillow.

    ``look`` has the attributes of an element and of all that it is in; ``at`` are the pixels of one
    of its units, and the pixel of its origin.
    """

    def __init__(self, draw: Any) -> None:
        self._draw = draw

    def paint(self, node: ElementTree.Element, above: Look, at: Place) -> None:
        look, kind = {**above, **node.attrib}, node.tag.rpartition("}")[2]
        if kind in ("svg", "g", "a"):
            (scale, x, y), grown = at, 1.0
            moved = _numbers(node.get("transform", "0 0"))
            if kind == "svg":
                left, top, wide, _ = _numbers(node.attrib["viewBox"])
                grown = float(node.attrib["width"]) / wide
                moved = [float(node.get("x", 0)) - left * grown, -top * grown]
            at = scale * grown, x + moved[0] * scale, y + moved[1] * scale
            for child in node:
                self.paint(child, look, at)
        elif kind != "title" and node.get("width") != "100%":  # the paper, which is white here
            {"rect": self._rect, "path": self._path, "text": self._text}[kind](node, look, at)

    def _rect(self, node: ElementTree.Element, look: Look, at: Place) -> None:
        x, y, wide, high = (float(node.get(name, 0)) for name in ("x", "y", "width", "height"))
        if min(wide, high) > 0:
            fill, (stroke, width) = _color(look, "fill", "black"), _pen(look, at)
            half = width / at[0] / 2 if stroke else 0  # a stroke has the edge in its middle
            corners = [(x - half, y - half), (x + wide + half, y + high + half)]
            radius = (float(node.get("rx", 0)) + half) * at[0]
            self._draw.rounded_rectangle(_pixels(at, corners), radius, fill, stroke, width)

    def _path(self, node: ElementTree.Element, look: Look, at: Place) -> None:
        fill, (stroke, width) = _color(look, "fill", "black"), _pen(look, at)
        for line in _lines(node.attrib["d"]):
            points = _pixels(at, line)
            if fill:
                self._draw.polygon(points, fill)
            if stroke:
                self._draw.line(points, stroke, width, joint="curve")

    def _text(self, node: ElementTree.Element, look: Look, at: Place) -> None:
        spans = [(look, node.text or "")]
        for span in node:
            spans += [({**look, **span.attrib}, span.text or ""), (look, span.tail or "")]
        fonts = [_font(*_type(own, at[0])) for own, _ in spans]
        widths = [font.getlength(words) for font, (_, words) in zip(fonts, spans, strict=True)]
        [(x, y)] = _pixels(at, [(float(node.attrib["x"]), float(node.attrib["y"]))])
        x -= sum(widths) * {"middle": 0.5, "end": 1}.get(look.get("text-anchor", ""), 0)
        for (own, words), font, width in zip(spans, fonts, widths, strict=True):
            self._draw.text((x, y), words, _color(own, "fill", "black"), font, anchor="ls")
            x += width


def _numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?[\d.]+", text)]


def _pixels(at: Place, points: list[Point]) -> list[Point]:
    scale, left, top = at
    return [(left + x * scale, top + y * scale) for x, y in points]


def _pen(look: Look, at: Place) -> tuple[Color, int]:
    width = round(float(look.get("stroke-width", 1)) * at[0])
    return _color(look, "stroke", "none"), max(1, width)


def _color(look: Look, name: str, default: str) -> Color:
    """A color on white paper, None for no color."""
    from PIL.ImageColor import getrgb

    named, opacity = look.get(name, default), float(look.get(f"{name}-opacity", 1))
    if named == "none":
        return None
    shades = getrgb("black" if named == "currentColor" else named)
    return tuple(round(255 - (255 - shade) * opacity) for shade in shades)


def _type(look: Look, scale: float) -> tuple[str, float]:
    """The file of the font, and its size: matplotlib's is wider than those of the pages."""
    kind = "Mono" if "mono" in look.get("font-family", "") else ""
    bold = "-Bold" if int(look.get("font-weight", 400)) >= 600 else ""
    return f"DejaVuSans{kind}{bold}.ttf", (1 if kind else 0.93) * scale * float(look["font-size"])


@lru_cache(maxsize=16)
def _font(file: str, size: float) -> Any:
    from PIL import ImageFont

    found = find_spec("matplotlib")
    folder = Path(found.origin if found and found.origin else "").parent  # without an import
    return ImageFont.truetype(folder / "mpl-data" / "fonts" / "ttf" / file, size)


def _lines(path: str) -> Iterator[list[Point]]:
    """The strokes of a path as points. Of its commands it knows those that our pictures have."""
    line: list[Point] = []
    for command, given in re.findall(r"([MvhlqCz])([^A-Za-z]*)", path):
        numbers = _numbers(given)
        x, y = line[-1] if line else (0.0, 0.0)
        if command == "M":
            if line:
                yield line
            line = []
        if command == "v":
            numbers = [0.0, *numbers]
        elif command == "h":
            numbers = [*numbers, 0.0]
        ends = list(zip(numbers[::2], numbers[1::2], strict=True))
        if command in "vhlq":  # relative
            ends = [(x + dx, y + dy) for dx, dy in ends]
        line += _curve([(x, y), *ends]) if command in "qC" else ends or line[:1]
    yield line


def _curve(points: list[Point]) -> list[Point]:
    """A Bezier curve, after its first point, by de Casteljau's rule."""
    bent = []
    for step in range(1, _STEPS + 1):
        at, row = step / _STEPS, points
        while len(row) > 1:
            row = [
                (x + (to_x - x) * at, y + (to_y - y) * at) for (x, y), (to_x, to_y) in pairwise(row)
            ]
        bent += row
    return bent
