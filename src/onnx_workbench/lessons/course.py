"""The lessons in order, and which of their exercises a learner has solved."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

from .. import files
from ..errors import InputError
from ..formatting import table

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
}
"""Number -> title. The map begins with 00 and has no exercise; every other lesson ends in one."""

SOLVABLE = tuple(sorted({*LESSONS, "05b", "05c"} - {"00"}))
"""The exercises in order: a lesson's own number is its first, a letter behind it counts on."""

_FILE = "progress.json"


@dataclass(frozen=True, repr=False)
class Progress:
    """The exercises that were solved; a lesson is ticked when all of its are.

    ``note`` says what went wrong with the file, if so.

    >>> print(Progress(frozenset({"01"})))
    1 of 11 exercises solved
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
    """

    solved: frozenset[str] = frozenset()
    note: str = ""

    @property
    def next(self) -> str | None:
        """The first lesson with an exercise that is not solved, None when all are."""
        return next((lesson(number) for number in SOLVABLE if number not in self.solved), None)

    def __repr__(self) -> str:
        rows = [(self._tick(number), number, title) for number, title in LESSONS.items()]
        return "\n".join(filter(None, (self._headline(), table(rows), self.note)))

    def _repr_html_(self) -> str:
        rows = "".join(self._row(number) for number in LESSONS)
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return f"<p>{self._headline()}</p><table>{rows}</table>{note}"

    def _headline(self) -> str:
        return f"{len(self.solved)} of {len(SOLVABLE)} exercises solved"

    def _tick(self, number: str) -> str:
        mine = {exercise for exercise in SOLVABLE if lesson(exercise) == number}
        if not mine:
            return ""
        return "[x]" if mine <= self.solved else "[ ]"

    def _row(self, number: str) -> str:
        mark = {"[x]": "&#10003;", "[ ]": "&#9675;"}.get(self._tick(number), "")
        link = f'<a href="{notebook(number)}">{LESSONS[number]}</a>'
        title = f"<b>{link}</b> &larr; next" if number == self.next else link
        return f"<tr><td>{mark}</td><td>{number}</td><td style=text-align:left>{title}</td></tr>"


def lesson(exercise: str) -> str:
    """The lesson that an exercise belongs to.

    >>> lesson("05b")
    '05'
    """
    return exercise[:2]


def after(exercise: str) -> str:
    """Where to go when an exercise is solved, in a sentence.

    >>> after("04"), after("05")
    ('Next: lesson 05, Race the runtimes.', 'Next: exercise 05b, in this lesson.')
    """
    later = [number for number in SOLVABLE if number > exercise]
    if not later:
        return "That was the last one."
    if lesson(later[0]) == lesson(exercise):
        return f"Next: exercise {later[0]}, in this lesson."
    return f"Next: lesson {later[0]}, {LESSONS[later[0]]}."


def notebook(number: str) -> str:
    """The file name of a lesson.

    >>> notebook("05")
    '05-race-the-runtimes.ipynb'
    """
    return f"{number}-{LESSONS[number].lower().replace(' ', '-')}.ipynb"


def progress() -> Progress:
    """What is solved so far: read from ``progress.json`` in :func:`home`.

    A file that is missing, broken or locked never stops a lesson; ``note`` says what is wrong.
    """
    file = home() / _FILE
    try:
        solved = json.loads(file.read_text(encoding="utf-8"))["solved"]
        return Progress(frozenset(solved) & frozenset(SOLVABLE))
    except FileNotFoundError:
        return Progress()
    except OSError as error:
        return Progress(note=f"Your progress in {_short(file)} cannot be read: {error.strerror}.")
    except (ValueError, KeyError, TypeError):
        return Progress(
            note=f"Your progress in {_short(file)} is broken and counts as empty; the next solved "
            "exercise writes it anew."
        )


def record(number: str) -> str:
    """Add a solved exercise to the file. Returns what went wrong, in a sentence, or nothing."""
    file = home() / _FILE
    try:
        _write(file, progress().solved | {number})
    except (OSError, InputError) as error:
        why = getattr(error.__cause__ or error, "strerror", error)
        return f"Your progress could not be saved in {_short(file)}: {why}."
    return ""


def home() -> Path:
    """The folder of the learner's file: ``$ONNX_WORKBENCH_HOME``, else ``~/.onnx-workbench``."""
    return Path(os.environ.get("ONNX_WORKBENCH_HOME") or Path.home() / ".onnx-workbench")


def _write(file: Path, solved: Iterable[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write(file, json.dumps({"solved": sorted(solved)}))


def _short(file: Path) -> str:
    """``~/...`` where it can be, so that a notebook's output does not name the user."""
    try:
        return f"~/{file.relative_to(Path.home()).as_posix()}"
    except ValueError:
        return str(file)
