"""The exercises: each is a page of Markdown with a judge beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from importlib import import_module
from pathlib import Path
from string import Template
from typing import Any

from ..errors import InputError, WorkbenchError
from ..formatting import kind_of, wrapped
from ..source import is_user_file, user_line
from .course import after, record
from .exercises import Hint, hint

_FOLDER = Path(__file__).parent / "exercises"
_PAGE = re.compile(
    r"# (\w+) (.+?)\n\n(.+)\n\n## Hint\n\n(.+)\n\n## Solution\n\n```python\n(.+)\n```\n\n"
    r"## Wrong answers\n\n(.+)",
    re.S,
)
_HINT = re.compile(r"^- ([\w -]+): (.+?)\n(?=- |\Z)", re.S | re.M)


@dataclass(frozen=True, repr=False, eq=False)
class Exercise:
    """One exercise: ``text`` is the task in Markdown, ``hint`` says how to begin.

    ``judge`` yields the names and values of the ``hints`` that fit a wrong answer, the most helpful
    first, and nothing for a right one. It gets instances of ``kind`` alone. ``material`` makes the
    task's material; ``source`` is the solution, Python that sets ``answer``.
    """

    number: str
    title: str
    text: str
    hint: str
    source: str
    hints: Mapping[str, str]
    judge: Callable[[Any], Iterator[Hint]]
    material: Callable[[], Any] = lambda: None
    kind: Any = object

    @property
    def given(self) -> Any:
        """The material of the task, None if there is none."""
        return self.material()

    def check(self, answer: Any) -> Feedback:
        """Check an answer: a right one is recorded, a wrong one gets a hint.

        ``...``, None and "" get the hint how to begin. An exception that the answer raises becomes
        the hint.
        """
        if answer is None or answer is ... or (isinstance(answer, str) and not answer.strip()):
            return Feedback(False, self.hint)
        try:
            fitting = next(self._judged(answer), None)
        except Exception as error:
            return Feedback(False, _described(error))
        if fitting:
            name, values = fitting
            return Feedback(False, Template(self.hints[name]).substitute(values))
        return Feedback(True, after(self.number), record(self.number))

    def _judged(self, answer: Any) -> Iterator[Hint]:
        if not isinstance(answer, self.kind):
            yield hint("kind", kind=kind_of(answer))
        yield from self.judge(answer)

    def solution(self) -> Solution:
        """One way to solve it."""
        return Solution(self.source)

    def __repr__(self) -> str:
        return wrapped(f"Exercise {self.number}: {self.title}\n\n{self.text}")

    def _repr_markdown_(self) -> str:
        return f"**Exercise {self.number}: {self.title}**\n\n{self.text}"


@dataclass(frozen=True, repr=False)
class Feedback:
    """Right, or a hint that fits the wrong answer. ``note`` says why it could not be saved."""

    right: bool
    text: str
    note: str = ""

    def __bool__(self) -> bool:
        return self.right

    def __str__(self) -> str:
        head = "Right." if self.right else "Not yet."
        return f"{head} {self.text}\n{self.note}".rstrip()

    def __repr__(self) -> str:
        return wrapped(str(self))

    def _repr_html_(self) -> str:
        mark = "&#10003;" if self.right else "&#9675;"
        text = re.sub(r"`([^`\n]+)`", r"<code>\1</code>", escape(str(self)))
        head = re.sub(r"^(Right|Not yet)\.", r"<b>\g<0></b>", text)
        return f'<div style="white-space:pre-wrap">{mark} {head}</div>'


class Solution(str):
    """Python that sets ``answer``; ``value`` runs it in the current folder and returns it."""

    @property
    def value(self) -> Any:
        names: dict[str, Any] = {}
        exec(self, names)
        return names["answer"]

    __repr__ = str.__str__

    def _repr_markdown_(self) -> str:
        return f"```python\n{self}\n```"


def exercise(number: str) -> Exercise:
    """The exercise ``number``: the lesson's number, with a letter if the lesson has several.

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
            f"There is no exercise {number!r}.",
            f"Pass one of {', '.join(map(repr, EXERCISES))}, with its leading zero.",
        )
    return EXERCISES[number]


def _described(error: Exception) -> str:
    if isinstance(error, WorkbenchError):
        return f"Your answer stopped with this {type(error).__name__}:\n{error}"
    text = f"Your answer raised {type(error).__name__}: {error}"
    line = user_line(error.__traceback__)
    if line is None or not is_user_file(line.file) or Path(line.file).parent == _FOLDER:
        return text
    return f"{text} at {line.place}\n    {line.text}"


def _read(page: Path) -> Exercise:
    match = _PAGE.fullmatch(page.read_text("utf-8"))
    assert match, page
    number, title, text, hint, source, wrong = match.groups()
    hints = {name: words.replace("\n  ", "\n") for name, words in _HINT.findall(wrong)}
    judge = import_module(f".exercises.{page.stem}", __package__)
    given, kind = getattr(judge, "given", lambda: None), getattr(judge, "ANSWER", object)
    return Exercise(number, title, text, hint, source, hints, judge.judge, given, kind)


_TASKS = sorted(map(_read, _FOLDER.glob("*.md")), key=lambda task: task.number)
EXERCISES = {task.number: task for task in _TASKS}
