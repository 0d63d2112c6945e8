"""Split a kernel's time among its nodes, and a node's among its lines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..exporter_metadata import CallSite
from ..source import Line
from .kernels import Match
from .operations import Operation
from .origins import Origin

_LEAST = 1e-9
"""The least seconds of a node, so that a node too short to measure gets a share."""


@dataclass(frozen=True)
class Share:
    """A ``fraction`` of a kernel's time, for one ``line`` of one ``node``; "" and None if unknown.

    ``stack`` has the calls that led to the line, ``module`` its module.
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
    """Attribute each kernel to lines. The shares of a kernel add up to 1.

    Args:
        matches: kernel -> exported nodes.
        origins, operations: the exported nodes and the FX nodes.
        alone: exported node -> seconds without fusion. If one is missing, all get equal parts.
        eager: FX node -> seconds in PyTorch, by which nodes that export merged are split.
    """
    by_name = {origin.node: origin for origin in origins}
    eager_of_site: dict[CallSite, float] = defaultdict(float)
    for operation in operations:
        eager_of_site[operation.site] += eager.get(operation.fx, 0.0)

    def shares(kernel: str, nodes: tuple[str, ...]) -> Iterator[Share]:
        if not nodes:
            yield Share(kernel, "", None, 1.0)
            return
        known = all(node in alone for node in nodes)
        weights = {node: max(alone[node], _LEAST) if known else 1.0 for node in nodes}
        for node, weight in weights.items():
            origin = by_name[node]
            parts = _parts(origin, eager_of_site[origin.site], eager)
            whole = sum(weights.values()) * sum(parts.values())
            for (line, stack, module), part in parts.items():
                yield Share(kernel, node, line, weight * part / whole, stack, module)

    return {kernel: tuple(shares(kernel, match.nodes)) for kernel, match in matches.items()}


_Part = tuple[Line | None, tuple[Line, ...], str]


def _parts(origin: Origin, seconds: float, eager: Mapping[str, float]) -> dict[_Part, float]:
    """(line, stack, module) of an exported node and of those merged into it -> weight."""
    seconds = max(seconds, _LEAST)
    parts: dict[_Part, float] = defaultdict(float)
    parts[origin.line, origin.stack, origin.module] = seconds
    for merged in origin.merged:
        spent = seconds if merged.twin else eager.get(merged.fx, 0.0) / len(merged.into)
        parts[merged.line, merged.stack, merged.module] += max(spent, _LEAST)
    return parts
