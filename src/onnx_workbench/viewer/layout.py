"""Boxes and the edges between them -> coordinates, top to bottom.

The layered method of Sugiyama, Tagawa and Toda (1981): layers by longest path, long edges cut by
bends, the order inside a layer by barycentres; then the abscissas by alternating sweeps, each of
which moves a layer as close to its neighbours as the order allows (pool adjacent violators).
Nothing random: the same graph gives the same picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

SWEEPS = 12


@dataclass
class Place:
    """The centre of a box, or of a bend of a long edge."""

    width: float
    height: float
    layer: int = 0
    x: float = 0.0
    y: float = 0.0
    above: list[int] = field(default_factory=list)
    below: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """``places`` of the boxes first, then of the bends; ``routes`` are places along each edge."""

    places: list[Place]
    routes: list[list[int]]
    width: float
    height: float


def layout(
    sizes: Sequence[tuple[float, float]],
    edges: Sequence[tuple[int, int]],
    gap: tuple[float, float] = (28, 54),
) -> Layout:
    """Places boxes of ``sizes`` (width, height) in layers; ``edges`` are pairs of their indices.

    ``gap`` is the room between two boxes of a layer and between two layers.

    >>> chain = layout([(60, 20), (80, 20)], [(0, 1)])
    >>> [(place.x, place.y) for place in chain.places], chain.width, chain.height
    ([(40.0, 10.0), (40.0, 84.0)], 80.0, 94.0)
    """
    places = [Place(width, height) for width, height in sizes]
    for place, layer in zip(places, layers(len(sizes), edges), strict=True):
        place.layer = layer
    routes = [_bend(places, tail, head) for tail, head in edges]
    rows = _ordered(places)
    _spread(places, rows, gap[0])
    height = _stack(places, rows, gap[1])
    left = min((place.x - place.width / 2 for place in places), default=0)
    for place in places:
        place.x -= left
    width = max((place.x + place.width / 2 for place in places), default=0)
    return Layout(places, routes, width, height)


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


def _bend(places: list[Place], tail: int, head: int) -> list[int]:
    """The places an edge passes, with a new one in each layer between its ends."""
    route = [tail]
    for layer in range(places[tail].layer + 1, places[head].layer):
        route.append(len(places))
        places.append(Place(width=8, height=0, layer=layer))
    route.append(head)
    for upper, lower in pairwise(route):
        places[upper].below.append(lower)
        places[lower].above.append(upper)
    return route


def _ordered(places: list[Place]) -> list[list[int]]:
    """The places of each layer from left to right, with few crossings."""
    rows: list[list[int]] = [[] for _ in range(1 + max((p.layer for p in places), default=-1))]
    for index, place in enumerate(places):
        rows[place.layer].append(index)
    rank = {index: float(at) for row in rows for at, index in enumerate(row)}
    best, fewest = [list(row) for row in rows], _crossings(places, rows, rank)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            wanted = {
                i: _mean([rank[j] for j in (places[i].above if down else places[i].below)], rank[i])
                for i in row
            }
            row[:] = [i for *_, i in sorted((wanted[i], rank[i], i) for i in row)]
            rank.update((index, float(at)) for at, index in enumerate(row))
        if (crossings := _crossings(places, rows, rank)) < fewest:
            best, fewest = [list(row) for row in rows], crossings
    return best


def _crossings(places: list[Place], rows: list[list[int]], rank: dict[int, float]) -> int:
    total = 0
    for row in rows:
        heads = [head for i in row for head in sorted(rank[j] for j in places[i].below)]
        total += sum(first > second for at, first in enumerate(heads) for second in heads[at + 1 :])
    return total


def _spread(places: list[Place], rows: list[list[int]], gap: float) -> None:
    """Abscissas: each layer in turn moves under (over) the layer before it."""
    for row in rows:
        _pack(places, row, [0.0] * len(row), gap)
    for sweep in range(2 * SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            wanted = []
            for place in (places[index] for index in row):
                near = (place.above if down else place.below) or [*place.above, *place.below]
                wanted.append(_mean([places[j].x for j in near], place.x))
            _pack(places, row, wanted, gap)


def _pack(places: list[Place], row: list[int], wanted: list[float], gap: float) -> None:
    """The abscissas nearest to ``wanted`` (least squares) at which no two boxes overlap."""
    offsets = [0.0]
    for left, right in pairwise(row):
        offsets.append(offsets[-1] + (places[left].width + places[right].width) / 2 + gap)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, count
    for index, target, offset in zip(row, wanted, offsets, strict=True):
        weight = 1.0 if places[index].height else 4.0  # a long edge would rather be straight
        block = (target - offset, weight, 1)
        while blocks and blocks[-1][0] >= block[0]:
            mean, mass, count = blocks.pop()
            total = mass + block[1]
            block = ((mean * mass + block[0] * block[1]) / total, total, count + block[2])
        blocks.append(block)
    shifts = [mean for mean, _, count in blocks for _ in range(count)]
    for index, shift, offset in zip(row, shifts, offsets, strict=True):
        places[index].x = shift + offset


def _stack(places: list[Place], rows: list[list[int]], gap: float) -> float:
    """Ordinates, and the height of it all."""
    y = 0.0
    for row in rows:
        tallest = max((places[index].height for index in row), default=0)
        for index in row:
            places[index].y = y + tallest / 2
        y += tallest + gap
    return max(0.0, y - gap)


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
