"""The judges, one in each module; a Markdown file of the same name has task, hints and solution.

``judge(answer)`` yields the hints that fit a wrong answer; the learner sees the first. Optional are
``given()``, which makes the material of the task, and ``ANSWER``, the class of an answer: an answer
of another class gets the hint ``kind``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...comparison import Agreement
from ...source import Line

Hint = tuple[str, dict[str, Any]]
"""The name of a hint under "Wrong answers" of the page, and the values of its ``$placeholders``."""


def hint(name: str, /, **values: Any) -> Hint:
    return name, values


def differs(name: str, found: Agreement, /, **values: Any) -> Iterator[Hint]:
    """A hint with the ``$reason`` why an answer's results differ from those expected, if they do.

    >>> from ...comparison import compare
    >>> next(differs("wrong", compare([3], [4])))
    ('wrong', {'reason': 'a is 3, b is 4, where b is yours'})
    """
    if reason := found.worst.reason:
        whose = ", where b is yours" * reason.startswith("a is ")  # who reads it sees neither call
        yield hint(name, reason=f"{reason}{whose}", **values)


def is_line(answer: Any, line: Line) -> bool:
    """Whether an answer is this line, its text, its place or its number.

    >>> line = Line("model.py", 12, "forward", "return x.relu()")
    >>> [is_line(answer, line) for answer in (line, 12, "model.py:12", " return x.relu()", "relu")]
    [True, True, True, True, False]
    """
    return answer == line or str(answer).strip() in (line.text, line.place, str(line.number))
