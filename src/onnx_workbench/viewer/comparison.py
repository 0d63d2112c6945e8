"""Two graphs side by side: what only one of them has, and which node stands for which."""

from __future__ import annotations

import io
import os
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import files
from ..formatting import plural, table
from . import saved
from .drawing import beside
from .frontend_widget import shared
from .heat import Contrast
from .origin import Origin
from .summary import plain

if TYPE_CHECKING:
    from .netron import Netron

LEFT, RIGHT = "#c44e00", "#0072b2"
"""Vermilion and blue, told apart by most colour-blind readers and, against grey, by all: after
Okabe and Ito (2008), https://jfly.uni-koeln.de/color/."""

_MOST = 6  # names in the report
_Sign = Callable[[Origin], Iterable[Hashable]]


@dataclass(frozen=True, repr=False, eq=False)
class Comparison:
    """The answer of :meth:`Netron.compare`: in a notebook two linked views, elsewhere the report
    and a picture.

    ``both`` pairs the names of the nodes that both graphs have, in the order of the left one;
    ``kin`` are the nodes that a choice of one marks on the other side, for the left and the right.
    """

    left: Netron
    right: Netron
    both: tuple[tuple[str, str], ...]
    kin: tuple[Mapping[str, tuple[str, ...]], ...]

    @cached_property
    def here(self) -> tuple[str, ...]:
        """The nodes that only the left graph has."""
        paired = {mine for mine, _ in self.both}
        return tuple(name for name in self.left.origins if name not in paired)

    @cached_property
    def there(self) -> tuple[str, ...]:
        """The nodes that only the right graph has."""
        paired = {theirs for _, theirs in self.both}
        return tuple(name for name in self.right.origins if name not in paired)

    @cached_property
    def lost(self) -> Counter[str]:
        """Operators that the left graph has more of, and by how many."""
        return _operators(self.left) - _operators(self.right)

    @cached_property
    def gained(self) -> Counter[str]:
        """Operators that the right graph has more of, and by how many."""
        return _operators(self.right) - _operators(self.left)

    def svg(self) -> str:
        """Both graphs as one SVG document, each as its view's :meth:`Netron.svg` gives it."""
        return beside([self.left.svg(), self.right.svg()])

    def png(self) -> bytes:
        """What is on the screen of both views as one PNG file.

        Raises:
            InputError: no page has drawn them, as for :meth:`Netron.png`.
        """
        from matplotlib.image import imread, imsave

        sides = [imread(io.BytesIO(side.png())) for side in (self.left, self.right)]
        height = max(map(len, sides))
        below = [((0, height - len(side)), (0, 0), (0, 0)) for side in sides]
        level = [np.pad(*each, constant_values=1) for each in zip(sides, below, strict=True)]
        imsave(made := io.BytesIO(), np.concatenate(level, axis=1), format="png")
        return made.getvalue()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes one HTML file that opens offline: both views, linked as they are here.

        Returns:
            The path. What is in the file, and what is not, is as for :meth:`Netron.save`.

        Raises:
            InputError: the folder does not exist, or the installed netron cannot be shown.
        """
        goal, sides = files.target(path), (self.left, self.right)
        views = [{**side._kept(), "kin": kin} for side, kin in zip(sides, self.kin, strict=True)]
        title = " | ".join(self._names)
        text = saved.document(title, views, self.left._esm, shared().packed)
        return files.write(goal, text)

    def __repr__(self) -> str:
        names, sides = self._names, (self.left, self.right)
        common = f"{len(self.both):,}"
        counts = [
            ("nodes", *(f"{len(side.origins):,}" for side in sides)),
            ("in both", common, common),
            ("only here", f"{len(self.here):,}", f"{len(self.there):,}"),
        ]
        rows = [("lost", _counted(self.lost)), ("gained", _counted(self.gained))]
        for name, only in zip(names, (self.here, self.there), strict=True):
            rows.append((f"only in {name}", _listed(only)))
        return f"{table(counts, header=('', *names), right=[1, 2])}\n\n{table(rows)}"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        shown = self._box._repr_mimebundle_(**kwargs) or {}
        still = beside([self.left._picture, self.right._picture])
        return {**shown, "text/plain": repr(self), "image/svg+xml": still}

    @cached_property
    def _box(self) -> Any:
        from ipywidgets import Box, Layout

        for side in (self.left, self.right):
            side.layout = Layout(flex="1 1 420px", min_width="0")
        return Box([self.left, self.right], layout=Layout(flex_flow="row wrap", width="100%"))

    @cached_property
    def _names(self) -> tuple[str, str]:
        mine, theirs = (plain(side.name, 30) for side in (self.left, self.right))
        return (mine, theirs) if mine != theirs else (f"{mine} (left)", f"{theirs} (right)")


def compare(left: Netron, right: Netron) -> Comparison:
    """Colours both views and links them, so that a choice in one marks what it is in the other."""
    both = tuple(_pairs(left.origins, right.origins))
    ahead, back = dict(both), {theirs: mine for mine, theirs in both}
    kin = (
        dict(_kin(left.origins, right.origins, ahead)),
        dict(_kin(right.origins, left.origins, back)),
    )
    made = Comparison(left, right, both, kin)
    for side, only, hue, name in zip(
        (left, right), (made.here, made.there), (LEFT, RIGHT), made._names, strict=True
    ):
        side._colour(Contrast(frozenset(only), name, len(made.both), hue))
    _link((left, kin[0]), (right, kin[1]))
    return made


def _link(*sides: tuple[Netron, Mapping[str, tuple[str, ...]]]) -> None:
    busy: list[Any] = []  # the view that is being marked, which is not the reader's choice

    def follow(change: Any) -> None:
        (one, kin), (other, _) = sides if change.owner is sides[0][0] else sides[::-1]
        if one in busy:
            return
        busy.append(other)
        chosen = one.marked if change.name == "marked" else []
        names = (twin for name in chosen or [one.selected] for twin in kin.get(name, ()))
        other.marked = list(dict.fromkeys(names))
        busy.remove(other)

    for view, _ in sides:
        view.observe(follow, ["selected", "marked"])


def _name(origin: Origin) -> Iterator[Hashable]:
    yield origin.node


def _values(origin: Origin) -> Iterator[Hashable]:
    yield from origin.outputs


def _fx(origin: Origin) -> Iterator[Hashable]:
    if origin.fx:
        yield origin.fx


def _line(origin: Origin) -> Iterator[Hashable]:
    if line := origin.line:  # its text: numbers move when something is written above
        yield origin.module, line.function, line.text or line.place


def _pairs(here: Mapping[str, Origin], there: Mapping[str, Origin]) -> list[tuple[str, str]]:
    """Nodes of the same operator by the first sign they share, each node once."""
    twins: dict[str, str] = {}
    taken: set[str] = set()
    for sign, unsure in ((_name, True), (_values, True), (_fx, False), (_line, False)):
        free = _by(sign, (o for o in there.values() if o.node not in taken))
        for mine in (o for o in here.values() if o.node not in twins):
            for key in sign(mine):
                group = free.get((mine.op, key), deque())
                while group and group[0].node in taken:
                    group.popleft()  # a thousand nodes may be of one line
                free_ones = (o for o in group if o.node not in taken)
                fits = (o for o in free_ones if not (unsure and _strange(mine, o)))
                if theirs := next(fits, None):
                    twins[mine.node] = theirs.node
                    taken.add(theirs.node)
                    break
    return [(name, twins[name]) for name in here if name in twins]


def _strange(mine: Origin, theirs: Origin) -> bool:
    return bool(mine.fx and theirs.fx and mine.fx != theirs.fx)


def _kin(
    here: Mapping[str, Origin], there: Mapping[str, Origin], twins: Mapping[str, str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The twin of each node; of one that has none, all nodes of the same source."""
    signs = (_fx, _line, _name, _values)
    known = [(sign, _names(sign, there.values())) for sign in signs]
    for name, mine in here.items():
        found = (sum((by.get(key, ()) for key in sign(mine)), ()) for sign, by in known)
        yield name, (twins[name],) if name in twins else next(filter(None, found), ())


def _names(sign: _Sign, origins: Iterable[Origin]) -> dict[Hashable, tuple[str, ...]]:
    """By sign; all nodes of a sign share one tuple of names."""
    groups: dict[Hashable, list[str]] = {}
    for origin in origins:
        for key in sign(origin):
            groups.setdefault(key, []).append(origin.node)
    return {key: tuple(names) for key, names in groups.items()}


def _by(sign: _Sign, origins: Iterable[Origin]) -> dict[Hashable, deque[Origin]]:
    """By operator and sign."""
    groups: dict[Hashable, deque[Origin]] = {}
    for origin in origins:
        for key in sign(origin):
            groups.setdefault((origin.op, key), deque()).append(origin)
    return groups


def _operators(view: Netron) -> Counter[str]:
    return Counter(origin.op for origin in view.origins.values())


def _counted(operators: Counter[str]) -> str:
    counts = sorted(operators.items(), key=lambda item: (-item[1], item[0]))
    return _listed([f"{count} {plain(op)}" if count > 1 else plain(op) for op, count in counts])


def _listed(names: Iterable[str]) -> str:
    names = [plain(name, 40) for name in names]
    more = [f"and {plural(len(names) - _MOST, 'other')}"] if len(names) > _MOST else []
    return ", ".join([*names[:_MOST], *more]) or "none"
