"""A number or a verdict for each node -> a colour, an ink that can be read on it, and a legend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from .. import formatting

STEPS = 32


@cache
def palette() -> tuple[str, ...]:
    """Viridis from the least value to the greatest, even also for most color-blind readers."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return tuple(map(to_hex, colormaps["viridis"].resampled(STEPS)(range(STEPS))))


COLD = "#d8dee4"
"""Of a node without a value."""


def ink(colour: str) -> str:
    """Black or white, whichever has more contrast on ``colour``.

    Contrast as in https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio.

    >>> ink("#440154"), ink("#fde725")
    ('#ffffff', '#000000')
    """
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return "#ffffff" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.18 else "#000000"


@dataclass(frozen=True)
class Heat:
    """``values`` by node; ``unit`` "s" and "B" are scaled, any other stands behind the number.

    >>> heat = Heat({"conv": 2e-3, "relu": 0.5e-3}, "s")
    >>> heat.low, heat.high, heat.shown("conv"), heat.colour("conv")
    ('500 us', '2.00 ms', '2.00 ms', '#fde725')
    """

    values: Mapping[str, float]
    unit: str = ""
    swatches = ()

    @cached_property
    def span(self) -> tuple[float, float]:
        """The least and the greatest value."""
        return min(self.values.values()), max(self.values.values())

    @property
    def low(self) -> str:
        return self._text(self.span[0])

    @property
    def high(self) -> str:
        return self._text(self.span[1])

    def hottest(self, nodes: Iterable[str]) -> str:
        """The one of the greatest value, "" where none has one."""
        return max((n for n in nodes if n in self.values), key=self.values.__getitem__, default="")

    def said(self, nodes: Sequence[str]) -> str:
        """Of one node its value, of several the greatest."""
        value = self.shown(self.hottest(nodes))
        return f"up to {value}" if value and len(nodes) > 1 else value

    def shown(self, node: str) -> str:
        """The value with its unit, "" for a node that has none."""
        return self._text(self.values[node]) if node in self.values else ""

    def level(self, node: str) -> int:
        """Index into :func:`palette`, linear from the least value to the greatest."""
        least, most = self.span
        share = (self.values[node] - least) / (most - least) if most > least else 1.0
        return round(share * (STEPS - 1))

    def colour(self, node: str) -> str:
        return palette()[self.level(node)] if node in self.values else COLD

    def sheet(self) -> dict[str, Any]:
        """What the page needs, as JSON."""
        return {
            "levels": {node: self.level(node) for node in self.values},
            "shown": {node: self.shown(node) for node in self.values},
            "palette": [[colour, ink(colour)] for colour in palette()],
            "cold": [COLD, ink(COLD)],
            "low": self.low,
            "high": self.high,
        }

    def _text(self, value: float) -> str:
        if self.unit == "s":
            return formatting.seconds(value)
        if self.unit == "B":
            return formatting.size(round(value))
        return f"{value:.4g} {self.unit}".rstrip()


@dataclass(frozen=True)
class Contrast:
    """The nodes ``only`` this graph has in one ``hue``; those of ``both`` graphs are grey.

    >>> contrast = Contrast(frozenset({"gelu"}), "new.onnx", both=2, hue="#0072b2")
    >>> contrast.colour("gelu"), [words for _, words in contrast.swatches]
    ('#0072b2', ['1 node only in new.onnx', '2 nodes in both'])
    """

    only: frozenset[str]
    name: str
    both: int
    hue: str

    @property
    def swatches(self) -> tuple[tuple[str, str], ...]:
        """The legend: colours and what they mean."""
        mine = f"{formatting.plural(len(self.only), 'node')} only in {self.name}"
        return (self.hue, mine), (COLD, f"{formatting.plural(self.both, 'node')} in both")

    def hottest(self, nodes: Iterable[str]) -> str:
        """The first that only this graph has, "" where both have all."""
        return next((node for node in nodes if node in self.only), "")

    def said(self, nodes: Sequence[str]) -> str:
        """Of one node whether only this graph has it, of several how many."""
        count = len(self.only.intersection(nodes))
        return f"{count} only here" if count and len(nodes) > 1 else "only here" * count

    def shown(self, node: str) -> str:
        return "only here" if node in self.only else ""

    def colour(self, node: str) -> str:
        return self.hue if node in self.only else COLD

    def sheet(self) -> dict[str, Any]:
        """What the page needs, as JSON."""
        return {
            "levels": dict.fromkeys(sorted(self.only), 0),
            "shown": {node: self.shown(node) for node in sorted(self.only)},
            "palette": [[self.hue, ink(self.hue)]],
            "cold": [COLD, ink(COLD)],
            "swatches": self.swatches,
        }
