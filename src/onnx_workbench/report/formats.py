"""The report as data, as ``report.schema.json`` describes it, and as marks in a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..formatting import for_json
from ..source import Line, is_cell, is_user_file, without_folders
from .codes import CODES
from .finding import Finding
from .stages import STAGES

if TYPE_CHECKING:
    from . import Audit

VERSION = 1
"""Of the schema: another number where a field goes, or changes its meaning."""

_LEVELS = {"risk": "warning"}  # all others are errors


def to_dict(audit: Audit) -> dict[str, Any]:
    """The report as JSON has it: no NaN, no folder of this machine."""
    ran = {finding.stage: finding.verdict for finding in reversed(audit.findings)}  # the worst last
    return {
        "schema": VERSION,
        "model": audit.case.name,
        "verdict": "faults" if audit.faults else "no faults",
        "stages": {stage.name: ran.get(stage.name, "left out") for stage in STAGES},
        "findings": [
            {**finding_to_dict(finding), "fault": finding in audit.faults}
            for finding in audit.findings
        ],
        "versions": {k: v for k, v in audit.versions.items() if k != "platform"},
        "machine": audit.versions["platform"],
        "when": audit.when,
    }


def finding_to_dict(finding: Finding) -> dict[str, Any]:
    line = finding.line
    return {
        "code": finding.code,
        "stage": finding.stage,
        "verdict": finding.verdict,
        "sentence": without_folders(finding.sentence),
        "file": relative(line) if line else None,
        "line": line.number if line else None,
        "text": without_folders(line.text) if line else None,
        "about": finding.about,
        "repair": without_folders(finding.repair),
        "numbers": {key: for_json(value) for key, value in finding.numbers.items()},
    }


def relative(line: Line) -> str:
    """The file of a line as the user's repository names it: relative to the folder that has
    ``.git``, else to the working folder. A file outside of both has the name of ``Line.place``."""
    path = Path(line.file).absolute()
    roots = [folder for folder in path.parents if (folder / ".git").exists()]
    for root in [*roots[:1], Path.cwd()]:
        if is_user_file(line.file) and not is_cell(line.file) and path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return line.place.rpartition(":")[0]


def github(findings: Iterable[Finding]) -> Iterator[str]:
    """Workflow commands of GitHub Actions, each of which puts a finding on its line.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
    """
    for finding in findings:
        title = f"{finding.code} {CODES[finding.code].title}"
        where = {"title": title}
        if finding.line:
            where = {"file": relative(finding.line), "line": str(finding.line.number), **where}
        properties = ",".join(f"{key}={_escaped(value, ':,')}" for key, value in where.items())
        level = _LEVELS.get(finding.verdict, "error")
        words = without_folders(f"{finding.sentence}\n{finding.repair}".strip())
        yield f"::{level} {properties}::{_escaped(words)}"


def _escaped(text: str, more: str = "") -> str:
    for sign in ("%", "\r", "\n", *more):
        text = text.replace(sign, f"%{ord(sign):02X}")
    return text
