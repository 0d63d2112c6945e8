"""Split a kernel's time among its nodes, and a node's among its lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..exporter_metadata import CallSite
from ..source import Line
from .folding import Operation
from .kernels import Match
from .origins import Origin

_LEAST = 1e-9
"""Least seconds that a node counts for, so that a node too short to measure gets a share."""


@dataclass(frozen=True)
class Share:
    """``fraction`` of a kernel belongs to ``node``, and in it to ``line``; "" and None if unknown.

    ``stack`` has the calls that led to it, ``module`` its module.
    """

    kernel: str
    node: str
    line: Line | None
    fraction: float
    stack: tuple[Line, ...] = ()
    module: str = ""


def attributed(
    matches: Mapping[str, Match],
    origins: Sequence[Origin],
    operations: Sequence[Operation],
    alone: Mapping[str, float],
    eager: Mapping[str, float],
) -> dict[str, tuple[Share, ...]]:
    """Attribute each kernel to lines: its shares add up to 1.

    Args:
        matches: kernel -> exported nodes.
        origins, operations: the exported nodes and the FX nodes.
        alone: exported node -> seconds without fusion; nodes without get equal parts.
        eager: FX node -> seconds in PyTorch, which split what export merged into one node.
    """
    by_name = {origin.node: origin for origin in origins}
    own: dict[CallSite, float] = defaultdict(float)
    for operation in operations:
        own[operation.site] += eager.get(operation.fx, 0.0)

    def shares(kernel: str, nodes: tuple[str, ...]) -> Iterator[Share]:
        if not nodes:
            yield Share(kernel, "", None, 1.0)
            return
        known = all(node in alone for node in nodes)
        weights = {node: max(alone[node], _LEAST) if known else 1.0 for node in nodes}
        for node, weight in weights.items():
            origin = by_name[node]
            parts = _parts(origin, own[origin.site], eager)
            whole = sum(weights.values()) * sum(parts.values())
            for (line, stack, module), part in parts.items():
                yield Share(kernel, node, line, weight * part / whole, stack, module)

    return {kernel: tuple(shares(kernel, match.nodes)) for kernel, match in matches.items()}


Part = tuple[Line | None, tuple[Line, ...], str]


def _parts(origin: Origin, own: float, eager: Mapping[str, float]) -> dict[Part, float]:
    """(line, stack, module) of an exported node -> weight."""
    own = max(own, _LEAST)
    parts: dict[Part, float] = defaultdict(float)
    parts[origin.line, origin.stack, origin.module] = own
    for gone in origin.merged:
        spent = own if gone.twin else eager.get(gone.fx, 0.0) / len(gone.into)
        parts[gone.line, gone.stack, gone.module] += max(spent, _LEAST)
    return parts
