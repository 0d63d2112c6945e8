"""The lessons in order, and which of their exercises a learner has solved."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from .. import files
from ..errors import InputError
from ..formatting import table
from .copies import RECORD

LESSONS = {
    "00": "Start here",
    "01": "Check the stack",
    "02": "Capture a graph",
    "03": "Export to ONNX",
    "04": "See the graph",
    "05": "Race the runtimes",
    "06": "Keep shapes dynamic",
    "07": "Trust the numbers",
    "08": "Teach a missing op",
    "09": "Audit your model",
    "10": "Benchmark honestly",
    "11": "A real model",
    "12": "Smaller",
}
"""Number -> title. The map, 00, has no exercise; every other lesson ends in one."""

SOLVABLE = tuple(sorted({*LESSONS, "05b"} - {"00"}))
"""The exercises in order: the lesson's number, with a letter for its second."""

_MARKS = {"": "", "[x]": "&#10003;", "[ ]": "&#9675;"}


@dataclass(frozen=True, repr=False)
class Progress:
    """The exercises that are solved; a lesson is ticked when all of its exercises are.

    ``note`` says what is wrong with the file, if anything.

    >>> print(Progress(frozenset({"01"})))
    1 of 13 exercises solved
         00  Start here
    [x]  01  Check the stack
    [ ]  02  Capture a graph
    [ ]  03  Export to ONNX
    [ ]  04  See the graph
    [ ]  05  Race the runtimes
    [ ]  06  Keep shapes dynamic
    [ ]  07  Trust the numbers
    [ ]  08  Teach a missing op
    [ ]  09  Audit your model
    [ ]  10  Benchmark honestly
    [ ]  11  A real model
    [ ]  12  Smaller
    """

    solved: frozenset[str] = frozenset()
    note: str = ""

    @property
    def next(self) -> str | None:
        """The first lesson with an unsolved exercise, None when all are solved."""
        return next((lesson(number) for number in SOLVABLE if number not in self.solved), None)

    def __repr__(self) -> str:
        return f"{self._headline()}\n{table(self._rows())}\n{self.note}".rstrip()

    def _repr_html_(self) -> str:
        rows = ""
        for tick, number, title in self._rows():
            link = f'<a href="{notebook(number)}">{title}</a>'
            if number == self.next:
                link = f"<b>{link}</b> &larr; next"
            cells = f"<td>{_MARKS[tick]}</td><td>{number}</td><td style=text-align:left>{link}</td>"
            rows += f"<tr>{cells}</tr>"
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return f"<p>{self._headline()}</p><table>{rows}</table>{note}"

    def _headline(self) -> str:
        return f"{len(self.solved)} of {len(SOLVABLE)} exercises solved"

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        for number, title in LESSONS.items():
            own = {exercise for exercise in SOLVABLE if lesson(exercise) == number}
            tick = "[x]" if own <= self.solved else "[ ]"
            yield tick if own else "", number, title


def lesson(exercise: str) -> str:
    """The lesson of an exercise.

    >>> lesson("05b")
    '05'
    """
    return exercise[:2]


def after(exercise: str) -> str:
    """Where to go when an exercise is solved, in a sentence.

    >>> after("04"), after("05")
    ('Next: lesson 05, Race the runtimes.', 'Next: exercise 05b, in this lesson.')
    """
    later = next((number for number in SOLVABLE if number > exercise), None)
    if later is None:
        return "That was the last one."
    if lesson(later) == lesson(exercise):
        return f"Next: exercise {later}, in this lesson."
    return f"Next: lesson {later}, {LESSONS[later]}."


def notebook(number: str) -> str:
    """The file name of a lesson.

    >>> notebook("05")
    '05-race-the-runtimes.ipynb'
    """
    return f"{number}-{LESSONS[number].lower().replace(' ', '-')}.ipynb"


def progress() -> Progress:
    """What is solved so far, read from ``progress.json`` in ``$ONNX_WORKBENCH_HOME``.

    Without that variable it is beside the notebooks in the learner's copy of the course, and
    elsewhere in ``~/.onnx-workbench``. A file that is missing, broken or locked never
    stops a lesson: it counts as empty, and ``note`` says what is wrong.
    """
    try:
        solved = json.loads(_file().read_text(encoding="utf-8"))["solved"]
        return Progress(frozenset(solved) & frozenset(SOLVABLE))
    except FileNotFoundError:
        return Progress()
    except OSError as error:
        return Progress(note=f"Your progress in {_shown()} cannot be read: {error.strerror}.")
    except (ValueError, KeyError, TypeError):
        return Progress(
            note=f"Your progress in {_shown()} is broken and counts as empty. The next exercise "
            "that you solve overwrites it."
        )


def record(exercise: str) -> str:
    """Add a solved exercise to the file. Returns what went wrong, in a sentence, or ""."""
    solved = sorted(progress().solved | {exercise})
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        files.write(_file(), json.dumps({"solved": solved}))
    except (OSError, InputError) as error:
        why = getattr(error.__cause__ or error, "strerror", error)
        return f"Your progress could not be saved in {_shown()}: {why}."
    return ""


def _file() -> Path:
    here = Path.cwd() if Path(RECORD).exists() else Path.home() / ".onnx-workbench"
    return Path(os.environ.get("ONNX_WORKBENCH_HOME") or here) / "progress.json"


def _shown() -> str:
    """The path, as ``~/...`` if possible, so that a notebook's output does not name the user."""
    if not _file().is_relative_to(Path.home()):
        return str(_file())
    return f"~/{_file().relative_to(Path.home()).as_posix()}"
