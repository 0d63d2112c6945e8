"""What one stage of an audit found."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import WorkbenchError
from ..source import Line

FAULTS = ("broken", "wrong", "risk")
VERDICTS = (*FAULTS, "not tried", "ok")
"""Worst first: there is no file that runs; it answers differently; it will on another call."""


@dataclass(frozen=True)
class Finding:
    """``sentence`` says what is the matter, ``line`` where, ``repair`` what usually helps.

    >>> Finding("size", "ok", "12 B of weights").row()
    ('size', 'ok', '12 B of weights', '')
    """

    stage: str
    verdict: str
    sentence: str
    line: Line | None = None
    repair: str = ""

    @classmethod
    def of_error(cls, stage: str, error: WorkbenchError) -> Finding:
        """An error of this package is a finding already: what, where, why, what helps."""
        return cls(stage, "broken", error.reason, error.line, error.hint)

    def row(self) -> tuple[str, ...]:
        """As it stands in the table of the report."""
        return self.stage, self.verdict, self.sentence, self.line.where if self.line else ""
