"""One finding of an audit."""

from __future__ import annotations

from dataclasses import dataclass

from ..source import Line

FAULTS = ("broken", "wrong", "risk")
VERDICTS = (*FAULTS, "not tried", "ok")
"""Worst first. "broken": no file runs; "wrong": the file gives other results; "risk": it will on
another call."""


@dataclass(frozen=True)
class Finding:
    """What a stage found, as a sentence, with the line it is about and what usually helps.

    >>> Finding("size", "ok", "12 B of weights").row()
    ('size', 'ok', '12 B of weights', '')
    """

    stage: str
    verdict: str
    sentence: str
    line: Line | None = None
    repair: str = ""

    def row(self) -> tuple[str, ...]:
        """Its row in the table of the report."""
        return self.stage, self.verdict, self.sentence, self.line.where if self.line else ""
