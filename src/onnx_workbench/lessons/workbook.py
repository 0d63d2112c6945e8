"""The exercises by number."""

from __future__ import annotations

from ..errors import InputError
from .exercises import batch, breaks, clocks, green, hot, length, mend, missing, node, ratio, rigged
from .task import Exercise

_ROOMS = (clocks, breaks, batch, node, ratio, rigged, hot, length, mend, missing, green)
EXERCISES = {room.EXERCISE.number: room.EXERCISE for room in _ROOMS}


def exercise(number: str) -> Exercise:
    """The exercise ``number``: that of its lesson, a letter behind it for a further one.

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
