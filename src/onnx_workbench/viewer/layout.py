"""Boxes and the edges between them -> coordinates, top to bottom, in layers.

Each layer is one centered row, ordered by the mean abscissa of what its boxes read. An edge over
several layers runs down beside the rows that it passes. Nothing is random: the same graph gives
the same picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

_RAIL = 12
"""Pixels between two edges that run down beside the rows."""


@dataclass(frozen=True)
class Layout:
    """``centers`` of the boxes; ``bends`` are the points that each edge passes on its way."""

    centers: list[tuple[float, float]]
    bends: list[list[tuple[float, float]]]
    width: float
    height: float


def layout(
    sizes: Sequence[tuple[float, float]],
    edges: Sequence[tuple[int, int]],
    gap: tuple[float, float] = (28, 54),
) -> Layout:
    """Place boxes of ``sizes`` (width, height in pixels); ``edges`` are pairs of their indices.

    ``gap`` is the space between two boxes of a layer and between two layers.

    >>> chain = layout([(60, 20), (80, 20)], [(0, 1)])
    >>> chain.centers, chain.width, chain.height
    ([(40.0, 10.0), (40.0, 84.0)], 80.0, 94.0)
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


def layers(count: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """The layer of each box by longest path; a box without a source sits close to its consumer.

    >>> layers(4, [(0, 1), (1, 2), (3, 2)])
    [0, 1, 2, 1]
    """
    below: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for tail, head in edges:
        below[tail].append(head)
        waiting[head] += 1
    sources = [index for index in range(count) if not waiting[index]]
    layer, ready = [0] * count, list(sources)
    for index in ready:  # grows while it is walked; what lies on a cycle stays in layer 0
        for head in below[index]:
            layer[head] = max(layer[head], layer[index] + 1)
            waiting[head] -= 1
            if not waiting[head]:
                ready.append(head)
    for index in sources:
        layer[index] = max(0, min((layer[head] for head in below[index]), default=1) - 1)
    return layer
