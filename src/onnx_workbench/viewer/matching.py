"""Matches the nodes of two graphs."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence

from .origin import Origin

Origins = Mapping[str, Origin]
Sign = Callable[[Origin], Sequence[Hashable]]


def _line(origin: Origin) -> Sequence[Hashable]:
    line = origin.line  # by its text, since numbers change with edits above
    return [(origin.module, line.function, line.text or line.place)] if line else []


def _fx(origin: Origin) -> Sequence[Hashable]:
    return [origin.fx] if origin.fx else []


def _name(origin: Origin) -> Sequence[Hashable]:
    return [origin.node]


def _values(origin: Origin) -> Sequence[Hashable]:
    return origin.outputs


def pairs(here: Origins, there: Origins) -> dict[str, str]:
    """Pair nodes with equal operators by the first sign that they share, each node once, in the
    order of ``here``. A name or a value does not count between two different FX nodes."""
    twins: dict[str, str] = {}
    taken: set[str] = set()
    for sign in (_name, _values, _fx, _line):
        free: defaultdict[Hashable, deque[Origin]] = defaultdict(deque)
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


def _same_fx(one: Origin, other: Origin) -> bool:
    return not (one.fx and other.fx and one.fx != other.fx)


def related(here: Origins, there: Origins, twins: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The twin of each node; if it has none, all nodes with the same source."""
    groups: defaultdict[Hashable, list[str]] = defaultdict(list)
    signs: list[Sign] = [_fx, _line, _name, _values]
    for other in there.values():
        for sign in signs:
            for key in sign(other):
                groups[sign, key].append(other.node)
    shared = {key: tuple(names) for key, names in groups.items()}  # not copied for each node

    def same_source(node: Origin) -> tuple[str, ...]:
        found = (sum((shared.get((sign, key), ()) for key in sign(node)), ()) for sign in signs)
        return next(filter(None, found), ())

    return {
        name: (twins[name],) if name in twins else same_source(node) for name, node in here.items()
    }
