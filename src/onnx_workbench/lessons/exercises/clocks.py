"""01: which opset to ask for, by the clocks of the installed stack."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from ... import stack
from ...formatting import kind_of
from . import Hint, hint


@cache
def facts() -> stack.Stack:
    """The stack of this machine; the check takes seconds, so it runs once a process."""
    return stack.check()


def judge(answer: Any) -> Iterator[Hint]:
    report = facts()
    writes, knows, loads = report.clocks.writes, report.clocks.knows, report.clocks.loads
    versions = [f"{package.version}." for package in report.packages if package.installed]
    if "." in str(answer) and any(version.startswith(f"{answer}.") for version in versions):
        yield hint("package", answer=answer)
    if type(answer) is not int:
        yield hint("kind", kind=kind_of(answer))
    if answer == writes.opset:
        return
    if answer == report.clocks.default.opset:
        yield hint("default", answer=answer)
    if answer == loads.opset:
        yield hint("loads", answer=answer)
    if answer == knows.opset:
        yield hint("knows", answer=answer)
    if answer in (writes.ir, knows.ir, loads.ir):
        yield hint("ir", answer=answer)
    if writes.opset is None:
        yield hint("broken")
    elif answer < writes.opset:
        yield hint("lower", answer=answer)
    yield hint("higher", answer=answer)
