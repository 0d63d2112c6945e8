"""Write the table of lessons, with minutes, into lesson 00 and the README: ``python minutes.py``.

The minutes are an estimate: words / 200, 3 seconds for each line of code, the seconds that the
cells took when render.py ran them, and 3 minutes for each exercise, 6 for a long one.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import nbformat

from onnx_workbench.lessons import course

HERE = Path(__file__).parent
LONG = {"08", "09", "10", "12"}
"""Exercises that are answered with more than a few lines or a number."""
QUESTION = re.compile(r"\*\*The question:\*\* (.+?\?)", re.S)
ROWS = re.compile(r"(?:^\| \[\d\d .*\|\n)+", re.M)
ROW = re.compile(r"^\| \[(\d\d) [^|]*\|[^|]*\|(.*\|)? \d+ \|$", re.M)
"""Lesson, question, what only this table says, and minutes."""


@cache
def facts(number: str) -> tuple[str, int]:
    """The question of a lesson, and its minutes."""
    lesson = nbformat.read(HERE / course.notebook(number), as_version=4)
    prose = " ".join(cell.source for cell in lesson.cells if cell.cell_type == "markdown")
    words = re.sub(r"\]\([^)]*\)", "]", prose).split()  # an address is not read
    code = "\n".join(cell.source for cell in lesson.cells if cell.cell_type == "code").splitlines()
    exercises = [6 if one in LONG else 3 for one in course.SOLVABLE if course.lesson(one) == number]
    if "seconds" not in lesson.metadata:
        print(f"The seconds of lesson {number} are missing: run render.py {number} first.")
    seconds = lesson.metadata.get("seconds", 0)
    question = " ".join(QUESTION.search(prose)[1].split())
    minutes = round(len(words) / 200 + (3 * len(code) + seconds) / 60 + sum(exercises))
    return question[0].upper() + question[1:], minutes


def filled(page: str, folder: str = "") -> str:
    """The page with its table of lessons made anew; further columns stay."""
    more = dict(ROW.findall(page))
    rows = ""
    for number, title in course.LESSONS.items():
        question, minutes = facts(number)
        link = f"[{number} {title}]({folder}{course.notebook(number)})"
        rows += f"| {link} | {question} |{more.get(number, '')} {minutes} |\n"
    return ROWS.sub(lambda _: rows, page)


def main() -> None:
    path = HERE / course.notebook("00")
    lesson = nbformat.read(path, as_version=4)
    for cell in lesson.cells:
        cell.source = filled(f"{cell.source}\n")[:-1]
    nbformat.write(lesson, path)
    readme = HERE.parent / "README.md"
    readme.write_text(filled(readme.read_text("utf-8"), "notebooks/"), encoding="utf-8")


if __name__ == "__main__":
    main()
