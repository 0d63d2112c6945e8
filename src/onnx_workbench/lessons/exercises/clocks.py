"""01: which opset to ask for, read off the clocks of the stack that is installed."""

from __future__ import annotations

from functools import cache
from typing import Any

from ... import stack
from ..task import Exercise


@cache
def facts() -> stack.Stack:
    """The stack of this machine, looked at once a process: that takes some seconds."""
    return stack.check()


def judge(answer: Any) -> str | None:
    report = facts()
    versions = [package.version for package in report.packages if package.installed]
    if any(_is_version(str(answer), version) for version in versions):
        return (
            f"{answer} is the version of a package. Packages, operator sets and the file format "
            "tick apart; the opset is a whole number of its own."
        )
    if isinstance(answer, bool) or not isinstance(answer, int):
        return f"An opset is a whole number, an int; this is a {type(answer).__name__}."
    return _misread(answer, report.clocks)


def _is_version(answer: str, version: str) -> bool:
    """``2.13`` and ``2.13.0`` are the version 2.13.0."""
    return "." in answer and f"{version}.".startswith(f"{answer}.")


def _misread(answer: int, clocks: stack.Clocks) -> str | None:
    if answer == clocks.writes.opset:
        return None
    if answer == clocks.default.opset:
        return (
            f"Opset {answer} is what the exporter writes unless told otherwise. It loads, and a "
            "higher one does too."
        )
    if answer == clocks.loads.opset:
        return (
            f"ONNX Runtime would load opset {answer}, but there is no such file: the exporter does "
            "not get that far. The slowest clock decides."
        )
    if answer == clocks.knows.opset:
        return (
            f"The onnx package has definitions up to opset {answer}. Knowing an operator is not "
            "writing it, nor running it: look at the other two clocks."
        )
    if answer in {reading.ir for reading in (clocks.writes, clocks.knows, clocks.loads)}:
        return (
            f"{answer} is an IR version: it counts changes of the file format. The opset counts "
            "changes of the operators."
        )
    return _too_far(answer, clocks)


def _too_far(answer: int, clocks: stack.Clocks) -> str:
    if clocks.writes.opset is None:
        return "This stack writes no file that loads. Mend what ow.check() reports, then try again."
    if answer < clocks.writes.opset:
        return f"Opset {answer} is lower than need be. Look for the highest that still loads."
    return f"No opset {answer} comes out of this exporter: look for the highest that it writes."


EXERCISE = Exercise(
    number="01",
    title="Three clocks",
    text=(
        "Read `ow.check().clocks`. You want the newest operators, and the file must load in the "
        "ONNX Runtime that is installed here.\n\n"
        "**Which opset do you ask `ow.export()` for?** Answer with the number."
    ),
    start="Begin with ow.check().clocks: its rows are the clocks, and one column is the opset.",
    judge=judge,
    source="""
        import onnx_workbench as ow

        answer = ow.check().clocks.writes.opset
        """,
)
