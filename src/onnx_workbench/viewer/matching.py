"""Matches the nodes of two graphs."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence

from .origin import OnnxNode

OnnxNodes = Mapping[str, OnnxNode]
Sign = Callable[[OnnxNode], Sequence[Hashable]]


def _line(node: OnnxNode) -> Sequence[Hashable]:
    line = node.line  # by its text, since numbers change with edits above
    return [(node.module, line.function, line.text or line.place)] if line else []


def _fx(node: OnnxNode) -> Sequence[Hashable]:
    return [node.fx] if node.fx else []


def _name(node: OnnxNode) -> Sequence[Hashable]:
    return [node.node]


def _values(node: OnnxNode) -> Sequence[Hashable]:
    return node.outputs


def pairs(here: OnnxNodes, there: OnnxNodes) -> dict[str, str]:
    """Pair nodes with equal operators by the first sign that they share, each node once, in the
    order of ``here``. A name or a value does not count between two different FX nodes."""
    twins: dict[str, str] = {}
    taken: set[str] = set()
    for sign in (_name, _values, _fx, _line):
        free: defaultdict[Hashable, deque[OnnxNode]] = defaultdict(deque)
        for other in there.values():
            for key in sign(other) if other.node not in taken else ():
                free[other.op, key].append(other)
        for node in here.values():
            for key in sign(node) if node.node not in twins else ():
                group = free[node.op, key]
                while group and group[0].node in taken:
                    group.popleft()  # keeps it fast if a thousand nodes share one line
                fits = (o for o in group if o.node not in taken)
                twin = next((o for o in fits if sign in (_fx, _line) or _same_fx(node, o)), None)
                if twin:
                    twins[node.node] = twin.node
                    taken.add(twin.node)
                    break
    return {name: twins[name] for name in here if name in twins}


def _same_fx(one: OnnxNode, other: OnnxNode) -> bool:
    return not (one.fx and other.fx and one.fx != other.fx)


def related(
    here: OnnxNodes, there: OnnxNodes, twins: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """The twin of each node; if it has none, all nodes with the same source."""
    groups: defaultdict[Hashable, list[str]] = defaultdict(list)
    signs: list[Sign] = [_fx, _line, _name, _values]
    for other in there.values():
        for sign in signs:
            for key in sign(other):
                groups[sign, key].append(other.node)
    shared = {key: tuple(names) for key, names in groups.items()}  # not copied for each node

    def same_source(node: OnnxNode) -> tuple[str, ...]:
        found = (sum((shared.get((sign, key), ()) for key in sign(node)), ()) for sign in signs)
        return next(filter(None, found), ())

    return {
        name: (twins[name],) if name in twins else same_source(node) for name, node in here.items()
    }
