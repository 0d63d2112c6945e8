"""A kernel that runs several nodes, a node that holds several lines: who gets how much."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..exporter_metadata import CallSite, line_of
from ..source import Line, lines
from . import folding
from .kernels import Match
from .library import Item
from .table import Lineage, Origin

_LEAST = 1e-9
"""Seconds that a node counts for at least, so that shares of what was too short to see exist."""


@dataclass(frozen=True)
class Share:
    """``fraction`` of a kernel goes to ``node``, and in it to ``line``; "" and None if unknown.

    ``stack`` has the calls around it, ``module`` is what it was computed for.
    """

    node: str
    line: Line | None
    fraction: float
    stack: tuple[Line, ...] = ()
    module: str = ""


def of(
    matches: Mapping[str, Match],
    lineage: Lineage,
    alone: Mapping[str, float],
    eager: Mapping[str, float],
) -> dict[str, tuple[Share, ...]]:
    """Each kernel -> its shares, which add up to 1.

    Args:
        matches: kernel -> exported nodes.
        alone: exported node -> seconds where nothing is fused; equal parts for nodes without.
        eager: FX node -> seconds in PyTorch, for what export merged into one node.
    """
    inner = _Merged(lineage, eager)
    return {
        kernel: tuple(_shares(match, lineage, alone, inner)) for kernel, match in matches.items()
    }


def medians(laps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """FX node -> its median over the runs.

    >>> medians([{"relu": 1.0}, {"relu": 3.0}])
    {'relu': 2.0}
    """
    names = laps[0] if laps else {}
    return {name: statistics.median(lap[name] for lap in laps) for name in names}


def by_line(laps: Sequence[Mapping[str, float]], lineage: Lineage) -> dict[Line, list[Item[str]]]:
    """Line -> its FX nodes that were timed."""
    graph = lineage.artifact.graph
    nodes: dict[Line, list[Item[str]]] = {}
    if graph is None or not laps:
        return nodes
    for name, key in folding.keys(graph.program.graph_module.graph).items():
        line = line_of(key.trace)
        if line and name in laps[0]:
            nodes.setdefault(line, []).append(Item(tuple(lines(key.trace)), key.module, name))
    return nodes


class _Merged:
    """The lines of one exported node, each with its part."""

    def __init__(self, lineage: Lineage, eager: Mapping[str, float]) -> None:
        graph = lineage.artifact.graph
        self._keys = folding.keys(graph.program.graph_module.graph) if graph else {}
        self._eager, self._own = eager, dict[CallSite, float]()
        for name, key in self._keys.items():
            self._own[key] = self._own.get(key, 0.0) + eager.get(name, 0.0)
        self._into: dict[CallSite, list[folding.Folded]] = {}
        for gone in lineage.folded:
            for heir in gone.into if not gone.view else ():
                self._into.setdefault(self._keys[heir], []).append(gone)

    def parts(self, origin: Origin) -> Iterator[Share]:
        own = max(self._own.get(origin.key, 0.0), _LEAST)
        where = (origin.line, origin.stack, origin.module)
        parts: dict[tuple[Line | None, tuple[Line, ...], str], float] = {where: own}
        for gone in dict.fromkeys(self._into.get(origin.key, ())):
            if line := line_of(gone.key.trace):
                where = (line, tuple(lines(gone.key.trace)), gone.key.module)
                spent = own if gone.twin else self._eager.get(gone.fx, 0.0) / len(gone.into)
                parts[where] = parts.get(where, 0.0) + max(spent, _LEAST)
        total = sum(parts.values())
        for (line, stack, module), part in parts.items():
            yield Share(origin.node, line, part / total, stack, module)


def _shares(
    match: Match, lineage: Lineage, alone: Mapping[str, float], merged: _Merged
) -> Iterator[Share]:
    if not match.nodes:
        yield Share("", None, 1.0)
        return
    known = all(node in alone for node in match.nodes)
    weights = [max(alone[node], _LEAST) if known else 1.0 for node in match.nodes]
    for node, weight in zip(match.nodes, weights, strict=True):
        for share in merged.parts(lineage.of(node)):
            yield replace(share, fraction=share.fraction * weight / sum(weights))
