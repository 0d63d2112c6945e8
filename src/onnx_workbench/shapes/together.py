"""Dimensions moved together, to sizes that all differ: each alone may be kept, and no two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from .sizes import BAD, FINE, Asked, Call, Subject, Trial, outcome


@dataclass(frozen=True)
class Joint:
    """What happened with these dimensions at these sizes, the others at the example's.

    ``alike`` says of two that fail so that they are kept where both have one size.
    """

    dimensions: tuple[str, ...]
    sizes: tuple[int, ...]
    outcome: str
    said: str
    call: Call | None = field(default=None, compare=False, repr=False)
    alike: bool = False

    def __str__(self) -> str:
        at = " and ".join(f"{d} = {n}" for d, n in zip(self.dimensions, self.sizes, strict=True))
        only = ", and only where both are equal it agrees" if self.alike else ""
        return f"at {at}: {self.outcome}{': ' * bool(self.said)}{self.said}{only}"


def joint(subject: Subject, found: Sequence[Sequence[Trial]]) -> Iterator[Joint]:
    """All dimensions moved at once, upwards and downwards; and where that fails, each two of them.

    A dimension moves by the name that the user gave it, also where torch.export took two names for
    one size: that may be its own assumption, which the model does not make. Sizes are those at
    which the dimension alone is ``found`` to be fine.
    """
    groups = _groups(subject, found)
    if len(groups) < 2:
        return
    up, down = _sizes(subject, groups), _sizes(subject, groups[::-1])[::-1]
    first = [_tried(subject, groups, sizes) for sizes in (up, down)]
    yield from first
    if all(one.outcome in FINE for one in first) or len(groups) == 2:
        return
    for pair in combinations(groups, 2):
        yield _tried(subject, pair, _sizes(subject, pair))


Group = tuple[tuple[Asked, ...], tuple[int, ...]]
"""The dimensions of one name, and the sizes at which they are fine."""


def _groups(subject: Subject, found: Sequence[Sequence[Trial]]) -> list[Group]:
    named: dict[object, list[Asked]] = {}
    sizes: dict[object, tuple[int, ...]] = {}
    for asked, trials in zip(subject.asked, found, strict=True):
        fine = sorted({trial.size for trial in trials if trial.outcome in FINE and trial.size > 1})
        if asked.size.is_Symbol and not asked.frozen and len(fine) > 1:
            key = asked.name or (asked.tensor, asked.axis)
            named.setdefault(key, []).append(asked)
            sizes[key] = tuple(fine)
    return [(tuple(group), sizes[key]) for key, group in named.items()]


def _sizes(subject: Subject, groups: Sequence[Group]) -> list[int]:
    """For each the smallest size that no other has, and not the example's, where there is one."""
    chosen: list[int] = []
    for group, fine in groups:
        usual = subject.example[group[0].size]
        free = (n for n in fine if n not in chosen and n != usual)
        chosen.append(next(free, usual))
    return chosen


def _tried(subject: Subject, groups: Sequence[Group], sizes: Sequence[int]) -> Joint:
    said = _run(subject, groups, sizes)
    alike = len(groups) == 2 and said.outcome in BAD and _alike(subject, groups)
    names = tuple(group[0].place for group, _ in groups)
    return Joint(names, tuple(sizes), said.outcome, said.said, said.call, alike)


def _alike(subject: Subject, groups: Sequence[Group]) -> bool:
    """Whether both, which are equal in the example, are fine at one other size."""
    usual = {subject.example[group[0].size] for group, _ in groups}
    both = sorted(set(groups[0][1]).intersection(groups[1][1]) - usual)
    return len(usual) == 1 and any(_run(subject, groups, (n, n)).outcome in FINE for n in both[:1])


def _run(subject: Subject, groups: Sequence[Group], sizes: Sequence[int]) -> Trial:
    own = {
        (asked.tensor, asked.axis): size
        for (group, _), size in zip(groups, sizes, strict=True)
        for asked in group
    }
    symbols = {asked.size: own[asked.tensor, asked.axis] for (g, _) in groups for asked in g}
    moved = tuple(
        (tensor, axis, own.get((tensor, axis), size))
        for tensor, axis, size in subject.moved({**subject.example, **symbols})
    )
    return outcome(subject, max(sizes), moved)


def apart(joints: Sequence[Joint], place: str) -> list[str]:
    """The dimensions that this one fails with unless both are equal."""
    pairs = {one.dimensions for one in joints if one.alike and place in one.dimensions}
    return sorted(other for pair in pairs for other in set(pair) - {place})
