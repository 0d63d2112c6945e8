"""Digits of 8 x 8 grey values as a small drawing, the same text on every run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import torch

_LEVELS = 16
_STEP = 9
"""Cells from one digit to the next: eight of its own and a gap."""


def svg(images: torch.Tensor, labels: Sequence[object] = (), cell: int = 6) -> str:
    """Images ``float[N, 1, 8, 8]`` in [0, 1] side by side, in the text colour of the page.

    >>> svg(torch.eye(8)[None, None]).count("<path")
    1
    """
    digits = "".join(
        f'<g transform="translate({index * _STEP} 0)">{"".join(_paths(image[0]))}</g>'
        for index, image in enumerate(images)
    )
    words = "".join(
        f'<text x="{index * _STEP + 4}" y="10.5" font-size="2" text-anchor="middle">'
        f"{escape(str(label))}</text>"
        for index, label in enumerate(labels)
    )
    width, height = len(images) * _STEP - 1, 11 if words else 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * cell}" height="{height * cell}" '
        f'viewBox="0 0 {width} {height}" fill="currentColor" style="max-width:100%" role="img" '
        f'aria-label="handwritten digits">{digits}{words}</svg>'
    )


def _paths(image: torch.Tensor) -> Iterable[str]:
    """One path for each grey level that occurs."""
    grey = (image * _LEVELS).round().int().tolist()
    for level in range(1, _LEVELS + 1):
        cells = [
            (x, y) for y, row in enumerate(grey) for x, value in enumerate(row) if value == level
        ]
        if cells:
            squares = "".join(f"M{x} {y}h1v1h-1z" for x, y in cells)
            yield f'<path fill-opacity="{level / _LEVELS:.2f}" d="{squares}"/>'
