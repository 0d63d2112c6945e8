"""01: which opset to ask for, by the clocks of the installed stack."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from ... import stack
from ...formatting import kind_of


@cache
def facts() -> stack.Stack:
    """The stack of this machine; the check takes seconds, so it runs once a process."""
    return stack.check()


def judge(answer: Any) -> Iterator[str]:
    report = facts()
    writes, knows, loads = report.clocks.writes, report.clocks.knows, report.clocks.loads
    versions = [f"{package.version}." for package in report.packages if package.installed]
    if "." in str(answer) and any(version.startswith(f"{answer}.") for version in versions):
        yield (
            f"{answer} is the version of a package. Packages, the operator set and the file format "
            "have version numbers of their own; that of the opset is a whole number."
        )
    if type(answer) is not int:
        yield f"An opset is an int; this is {kind_of(answer)}."
    if answer == writes.opset:
        return
    if answer == report.clocks.default.opset:
        yield f"The exporter writes opset {answer} by default. It loads, and a higher one does too."
    if answer == loads.opset:
        yield (
            f"ONNX Runtime would load opset {answer}, but the exporter does not write it. The "
            "lowest clock decides."
        )
    if answer == knows.opset:
        yield (
            f"The onnx package defines operators up to opset {answer}. That says neither that the "
            "exporter writes it nor that ONNX Runtime loads it."
        )
    if answer in (writes.ir, knows.ir, loads.ir):
        yield (
            f"{answer} is an IR version: it counts changes of the file format. The opset counts "
            "changes of the operators."
        )
    if writes.opset is None:
        yield "This stack writes no file that loads. Fix what ow.check() reports, then try again."
    elif answer < writes.opset:
        yield f"Opset {answer} is lower than needed. Look for the highest that still loads."
    yield f"The exporter does not write opset {answer}. Look for the highest that it writes."
