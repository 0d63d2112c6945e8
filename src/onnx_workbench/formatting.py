"""Aligned tables, sizes and durations, for the repr of every result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))


def seconds(value: float) -> str:
    """A duration in seconds, with three significant digits and the unit that fits.

    >>> seconds(4.2e-3), seconds(0.9996e-3), seconds(0)
    ('4.20 ms', '1.00 ms', '0 s')
    """
    return _scaled(value, _SECONDS, zero="0 s")


def size(value: int) -> str:
    """A number of bytes, with three significant digits and a decimal unit.

    >>> size(1234567), size(12)
    ('1.23 MB', '12 B')
    """
    return f"{value} B" if value < 1000 else _scaled(value, _BYTES, zero="0 B")


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


def table(
    rows: Iterable[Sequence[object]], header: Sequence[str] = (), right: Iterable[int] = ()
) -> str:
    """Rows as aligned columns; the columns with an index in ``right`` are right-aligned.

    >>> print(table([("relu", 1), ("conv2d", 12)], header=("op", "count"), right=[1]))
    op      count
    ------  -----
    relu        1
    conv2d     12
    """
    cells = [[str(cell) for cell in row] for row in rows]
    head = [list(header)] if header else []
    widths = [max(map(len, column)) for column in zip(*head, *cells, strict=True)]
    rule = [["-" * width for width in widths]] if header else []
    flush = set(right)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index in flush else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in head + rule + cells
    )


def html_table(
    rows: Iterable[Sequence[object]], header: Sequence[str] = (), right: Iterable[int] = ()
) -> str:
    """The same rows as an HTML table; every cell is escaped.

    Alignment is explicit, since notebooks right-align cells by default.

    >>> html_table([("<b>",)])
    '<table><tr><td style=text-align:left>&lt;b&gt;</td></tr></table>'
    """
    flush = set(right)

    def line(tag: str, row: Sequence[object]) -> str:
        cells = ""
        for index, cell in enumerate(row):
            side = "right" if index in flush else "left"
            cells += f"<{tag} style=text-align:{side}>{escape(str(cell))}</{tag}>"
        return f"<tr>{cells}</tr>"

    head = line("th", header) if header else ""
    return f"<table>{head}{''.join(line('td', row) for row in rows)}</table>"


class TableReport:
    """Mixin for a result that shows a headline, a table and notes, as text and as HTML.

    >>> class Found(TableReport):
    ...     _HEADER = ("name", "size")
    ...     def _headline(self):
    ...         return "1 file"
    ...     def _rows(self):
    ...         return [("a", 12)]
    >>> Found()
    1 file
    name  size
    ----  ----
    a     12
    """

    _HEADER: tuple[str, ...] = ()
    _RIGHT: tuple[int, ...] = ()

    def _headline(self) -> str:
        raise NotImplementedError

    def _rows(self) -> Iterable[Sequence[object]]:
        raise NotImplementedError

    def _notes(self) -> Iterable[str]:
        return ()

    def __repr__(self) -> str:
        rows = table(self._rows(), self._HEADER, self._RIGHT)
        return "\n".join([self._headline(), rows, *self._notes()])

    def _repr_html_(self) -> str:
        rows = html_table(self._rows(), self._HEADER, self._RIGHT)
        notes = escape("\n".join(self._notes()))
        return f"<p>{escape(self._headline())}</p>{rows}<pre>{notes}</pre>"


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


def _scaled(value: float, units: Sequence[tuple[float, str]], zero: str) -> str:
    if value == 0:
        return zero
    value = float(f"{value:.3g}")  # round first, so that 999.6 us reads "1.00 ms"
    scale, unit = next(((s, u) for s, u in units if abs(value) >= s), units[-1])
    scaled = value / scale
    digits = max(0, 2 - len(str(int(abs(scaled)))) + 1)
    return f"{scaled:.{digits}f} {unit}"
