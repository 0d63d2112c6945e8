"""Where each ONNX node came from: FX node, module and line, as torch's exporter wrote them down."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import onnx

from .. import exporter_metadata
from ..proto import NodeRef, described
from ..source import Line, Sources

LONGEST_FUNCTION = 400
"""Lines of a function that are shown; a longer one is cut around the lines that made nodes."""

_ROOT = r"(?:[A-Za-z]:[\\/]|/|\\\\)"
_PATH = re.compile(
    rf"""(?<=File ")(?P<file>[^"\n]+)(?=")"""
    rf"""|(?<=(["']))(?P<quoted>{_ROOT}[^"'\n]+)(?=\2)"""
    rf"""|(?<![\w:/\\.<>)\]}}-])(?:file://)?(?P<bare>{_ROOT}[^\s"'<>:,;()]+)"""
)
"""What a trace names as a file; an absolute path in quotes; one that stands alone. No repetition
stands inside or beside another, so that the time is linear in the text."""


class Origin(NamedTuple):  # pickled and unpickled at each view, which a dataclass is slow at
    """Of one ONNX node; ``fx``, ``target`` and ``module`` are empty where the file is silent."""

    node: str
    op: str
    outputs: tuple[str, ...]
    fx: str = ""
    target: str = ""
    module: str = ""
    line: Line | None = None


@dataclass(frozen=True)
class Function:
    """The source of a function that made nodes; ``file`` is a name without its folder."""

    file: str
    name: str
    first: int
    lines: tuple[str, ...]


def key(node: onnx.NodeProto) -> str:
    """What a node goes by: its name, or where it has none its first output.

    >>> key(onnx.helper.make_node("Relu", ["x"], ["y"]))
    'y'
    """
    return node.name or next(iter(node.output), "")


def origins(model: onnx.ModelProto, found: Iterable[NodeRef]) -> dict[str, Origin]:
    """Of every node of a model, also inside the bodies of If, Loop and Scan, by :func:`key`.
    ``found`` are its nodes."""
    same: dict[str, str] = {}  # what many nodes say is kept once
    once = same.setdefault
    made, values = {}, exporter_metadata.of_values(model)
    for ref in found:
        if not ref.function:
            said, op = exporter_metadata.read(ref.node, values), ref.node.op_type
            outputs = tuple(once(name, name) for name in ref.outputs)
            op, fx, target, module = (
                once(text, text) for text in (op, said.fx, said.target, said.module)
            )
            made[ref.name] = Origin(ref.name, op, outputs, fx, target, module, said.line)
    return made


def functions(
    made: Iterable[Origin], sources: Sources
) -> tuple[list[Function], dict[tuple[str, int], int]]:
    """The functions that made nodes, and which of them each (file, line) lies in.

    A file that ``sources`` does not give, or that has changed since the export, is not shown.
    """
    found: dict[tuple[str, int], Function] = {}
    home: dict[tuple[str, int], tuple[str, int]] = {}
    lines = {(line.file, line.number): line for origin in made if (line := origin.line)}
    for spot, line in sorted(lines.items()):
        if source := sources.read([line]):
            span = _span(line, source)
            start = (line.file, span[0])
            found.setdefault(start, _function(line, source, *span))
            home[spot] = start
    order = {start: index for index, start in enumerate(found)}
    return list(found.values()), {spot: order[start] for spot, start in home.items()}


def _span(line: Line, source: Sequence[str]) -> tuple[int, int, str]:
    spans = _spans("".join(source))
    around = [span for span in spans if span[0] <= line.number <= span[1]]
    return max(around, default=(line.number, line.number, line.function))  # the innermost


@lru_cache(maxsize=64)
def _spans(source: str) -> tuple[tuple[int, int, str], ...]:
    try:
        return tuple(_defined(ast.parse(source), ""))
    except (SyntaxError, ValueError, RecursionError):  # a cell with a magic in it
        return ()


def _defined(tree: ast.AST, scope: str) -> Iterator[tuple[int, int, str]]:
    for node in ast.iter_child_nodes(tree):
        inner = scope
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{scope}{node.name}."
            if not isinstance(node, ast.ClassDef):
                yield node.lineno, node.end_lineno or node.lineno, inner[:-1]
        yield from _defined(node, inner)


def _function(line: Line, source: Sequence[str], first: int, last: int, name: str) -> Function:
    if last - first >= LONGEST_FUNCTION:
        first = max(first, line.number - LONGEST_FUNCTION // 2)
        last = min(last, first + LONGEST_FUNCTION - 1)
    text = "".join(source[first - 1 : last])
    lines = tuple(without_folders(text) for text in textwrap.dedent(text).splitlines())
    return Function(line.place.rpartition(":")[0], name, first, lines)


def sheet(made: Mapping[str, Origin], sources: Sources) -> dict[str, Any]:
    """What the panel beside the graph needs, as JSON: no absolute path is in it.

    ``nodes`` have their operator, FX node, its target, module, and two places in ``lines``: that of
    the library's line which their own calls, where it calls one, and that of their own.
    """
    shown, home = functions(made.values(), sources)
    called = (_library(origin) for origin in made.values())
    own = (origin.line for origin in made.values())
    at = {line: i for i, line in enumerate(dict.fromkeys((*own, *filter(None, called))))}
    return {
        "nodes": {
            name: (o.op, o.fx, o.target, o.module, at.get(_library(o), -1), at[o.line])
            for name, o in made.items()
        },
        "lines": [_told(line, home) for line in at],
        "functions": [vars(function) for function in shown],
    }


def _library(origin: Origin) -> Line | None:
    """The innermost line of the installed package that the line of the user's calls."""
    return origin.line.library if origin.line else None


def _told(line: Line | None, home: Mapping[tuple[str, int], int]) -> dict[str, Any]:
    if line is None:
        return {"place": "", "text": "", "line": 0, "function": -1}
    function = home.get((line.file, line.number), -1)
    text = without_folders(line.text)
    return {"place": line.place, "text": text, "line": line.number, "function": function}


def without_folders(text: str) -> str:
    """The text with each absolute path cut to the file's name.

    >>> without_folders('File "/home/ada/model.py", line 12, in forward')
    'File "model.py", line 12, in forward'
    """
    return _without_folders(text) if "/" in text or "\\" in text else text


@lru_cache(maxsize=1024)
def _without_folders(text: str) -> str:
    return _PATH.sub(_file_name, text)


def _file_name(found: re.Match[str]) -> str:
    path = found["file"] or found["quoted"] or found["bare"]
    parts = [part for part in re.split(r"[\\/]+", path) if part]
    return parts[-1] if found["file"] or len(parts) > 1 else found[0]


def find(what: Line | str, made: Mapping[str, Origin]) -> tuple[str, ...]:
    """The nodes that a name, a module path or a place such as ``model.py:12`` stands for; the line
    and the place may be those of a library, ``torchvision/models/resnet.py:92``."""
    if isinstance(what, Line):
        return _named(made, lambda line: (line.file, line.number) == (what.file, what.number))
    if what in made:
        return (what,)
    inside = (n for n, o in made.items() if what and f"{o.module}.".startswith(f"{what}."))
    return tuple(inside) or _named(made, lambda line: line.place == what)


def _named(made: Mapping[str, Origin], fits: Callable[[Line], bool]) -> tuple[str, ...]:
    """The nodes of which the line, or that of the library below it, fits."""
    return tuple(
        name
        for name, origin in made.items()
        if any(line and fits(line) for line in (origin.line, _library(origin)))
    )


def scrub(model: onnx.ModelProto) -> None:
    """Takes the folders of the author's machine out of everything that describes the model."""
    for part in described(model):
        if part.doc_string:
            part.doc_string = without_folders(part.doc_string)
        if not isinstance(part, onnx.AttributeProto):
            for note in part.metadata_props:
                note.value = without_folders(note.value)
        elif part.s:
            with suppress(UnicodeDecodeError):  # bytes that are no text
                part.s = without_folders(part.s.decode()).encode()
