"""A number or a verdict for each node -> a color, words, and a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..formatting import plural, seconds, size
from ..stack import needs

STEPS = 32
COLD = "#d8dee4"
"""The color of a node without a value."""


@cache
def palette() -> tuple[str, ...]:
    """Viridis, from least to greatest value: perceptually uniform, also for most color-blind
    readers."""
    with needs("A heat", "plot"):
        from matplotlib import colormaps
        from matplotlib.colors import to_hex

    return tuple(map(to_hex, colormaps["viridis"].resampled(STEPS)(range(STEPS))))


def ink(color: str) -> str:
    """Black or white, whichever has more contrast on ``color``.

    Contrast as in https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio.

    >>> ink("#440154"), ink("#fde725")
    ('#ffffff', '#000000')
    """
    rgb = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb)
    light = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "#ffffff" if light < 0.18 else "#000000"


@dataclass(frozen=True)
class Heat:
    """``values`` by node, with ``words`` for each, and ``levels``, indices into ``colors``.

    The legend is a scale between the two ``ends``, or a list of ``swatches``, colors with words.
    """

    values: Mapping[str, float]
    words: Mapping[str, str]
    levels: Mapping[str, int]
    colors: tuple[str, ...]
    ends: tuple[str, str] | None = None
    swatches: tuple[tuple[str, str], ...] = ()
    unit: str = ""

    def hottest(self, nodes: Sequence[str]) -> str:
        """The node with the greatest value; "" if none has one."""
        hot = [node for node in nodes if node in self.values]
        return max(hot, key=self.values.__getitem__, default="")

    def label(self, nodes: Sequence[str]) -> str:
        """The words of one node; for several nodes, of the hottest, or how many have a value."""
        hot = [node for node in nodes if node in self.values]
        if not hot:
            return ""
        words = self.words[self.hottest(hot)]
        if len(nodes) == 1:
            return words
        return f"up to {words}" if self.ends else f"{len(hot)} {words}"

    def color(self, node: str) -> str:
        return self.colors[self.levels[node]] if node in self.levels else COLD

    def encoded(self) -> dict[str, Any]:
        """The data for the page, as JSON."""
        return {
            "values": self.values,
            "levels": self.levels,
            "shown": self.words,
            "unit": self.unit,
            "palette": [[color, ink(color)] for color in self.colors],
            "cold": [COLD, ink(COLD)],
            "ends": self.ends,
            "swatches": self.swatches,
        }


def scale(values: Mapping[str, float], unit: str = "") -> Heat:
    """Viridis, linear from the least value to the greatest.

    ``unit`` "s" and "B" are scaled, any other follows the number.

    >>> heat = scale({"conv": 2e-3, "relu": 0.5e-3}, "s")
    >>> heat.ends, heat.words["conv"], heat.color("conv")
    (('500 us', '2.00 ms'), '2.00 ms', '#fde725')
    """
    least, most = min(values.values()), max(values.values())
    span = most / 2 - least / 2  # halves, since the difference may be no float

    def words(value: float) -> str:
        if unit in ("s", "B"):
            return seconds(value) if unit == "s" else size(round(value))
        return f"{value:.4g} {unit}".rstrip()

    return Heat(
        values,
        {node: words(value) for node, value in values.items()},
        {
            n: round((v / 2 - least / 2) / span * (STEPS - 1)) if span else STEPS - 1
            for n, v in values.items()
        },
        palette(),
        ends=(words(least), words(most)),
        unit=unit,
    )


def contrast(only: Sequence[str], name: str, both: int, color: str) -> Heat:
    """The nodes ``only`` this graph has in one color; those of ``both`` graphs are gray.

    >>> contrast(["gelu"], "new.onnx", both=2, color="#0072b2").swatches
    (('#0072b2', '1 node only in new.onnx'), ('#d8dee4', '2 nodes in both'))
    """
    mine, common = f"{plural(len(only), 'node')} only in {name}", f"{plural(both, 'node')} in both"
    return Heat(
        dict.fromkeys(only, 1.0),
        dict.fromkeys(only, "only here"),
        dict.fromkeys(only, 0),
        (color,),
        swatches=((color, mine), (COLD, common)),
    )
