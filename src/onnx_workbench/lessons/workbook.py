"""The exercises by number."""

from __future__ import annotations

from ..errors import InputError
from .exercises import batch, breaks, clocks, mend, node, ratio
from .task import Exercise

EXERCISES = {e.number: e for e in (m.EXERCISE for m in (clocks, breaks, batch, node, ratio, mend))}


def exercise(number: str) -> Exercise:
    """The exercise at the end of lesson ``number``.

    Raises:
        InputError: there is no exercise of this number.

    >>> task = exercise("05")
    >>> task.title
    'An honest ratio'
    >>> bool(task.check(...))
    False
    """
    if number not in EXERCISES:
        raise InputError(
            f"There is no exercise {number!r}. There are {', '.join(map(repr, EXERCISES))}; "
            "pass one of these, with its leading zero."
        )
    return EXERCISES[number]
