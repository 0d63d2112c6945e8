"""How results show: aligned tables, sizes and durations, as text and as HTML."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from typing import Any

WIDTH = 99
"""The most characters in a line of a text form."""
_NARROW = 12  # a column that wraps has this width or more
_SHORT = 24  # characters of a cell that stays in one line
_WRAP: Any = {"break_on_hyphens": False, "replace_whitespace": False}

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def seconds(value: float) -> str:
    """A duration in seconds, with three significant digits and the unit that fits.

    >>> seconds(75.04), seconds(4.2e-3), seconds(0.9996e-3), seconds(5e-9), seconds(0)
    ('75.0 s', '4.20 ms', '1.00 ms', '5.00 ns', '0 s')
    """
    return _scaled(value, _SECONDS) if value else "0 s"


def size(value: int) -> str:
    """A number of bytes, with three significant digits and a decimal unit.

    >>> size(2_147_483_648), size(1234567), size(1000), size(999)
    ('2.15 GB', '1.23 MB', '1.00 kB', '999 B')
    """
    return f"{value} B" if value < 1000 else _scaled(value, _BYTES)


def about(value: float) -> str:
    """A number with two significant digits, without an exponent.

    >>> about(398.1), about(4.84)
    ('400', '4.8')
    """
    return f"{float(f'{value:.2g}'):,.12g}"


def kind_of(value: object) -> str:
    """The kind of a value with its article.

    >>> kind_of(1), kind_of([]), kind_of(KeyError())
    ('an int', 'a list', 'a KeyError')
    """
    name = type(value).__name__
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "node"), plural(1200, "node")
    ('1 node', '1,200 nodes')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shaped(dtype: object, shape: Iterable[object]) -> str:
    """A tensor's type as one word, for torch's dtypes and for names.

    >>> shaped("torch.float32", ("batch", 10))
    'float32[batch, 10]'
    """
    return f"{str(dtype).removeprefix('torch.')}[{', '.join(map(str, shape))}]"


def for_json(value: Any) -> Any:
    """The value for JSON, which has no NaN and no infinity: they become words.

    >>> for_json(0.5), for_json(float("nan"))
    (0.5, 'nan')
    """
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class Code(str):
    """Source code, a name or a command as a cell or a part of a report: it is never wrapped.

    In a table of text, ``short`` takes its place.
    """

    short: str

    def __new__(cls, value: object, short: str = "") -> Code:
        code = super().__new__(cls, value)
        code.short = short or str(code)
        return code


class Percent(float):
    """A fraction of a whole, shown in percent with a mark behind it; in HTML it carries a bar.

    >>> print(Percent(0.125, "*"))
    12.5 %*
    """

    def __new__(cls, value: float, mark: str = "") -> Percent:
        percent = super().__new__(cls, value)
        percent.mark = mark
        return percent

    mark: str

    def __str__(self) -> str:
        return f"{100 * self:.1f} %{self.mark}"


def wrapped(text: str) -> str:
    """Prose in lines of ``WIDTH`` characters or fewer; each line keeps its indentation.

    >>> max(map(len, wrapped("    A reason. " * 20).splitlines())) <= WIDTH
    True
    """
    return "\n".join(
        textwrap.fill(
            line, WIDTH, subsequent_indent=" " * (len(line) - len(line.lstrip())), **_WRAP
        )
        for line in text.split("\n")
    )


def table(
    rows: Iterable[Sequence[object]], header: Sequence[str] = (), right: Iterable[int] = ()
) -> str:
    """Rows as aligned columns; those with an index in ``right`` are right-aligned, and so are
    shares. If the table is wider than ``WIDTH``, its widest columns wrap, and code is cut.

    >>> print(table([("relu", 1), ("conv2d", 12)], header=("op", "count"), right=[1]))
    op      count
    ------  -----
    relu        1
    conv2d     12
    """
    cells = [list(row) for row in rows]
    head = [list(header)] if header else []
    widths = _widths([*head, *cells])
    rule = [["-" * width for width in widths]] if header else []
    flush = {*right} | {
        i for row in cells for i, cell in enumerate(row) if isinstance(cell, Percent)
    }
    lines = []
    for row in head + rule + cells:
        folded = [_folded(cell, width) for cell, width in zip(row, widths, strict=True)]
        for parts in zip_longest(*folded, fillvalue=""):
            sides = (
                part.rjust(width) if index in flush else part.ljust(width)
                for index, (part, width) in enumerate(zip(parts, widths, strict=True))
            )
            lines.append("  ".join(sides).rstrip())
    return "\n".join(lines)


def _widths(rows: Sequence[Sequence[object]]) -> list[int]:
    """The width of each column. Where the sum is too large, the widest that may wrap give way."""
    columns = [*zip(*rows, strict=True)]
    widths = [max(len(line) for cell in column for line in _lines(cell)) for column in columns]
    least = [_least(column, width) for column, width in zip(columns, widths, strict=True)]
    for _ in range(sum(widths) + 2 * (len(widths) - 1) - WIDTH):
        may = [i for i, width in enumerate(widths) if width > least[i]] or range(len(widths))
        widest = max(may, key=widths.__getitem__)
        widths[widest] = max(widths[widest] - 1, _NARROW)
    return widths


def _least(column: Sequence[object], width: int) -> int:
    """The width below which a column shrinks last: the longest word; short cells do not wrap."""
    if width <= _SHORT:
        return width
    words = (word for cell in column if not isinstance(cell, Code) for word in str(cell).split())
    return max([_NARROW, *map(len, words)])


def _lines(cell: object) -> list[str]:
    return (cell.short if isinstance(cell, Code) else str(cell)).splitlines() or [""]


def _folded(cell: object, width: int) -> list[str]:
    """A cell as lines of that width at most."""
    if isinstance(cell, Code):
        return [line if len(line) <= width else f"{line[: width - 3]}..." for line in _lines(cell)]
    parts = (textwrap.wrap(line, width or 1, **_WRAP) for line in _lines(cell))
    return [line for part in parts for line in part or [""]]


def html_table(
    rows: Iterable[Sequence[object]], header: Sequence[str] = (), right: Iterable[int] = ()
) -> str:
    """The same rows as an HTML table in a box that scrolls; every cell is escaped.

    Prose wraps, code and numbers do not. The styles are in the elements, since a page may take a
    style sheet out, and colors are the page's own, light or dark.

    >>> html = html_table([(Code("<b>"), Percent(0.5))])
    >>> "&lt;b&gt;</code>" in html, "width:50.0%" in html
    (True, True)
    """
    flush = set(right)

    def line(tag: str, row: Sequence[object]) -> str:
        cells = (_html_cell(tag, cell, index in flush) for index, cell in enumerate(row))
        return f'<tr style="border-bottom:1px solid #80808040">{"".join(cells)}</tr>\n'

    head = f"<thead>{line('th', header)}</thead>" if header else ""
    body = "".join(line("td", row) for row in rows)
    return (
        '<div style="overflow-x:auto;max-width:100%"><table style="margin:0.3em 0;'
        f'border-collapse:collapse">{head}<tbody>{body}</tbody></table></div>'
    )


def _html_cell(tag: str, cell: object, flush: bool) -> str:
    text = escape(str(cell).rstrip())
    flush = flush or isinstance(cell, Percent)
    style = f"text-align:{'right' if flush else 'left'};vertical-align:top;padding:0.25em 0.7em"
    if flush or len(text) <= _SHORT or isinstance(cell, Code):
        style += ";white-space:nowrap"
    else:
        style += ";white-space:pre-line;min-width:16em"
    if isinstance(cell, Code) and text:
        text = f'<code style="white-space:pre;background-color:transparent;padding:0">{text}</code>'
    if isinstance(cell, Percent):
        style += ";min-width:5em"
        width = 100 * min(max(cell, 0.0), 1.0)
        text += f'<div style="width:{width:.1f}%;height:3px;background-color:#3f8fd2"></div>'
    return f'<{tag} style="{style}">{text}</{tag}>'


@dataclass(frozen=True)
class Table:
    """A part of a report: the arguments of :func:`table` and :func:`html_table`.

    The columns in ``wide`` are in HTML alone, at the right: text has no room for them.
    """

    rows: Sequence[Sequence[object]]
    header: Sequence[str] = ()
    right: Collection[int] = ()
    wide: Collection[int] = ()

    def __str__(self) -> str:
        return table(*self._of(self._narrow()))

    def html(self) -> str:
        return html_table(*self._of([*self._narrow(), *self.wide]))

    def _narrow(self) -> list[int]:
        columns = range(len(self.header or next(iter(self.rows), ())))
        return [at for at in columns if at not in self.wide]

    def _of(self, columns: Sequence[int]) -> tuple[list[list[object]], list[str], list[int]]:
        """The rows, the header and what is right-aligned, of these columns."""
        rows = [[row[at] for at in columns] for row in self.rows]
        right = [index for index, at in enumerate(columns) if at in self.right]
        return rows, [self.header[at] for at in columns if self.header], right


@dataclass(frozen=True)
class Fold:
    """Parts that HTML shows under a title to click; text has them too, unless ``text`` is False."""

    title: str
    parts: Sequence[Part]
    text: bool = True


class Report:
    """Mixin for a result whose text and HTML show the same parts; the first is its headline.

    >>> class Found(Report):
    ...     def _parts(self):
    ...         return ["1 file", Table([("a", 12)], ("name", "size"), right=[1])]
    >>> Found()
    1 file
    name  size
    ----  ----
    a       12
    """

    def _parts(self) -> Iterable[Part]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return _text(self._parts())

    def _repr_html_(self) -> str:
        first, *parts = self._parts()
        headline = paragraph(first, bold=True) if isinstance(first, str) else as_html(first)
        return headline + "".join(map(as_html, parts))


Part = str | Code | Table | Fold | Report
"""A sentence (or several, in lines), code, a table, something to open, another report."""


def _text(parts: Iterable[Part]) -> str:
    texts = []
    for part in parts:
        if isinstance(part, Fold):
            texts += [_text(part.parts)] if part.text else []
        elif isinstance(part, Table):
            texts.append(str(part))
        elif isinstance(part, Report):
            texts.append(repr(part))
        else:
            texts.append(part if isinstance(part, Code) else wrapped(part))
    return "\n".join(texts)


def as_html(part: Part) -> str:
    """One part of a report as HTML.

    >>> as_html(Fold("1 guard", [Code("x > 1")]))  # doctest: +ELLIPSIS
    '<details><summary>1 guard</summary><pre style=...>x &gt; 1</pre></details>'
    """
    if isinstance(part, Fold):
        return details(part.title, "".join(map(as_html, part.parts)))
    if isinstance(part, Table):
        return part.html()
    if isinstance(part, Report):
        return part._repr_html_()
    if isinstance(part, Code):
        style = "white-space:pre;overflow-x:auto;margin:0.3em 0"
        return f'<pre style="{style}">{escape(part)}</pre>'
    return paragraph(part) if part.strip() else ""


def paragraph(text: str, bold: bool = False) -> str:
    """Prose as HTML; its lines and their indentation stay."""
    style = "white-space:pre-wrap;margin:0.3em 0" + ";font-weight:bold" * bold
    return f'<p style="{style}">{escape(text.strip())}</p>'


def details(title: str, html: str) -> str:
    """HTML under a title that opens it."""
    return f"<details><summary>{escape(title)}</summary>{html}</details>"


class ToFrame:
    """Mixin for a result whose ``records()`` are flat dicts.

    >>> class Found(ToFrame):
    ...     def records(self):
    ...         return [{"name": "a", "seconds": 1.0}]
    >>> len(Found().to_frame())
    1
    """

    def records(self) -> list[dict[str, Any]]:
        raise NotImplementedError

    def to_frame(self) -> Any:
        """The records as a ``pandas.DataFrame``, or as a list if pandas is not installed."""
        try:
            import pandas
        except ModuleNotFoundError:
            return self.records()
        return pandas.DataFrame(self.records())


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> str:
    value = float(f"{value:.3g}")  # round first, so that 999.6 us reads "1.00 ms"
    scale, unit = next(((s, u) for s, u in units if abs(value) >= s), units[-1])
    scaled = value / scale
    digits = max(0, 3 - len(str(int(abs(scaled)))))
    return f"{scaled:.{digits}f} {unit}"
