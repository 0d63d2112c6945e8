"""One finding of an audit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..proto import grouped
from ..source import Line
from .codes import CODES

FAULTS = ("broken", "wrong", "risk")
VERDICTS = (*FAULTS, "not tried", "ok")
"""Worst first. "broken": no file runs; "wrong": the file gives other results; "risk": it will on
another call."""


@dataclass(frozen=True)
class Finding:
    """What a stage found, as a sentence, with the line it is about and what usually helps.

    ``code`` says what kind of finding it is, ``about`` which dimension, input, output or attribute
    it is about; ``numbers`` has what was measured, in seconds and bytes.

    >>> Finding("OW700", "12 B of weights").row()
    ('OW700', 'size', 'ok', '12 B of weights', '')
    """

    code: str
    sentence: str
    line: Line | None = None
    repair: str = ""
    about: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def stage(self) -> str:
        return CODES[self.code].stage

    @property
    def verdict(self) -> str:
        return CODES[self.code].verdict

    def row(self) -> tuple[str, ...]:
        """Its row in the table of the report."""
        where = self.line.where if self.line else ""
        return self.code, self.stage, self.verdict, self.sentence, where


def rows(findings: Sequence[Finding]) -> Iterator[tuple[str, ...]]:
    """The table of a report, in which the stages that could not run share one row.

    >>> for row in rows([Finding("OW399", "no file"), Finding("OW799", "no file")]):
    ...     print(row)
    ('OW399', '2 stages', 'not tried', 'contract, size: no file', '')
    """
    untried = [finding for finding in findings if finding.verdict == "not tried"]
    for finding in findings:
        if finding not in untried or len(untried) == 1:
            yield finding.row()
        elif finding is untried[0]:
            stages = grouped((one.sentence, one.stage) for one in untried)
            why = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in stages.items())
            yield finding.code, f"{len(untried)} stages", finding.verdict, why, ""
