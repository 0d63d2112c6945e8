"""Two reports compared. A finding is the same if its code, file, line's text and subject are."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..formatting import Part, Report, Table, kind_of, plural
from . import formats
from .finding import Finding

if TYPE_CHECKING:
    from . import Audit

Identity = tuple[str, str, str, str]

_WRITE = "Write one: python -m onnx_workbench audit ... --format json > known.json"


def identity(finding: Mapping[str, Any]) -> Identity:
    """What a finding keeps when lines above it come and go: not the number of its line."""
    return tuple(finding[key] or "" for key in ("code", "file", "text", "about"))  # type: ignore


@dataclass(frozen=True, repr=False, eq=False)
class Changes(Report):
    """What :meth:`Audit.compare` found: the faults that are ``gone``, ``new``, and in both reports.

    It is true if no fault is new. The findings are dicts, as in :meth:`Audit.to_dict`.
    """

    gone: tuple[Mapping[str, Any], ...]
    new: tuple[Mapping[str, Any], ...]
    kept: tuple[Mapping[str, Any], ...]

    def __bool__(self) -> bool:
        return not self.new

    def _parts(self) -> Iterator[Part]:
        yield f"{len(self.gone)} gone, {len(self.new)} new, {len(self.kept)} in both"
        groups = {"new": self.new, "gone": self.gone, "both": self.kept}
        rows = [_row(word, one) for word, found in groups.items() for one in found]
        yield Table(rows, ("", "code", "verdict", "what was found", "line"))


def _row(word: str, finding: Mapping[str, Any]) -> tuple[str, ...]:
    where = f"{finding['file']}:{finding['line']}" if finding["line"] else ""
    return word, finding["code"], finding["verdict"], finding["sentence"], where


def compare(audit: Audit, old: Any) -> Changes:
    before = {identity(one): one for one in faults(old)}
    now = {identity(one): one for one in faults(audit)}
    return Changes(
        tuple(one for at, one in before.items() if at not in now),
        tuple(one for at, one in now.items() if at not in before),
        tuple(one for at, one in now.items() if at in before),
    )


def faults(report: Any) -> list[Mapping[str, Any]]:
    """The findings of a report that let an audit fail, as dicts.

    Raises:
        InputError: it is no report, or its file cannot be read.
    """
    if hasattr(report, "to_dict"):
        report = report.to_dict()
    elif isinstance(report, (str, os.PathLike)):
        report = _read(report)
    try:
        if report["schema"] != formats.VERSION:
            raise InputError(
                f"The report has schema {report['schema']!r:.20}, and this version reads "
                f"{formats.VERSION}.",
                _WRITE,
            )
        found = [one for one in report["findings"] if one["fault"]]
        for one in found:  # a field may be missing, or be no text
            hash(identity(one))
            _row("", one)
    except (TypeError, KeyError) as error:
        lacks = f" without {error}" if isinstance(error, KeyError) else ""
        raise InputError(
            f"A report is an Audit, its to_dict(), or a JSON file of that; this is "
            f"{kind_of(report)}{lacks}.",
            _WRITE,
        ) from error
    return found


def _read(path: str | os.PathLike[str]) -> Any:
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{os.fspath(path)!r} is no report: {error}.",
            _WRITE,
        ) from error


def gate(
    audit: Audit, known: Iterable[Mapping[str, Any]], ignored: Collection[str]
) -> tuple[list[Finding], str]:
    """Which faults count: those that ``known`` does not have and whose code is not ``ignored``; and
    a sentence that says how many do not."""
    old = set(map(identity, known))
    left = [one for one in audit.faults if one.code not in ignored]
    new = [one for one in left if identity(formats.finding_to_dict(one)) not in old]
    known_count, ignored_count = len(left) - len(new), len(audit.faults) - len(left)
    to_fix = plural(len(new), "finding")
    return new, f"{to_fix} to fix, {known_count} known, {ignored_count} ignored"
