"""An exercise that checks itself: the task, the verdict on an answer, and a solution."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from textwrap import dedent
from typing import Any

from ..errors import WorkbenchError
from ..source import is_users, user_line
from .course import after, record

_CODE = re.compile(r"`([^`\n]+)`")
_JUDGES = Path(__file__).parent / "exercises"


@dataclass(frozen=True, repr=False, eq=False)
class Exercise:
    """One exercise. ``text`` is the task in Markdown; ``start`` is the hint for a blank answer.

    ``judge`` returns the hint that fits a wrong answer, and None for a right one. It makes the
    facts that it compares with afresh, when it is called. ``material`` makes what the task hands
    out, ``source`` is a solution that leaves ``answer`` behind.
    """

    number: str
    title: str
    text: str
    start: str
    judge: Callable[[Any], str | None] = field(compare=False)
    source: str
    material: Callable[[], Any] | None = None

    @property
    def given(self) -> Any:
        """What the task hands out, None where it hands out nothing."""
        return self.material() if self.material else None

    def check(self, answer: Any) -> Verdict:
        """Is this the answer? If so, it is recorded; if not, the verdict holds a hint.

        An exception that the answer raises is caught and told. ``...``, None and "" are blank.
        """
        try:
            hint = self.start if blank(answer) else self.judge(answer)
        except Exception as error:
            hint = _told(error)
        if hint is not None:
            return Verdict(self.number, right=False, text=hint)
        return Verdict(self.number, right=True, text=after(self.number), note=record(self.number))

    def solution(self) -> Solution:
        """One way to solve it, as source text and as value."""
        return Solution(self.number, dedent(self.source).strip())

    def __repr__(self) -> str:
        return f"Exercise {self.number}: {self.title}\n\n{self.text}"

    def _repr_markdown_(self) -> str:
        return f"**Exercise {self.number}: {self.title}**\n\n{self.text}"


@dataclass(frozen=True, repr=False)
class Verdict:
    """Right, or a hint that fits the wrong answer. ``note`` says that it could not be saved."""

    number: str
    right: bool
    text: str
    note: str = ""

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        head = "Right." if self.right else "Not yet."
        return "\n".join(filter(None, (f"{head} {self.text}", self.note)))

    def _repr_html_(self) -> str:
        mark, head = ("&#10003;", "Right.") if self.right else ("&#9675;", "Not yet.")
        words = _CODE.sub(
            r"<code>\1</code>", escape("\n".join(filter(None, (self.text, self.note))))
        )
        return f'<div style="white-space:pre-wrap">{mark} <b>{head}</b> {words}</div>'


@dataclass(frozen=True, repr=False)
class Solution:
    """One solution: ``text`` is Python that leaves ``answer`` behind, ``value`` is that answer."""

    number: str
    text: str

    @property
    def value(self) -> Any:
        """The answer; the text is run for it, in the current folder."""
        names: dict[str, Any] = {}
        exec(compile(self.text, f"<solution {self.number}>", "exec"), names)
        return names["answer"]

    def __repr__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.text}\n```"


def blank(answer: Any) -> bool:
    """
    >>> [blank(answer) for answer in (..., None, " ", 0)]
    [True, True, True, False]
    """
    return answer is None or answer is ... or (isinstance(answer, str) and not answer.strip())


def _told(error: Exception) -> str:
    if isinstance(error, WorkbenchError):
        return f"Your answer stopped with this {type(error).__name__}:\n{error}"
    line = user_line(error.__traceback__)
    ours = line is None or Path(line.file).parent == _JUDGES or not is_users(line.file)
    place = "" if line is None or ours else f" at {line.place}\n    {line.text}"
    return f"Your answer raised {type(error).__name__}: {error}{place}"
