"""One finding of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
