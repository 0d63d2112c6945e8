"""Where each ONNX node came from: FX node, module and line, as torch's exporter wrote them down."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
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


class Origin(NamedTuple):
    """Of one ONNX node; ``fx``, ``target`` and ``module`` are empty where the file is silent."""

    node: str
    op: str
    outputs: tuple[str, ...]
    fx: str = ""
    target: str = ""
    module: str = ""
    line: Line | None = None

    @property
    def library(self) -> Line | None:
        """The innermost line of an installed package that the line calls."""
        return self.line.library if self.line else None


def key(node: onnx.NodeProto) -> str:
    """The key of a node: its name, or if it has none its first output.

    >>> key(onnx.helper.make_node("Relu", ["x"], ["y"]))
    'y'
    """
    return node.name or next(iter(node.output), "")


def origins(model: onnx.ModelProto, found: Iterable[NodeRef]) -> dict[str, Origin]:
    """Of every node of a model, also inside the bodies of If, Loop and Scan, by :func:`key`.

    ``found`` are its nodes.
    """
    values = exporter_metadata.of_values(model)
    made = {}
    for ref in found:
        if not ref.function:
            said = exporter_metadata.read(ref.node, values)
            at = said.fx, said.target, said.module, said.line
            made[ref.name] = Origin(ref.name, ref.node.op_type, ref.outputs, *at)
    return made


def find(what: Line | str, made: Mapping[str, Origin]) -> tuple[str, ...]:
    """The nodes of a name, a module path, a line, or a place such as ``model.py:12`` or, in a
    library, ``torchvision/models/resnet.py:92``."""
    if what in made:
        return (str(what),)
    where = (what.file, what.number) if isinstance(what, Line) else what
    inside = (n for n, o in made.items() if what and f"{o.module}.".startswith(f"{what}."))
    return tuple(inside) or tuple(
        name
        for name, origin in made.items()
        if any(where in ((line.file, line.number), line.place) for line in _lines(origin))
    )


def _lines(origin: Origin) -> list[Line]:
    """The user's line, and the innermost line of an installed package that it calls."""
    return [line for line in (origin.line, origin.library) if line]


def sheet(made: Mapping[str, Origin], sources: Sources) -> dict[str, Any]:
    """What the panel beside the graph needs, as JSON: no absolute path is in it.

    Each of ``nodes`` has its operator, FX node, target, module, and two indices into ``lines``: the
    library's line that its own line calls, or -1, and its own line. ``functions`` has the source of
    the functions that made nodes, except of files that ``sources`` does not show.
    """
    called = filter(None, (origin.library for origin in made.values()))
    lines = dict.fromkeys((*(origin.line for origin in made.values()), *called))
    at = {line: index for index, line in enumerate(lines)}
    functions: dict[tuple[str, int], dict[str, Any]] = {}
    return {
        "nodes": {
            name: (o.op, o.fx, o.target, o.module, at[o.library] if o.library else -1, at[o.line])
            for name, o in made.items()
        },
        "lines": [_shown(line, sources, functions) for line in lines],
        "functions": list(functions.values()),
    }


def _shown(
    line: Line | None, sources: Sources, functions: dict[tuple[str, int], dict[str, Any]]
) -> dict[str, Any]:
    """The line, and the index of its function, which is added where it is new; -1 for none."""
    if line is None:
        return {"place": "", "text": "", "line": 0, "function": -1}
    index = -1
    if source := sources.read([line]):
        spans = (s for s in _spans("".join(source)) if s[0] <= line.number <= s[1])
        first, last, name = max(spans, default=(line.number, line.number, line.function))
        if (line.file, first) not in functions:  # the innermost around the line
            start = (
                first if last - first < LONGEST_FUNCTION else line.number - LONGEST_FUNCTION // 2
            )
            start = max(first, start)
            body = textwrap.dedent(
                "".join(source[start - 1 : min(last, start + LONGEST_FUNCTION - 1)])
            )
            functions[line.file, first] = {
                "file": line.place.rpartition(":")[0],
                "name": name,
                "first": start,
                "lines": [without_folders(text) for text in body.splitlines()],
            }
        index = list(functions).index((line.file, first))
    text = without_folders(line.text)
    return {"place": line.place, "text": text, "line": line.number, "function": index}


@lru_cache(maxsize=64)
def _spans(source: str) -> tuple[tuple[int, int, str], ...]:
    """First line, last line and qualified name of each function."""
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
