"""The report as HTML: in a cell, where no script runs, and as one page that opens offline."""

from __future__ import annotations

import base64
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from html import escape
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingPackageError
from ..formatting import html_table, seconds, size
from ..lineage import page as floors
from ..lineage import picture
from ..lineage.sheet import SOURCE
from ..source import Line, Sources, without_folders
from ..viewer import saved
from ..viewer.drawing import draw
from ..viewer.fold import drawable
from ..viewer.heat import scale
from .codes import CODES
from .finding import FAULTS, Finding, rows
from .stages import STAGES

if TYPE_CHECKING:
    from . import Audit

_AROUND = 2
"""Lines of source that a card shows on each side of its own."""
_SIGNS = {"broken": "✗", "wrong": "✗", "risk": "!", "not tried": "-", "ok": "✓", "left out": "○"}


def document(audit: Audit) -> str:
    """One self-contained page, with copy buttons, the floors as a live widget, and the graph."""
    here = Path(__file__).parent
    style, script = ((here / name).read_text("utf-8") for name in ("page.css", "page.js"))
    sheet = audit.sheet
    if sheet:
        row = _first_row(audit, sheet)
        script = f"{floors.script(sheet, [SOURCE, row] if row >= 0 else [])}\n{script}"
    body = f"<main>{_Page(audit, live=True).html()}</main>"
    return saved.offline(f"Audit of {audit.case.name}", style, script, body)


def in_cell(audit: Audit) -> str:
    """The same, with pictures in place of what needs a script. Its order and its words carry it
    where styles are stripped."""
    style = (Path(__file__).parent / "page.css").read_text("utf-8")
    return f"<style>{style}</style>{_Page(audit, live=False).html()}"


def graph(audit: Audit, linked: bool = False) -> str:
    """The file as an SVG picture, colored by the time of each node; empty without a file.

    Where ``linked``, each box is a link with the numbers of its nodes on their floor.
    """
    lineage, spots = audit.case.lineage, audit.case.spots
    if lineage is None:
        return ""
    boxes = drawable(lineage.artifact.proto).diagram()
    heat = None
    with suppress(MissingPackageError):  # matplotlib, which has the colors
        heat = scale(spots.heat(), "s") if spots and spots.heat() else None
    numbers = {origin.node: row for row, origin in enumerate(lineage.origins)}
    name = lineage.artifact.path.name
    return draw(name, boxes, heat, numbers if linked else None)


def _first_row(audit: Audit, sheet: Mapping[str, Any]) -> int:
    """The row of the source whose floors are shown first: of the worst finding, else the hottest
    line (that of OW900, a finding too), else the line that tells most."""
    rows = (picture.row_of(sheet, finding.line) for finding in audit.findings if finding.line)
    return next((row for row in rows if row is not None), picture.best_line(sheet))


class _Page:
    def __init__(self, audit: Audit, live: bool) -> None:
        self.audit, self.live, self.sheet = audit, live, audit.sheet
        lines = [finding.line for finding in audit.findings if finding.line]
        ran = audit.case.model is not None  # a file may quote any line of this machine
        executed = Sources(executed=frozenset(line.file for line in lines))
        self.sources = executed if ran else Sources.of(audit.case.subject)

    def html(self) -> str:
        return f'<article class="ow-audit">{"".join(self._parts())}</article>'

    def _parts(self) -> Iterator[str]:
        audit = self.audit
        title = f"{audit.case.name}: {audit.verdict or 'not proven'}"
        verdict = "bad" if audit.faults else "good" if audit.verdict else "open"
        yield f'<div class="verdict {verdict}">{self._heading(1, title)}'
        yield f"<p>{escape(self._counts())}</p></div>"
        yield f'<ul class="chips">{"".join(map(self._chip, STAGES))}</ul>'
        shown = [finding for finding in audit.findings if finding.verdict in FAULTS]
        for number, finding in enumerate(shown, 1):
            yield f'<section class="card {finding.verdict}" id="finding-{number}">'
            yield from self._card(finding)
            yield "</section>"
        yield from self._chain()
        if drawn := graph(audit, self.live):
            title = f"The graph{', colored by time' if audit.case.spots else ''}"
            yield f'<section class="graph">{self._heading(2, title)}'
            figure = drawn if self.live else _image(drawn, f"The graph of {audit.case.name}")
            yield f"<div{self._scrolls('The graph')}>{figure}</div>"
            yield "</section>"
        fine = [finding for finding in audit.findings if finding.verdict not in FAULTS]
        rest = [map(without_folders, row) for row in rows(fine)]
        yield f'<section class="rest">{self._heading(2, "What else the stages say")}'
        listed = html_table(map(list, rest), audit._HEADER)
        yield f"<div{self._scrolls('The stages')}>{listed}</div></section>"
        yield f"<footer>{html_table(self._made())}</footer>"

    def _scrolls(self, name: str) -> str:
        """What lets the keyboard into a box that is wider than a page."""
        return f' tabindex="0" role="region" aria-label="{name}"' * self.live

    def _heading(self, level: int, text: str) -> str:
        """A heading; in a cell a bold line, which stays out of the notebook's table of contents."""
        if self.live:
            return f"<h{level}>{escape(text)}</h{level}>"
        return f'<p class="h{level}"><strong>{escape(text)}</strong></p>'

    def _counts(self) -> str:
        found = Counter(finding.verdict for finding in self.audit.findings)
        parts = [f"{found[verdict]} {verdict}" for verdict in FAULTS if found[verdict]]
        return "; ".join([*parts, self.audit.ran])

    def _chip(self, stage: Any) -> str:
        found = [f for f in self.audit.findings if f.stage == stage.name]  # the worst first
        worst = found[0].verdict if found else "left out"
        count = sum(finding.verdict in FAULTS for finding in found)
        says = {"not tried": "could not run", "ok": "ran", "left out": "left out"}
        words = f"{_SIGNS[worst]} {stage.name}: {says.get(worst, f'{count} found')}"
        inside = escape(words)
        if self.live and count:
            faults = [f for f in self.audit.findings if f.verdict in FAULTS]
            inside = f'<a href="#finding-{faults.index(found[0]) + 1}">{inside}</a>'
        return f'<li class="{worst.split()[0]}">{inside}</li>'

    def _card(self, finding: Finding) -> Iterator[str]:
        code = CODES[finding.code]
        yield self._heading(2, f"{finding.code} {finding.stage}, {finding.verdict}: {code.title}")
        yield f"<p>{_text(finding.sentence)}</p>"
        if finding.line:
            yield from self._excerpt(finding.line)
        if finding.repair:
            copy = '<button type="button" class="copy" hidden>Copy</button>' * self.live
            yield f'<p class="repair"><strong>What helps:</strong> <span>{_text(finding.repair)}'
            yield f"</span> {copy}</p>"
        numbers = {key: n for key, n in finding.numbers.items() if n != []}
        if numbers:
            shown = ((key.replace("_", " "), _number(key, n)) for key, n in numbers.items())
            yield f'<div class="numbers">{html_table(shown)}</div>'
        text = "".join(f"<p>{_text(part)}</p>" for part in code.text.split("\n\n"))
        yield f"<details><summary>What {code.name} means</summary>{text}</details>"

    def _excerpt(self, line: Line) -> Iterator[str]:
        """The line between its neighbors, marked by an arrow that needs no style."""
        first, near = line.number, [line.text]
        if source := self.sources.read([line]):
            first = max(1, line.number - _AROUND)
            near = source[first - 1 : line.number]
            below = source[line.number : line.number + _AROUND]
            near += takewhile(lambda text: not text[:1].strip(), below)  # to the end of the class
        texts = textwrap.dedent("\n".join(text.rstrip() for text in near)).splitlines()
        digits = len(str(first + len(texts)))
        rows = (
            f"{'→' if n == line.number else ' '} {n:>{digits}}  {_text(text)}"
            for n, text in enumerate(texts, first)
        )
        marked = (f"<mark>{row}</mark>" if row.startswith("→") else row for row in rows)
        row = picture.row_of(self.sheet, line) if self.live and self.sheet else None
        link = f' <a href="#floors" data-row="{row}">Follow this line</a>' * (row is not None)
        yield f"<p><code>{escape(line.where)}</code>{link}</p>"
        yield f"<pre{self._scrolls('Source')}>{chr(10).join(marked)}</pre>"

    def _chain(self) -> Iterator[str]:
        if self.sheet is None:
            return
        row = _first_row(self.audit, self.sheet)
        still = _image(picture.svg(self.sheet, row), "The line, its nodes and its kernels")
        ended = bool(self.sheet["stop"])
        title = "How far the model came" if ended else "From the line to the kernel"
        heading = self._heading(2, title)
        yield f'<section class="chain" id="floors">{heading}'
        yield f'<div class="still">{still}</div>' if row >= 0 else ""
        yield '<div class="live"></div>' if self.live else ""
        yield "</section>"

    def _made(self) -> list[tuple[str, str]]:
        versions = dict(self.audit.versions)
        machine = versions.pop("platform")
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        return [("when", self.audit.when), ("machine", machine), ("versions", listed)]


def _text(text: str) -> str:
    """As HTML, without folders of this machine; what is between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(without_folders(text)))


def _image(svg: str, says: str) -> str:
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{escape(says)}" src="data:image/svg+xml;base64,{data}">'


def _number(key: str, value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value))
    if key.startswith("seconds"):
        return seconds(value)
    if key.startswith("bytes"):
        return size(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
