"""The lines of a library below the user's line that calls its model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..formatting import Code, plural
from ..source import Line, called_lines, is_layer, is_library

MOST = 40
"""The most library lines that a repr shows below one of the user's lines."""


C = TypeVar("C", bound=Any)  # has a stack and a module: a node, a part of a kernel


@dataclass(frozen=True)
class Group(Generic[C]):
    """The items of one library line. An asterisk in ``module`` stands for parts that differ."""

    line: Line
    module: str
    items: tuple[C, ...]


def groups(items: Iterable[C], depth: int | None) -> list[Group[C]]:
    """Group the items of a user's line by the library's line ``depth`` calls below it.

    A line that calls only single layers of torch, such as ``self.norm(self.conv(x))``, is not
    split; one that calls a container or a layer made of others has a row for each layer.
    """
    deeper = [(calls, item) for item in items if (calls := called_lines(item.stack)[:depth])]
    library = any(is_library(calls[-1].file) for calls, _ in deeper)
    if not library and not _composed([calls for calls, _ in deeper]):
        return []
    grouped: dict[tuple[Line, str], list[C]] = {}
    for calls, item in deeper:
        inside = item.stack[item.stack.index(calls[-1]) :]
        whole = is_library(calls[-1].file) and not any(map(_is_container, inside))
        module = "" if whole else _repeated(item.module)
        grouped.setdefault((calls[-1], module), []).append(item)
    return [
        Group(line, common([item.module for item in group]), tuple(group))
        for (line, _), group in grouped.items()
    ]


def _composed(stacks: Sequence[Sequence[Line]]) -> bool:
    """Whether a container is called, or one function of torch calls from two of its lines."""
    places = {line for calls in stacks for line in calls}
    functions = {(line.file, line.function) for line in places}
    return any(map(_is_container, places)) or len(functions) < len(places)


def _is_container(line: Line) -> bool:
    """Whether the line is torch.nn.Sequential's, which calls each of its layers."""
    return line.file.endswith("container.py") and is_layer(line.file)


def _repeated(module: str) -> str:
    """``encoder.layers.3.norm`` -> ``encoder.layers.*.norm``; a number at the end is a layer."""
    path, dot, last = module.rpartition(".")
    return f"{starred(path)}{dot}{last}"


def starred(module: str) -> str:
    """``blocks.3.norm`` -> ``blocks.*.norm``."""
    return ".".join("*" if part.isdigit() else part for part in module.split("."))


def common(modules: Iterable[str]) -> str:
    """Join paths into one; parts that differ become an asterisk.

    >>> common(["net.layer.0.query", "net.layer.1.query"]), common(["a.b", "a.b.c"])
    ('net.layer.*.query', 'a.b.*')
    """
    paths = [module.split(".") for module in dict.fromkeys(modules)]
    shared = min(map(len, paths), default=0)
    parts = [
        column[0] if len(set(column)) == 1 else "*"
        for column in zip(*(path[:shared] for path in paths), strict=True)
    ]
    return ".".join(parts + ["*"] * any(len(path) > shared for path in paths))


Row = tuple[Sequence[object], Code]
_TEXT = 40
"""The widest text behind which modules are aligned."""


def rows_below(shown: Sequence[tuple[Sequence[object], Any]], count: int) -> list[Row]:
    """Cells and a text for each library line, with places, texts and modules aligned.

    A table of text, which has less room than HTML, names the file without its folders.

    Args:
        shown: pairs of cells and an object with a ``line`` and a ``module``.
        count: how many lines there are; a last row counts those that are not shown.
    """
    cells = [cells for cells, _ in shown]
    long, short = (_aligned([one for _, one in shown], name) for name in ("place", "short_place"))
    rows = [(row, Code(*texts)) for row, *texts in zip(cells, long, short, strict=True)]
    if rows and count > len(shown):
        hidden = plural(count - len(shown), "more line")
        rows.append(([""] * len(rows[0][0]), Code(f"    and {hidden}")))
    return rows


def _aligned(shown: Sequence[Any], place: str) -> list[str]:
    places = [getattr(one.line, place) for one in shown]
    width = max(map(len, places), default=0)
    most = min(_TEXT, max((len(one.line.text) for one in shown), default=0))
    return [
        f"    in {place.ljust(width)}  {one.line.text.ljust(most)}  {one.module}".rstrip()
        for place, one in zip(places, shown, strict=True)
    ]
