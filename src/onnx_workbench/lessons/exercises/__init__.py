"""The judges, one in each module; a Markdown file of the same name has task, hints and solution.

``judge(answer)`` yields the hints that fit a wrong answer; the learner sees the first. Optional are
``given()``, which makes the material of the task, and ``ANSWER``, the class of an answer: an answer
of another class gets the hint ``kind``.
"""

from __future__ import annotations

from typing import Any

from ...source import Line

Hint = tuple[str, dict[str, Any]]
"""The name of a hint under "Wrong answers" of the page, and the values of its ``$placeholders``."""


def hint(name: str, /, **values: Any) -> Hint:
    return name, values


def difference(reason: str) -> str:
    """What ``verify`` says of the expected ``a`` and the answer's ``b``, for one who sees neither.

    >>> difference("a is float32[3], b is float32[2]"), difference("2 of 3 differ")
    ('a is float32[3], b is float32[2], where b is yours', '2 of 3 differ')
    """
    return f"{reason}, where b is yours" if reason.startswith("a is ") else reason


def is_line(answer: Any, line: Line) -> bool:
    """Whether an answer is this line, its text, its place or its number.

    >>> line = Line("model.py", 12, "forward", "return x.relu()")
    >>> [is_line(answer, line) for answer in (line, 12, "model.py:12", " return x.relu()", "relu")]
    [True, True, True, True, False]
    """
    return answer == line or str(answer).strip() in (line.text, line.place, str(line.number))
