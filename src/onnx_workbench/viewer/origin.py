"""Where each ONNX node came from: FX node, module and line, from torch's metadata."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import onnx

from .. import exporter_metadata
from ..proto import NodeRef, described
from ..source import Line, Sources, functions_in, without_folders

LONGEST_FUNCTION = 400
"""The most lines of a function that are shown; a longer one is cut around the node's line."""


class OnnxNode(NamedTuple):
    """One ONNX node and its own metadata. Fields that the file does not have are empty."""

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
    """The key of a node: its name, else its first output.

    >>> key(onnx.helper.make_node("Relu", ["x"], ["y"]))
    'y'
    """
    return node.name or next(iter(node.output), "")


def origins(model: onnx.ModelProto, refs: Iterable[NodeRef]) -> dict[str, OnnxNode]:
    """The origin of every node ``refs`` of a model, by :func:`key`."""
    values = exporter_metadata.of_values(model)
    by_name = {}
    for ref in refs:
        metadata = exporter_metadata.read(ref.node, {} if ref.function else values)
        fields = metadata.fx, metadata.target, metadata.module, metadata.line
        by_name[ref.name] = OnnxNode(ref.name, ref.node.op_type, ref.outputs, *fields)
    return by_name


def find(what: Line | str, nodes: Mapping[str, OnnxNode]) -> tuple[str, ...]:
    """The nodes that match a name, a module path, a line, its text, or its place: ``model.py:12``
    or, in a library, ``torchvision/models/resnet.py:92``."""
    if not isinstance(what, Line) and str(what) in nodes:
        return (str(what),)
    where = (what.file, what.number) if isinstance(what, Line) else str(what).strip() or None
    inside = (n for n, o in nodes.items() if what and f"{o.module}.".startswith(f"{what}."))
    return tuple(inside) or tuple(
        name
        for name, origin in nodes.items()
        if any(
            where in ((line.file, line.number), line.place, line.text)
            for line in (origin.line, origin.library)
            if line
        )
    )


def encoded(nodes: Mapping[str, OnnxNode], sources: Sources) -> dict[str, Any]:
    """The data of the panel beside the graph, as JSON without absolute paths.

    Each of ``nodes`` has its operator, FX node, target, module, and two indices into ``lines``: the
    library line that its own line calls, or -1, and its own line. ``functions`` has the source of
    the functions around these lines, except in files that ``sources`` does not show.
    """
    called = filter(None, (origin.library for origin in nodes.values()))
    lines = dict.fromkeys((*(origin.line for origin in nodes.values()), *called))
    at = {line: index for index, line in enumerate(lines)}
    functions: dict[tuple[str, int], dict[str, Any]] = {}
    return {
        "nodes": {
            name: (o.op, o.fx, o.target, o.module, at[o.library] if o.library else -1, at[o.line])
            for name, o in nodes.items()
        },
        "lines": [_shown(line, sources, functions) for line in lines],
        "functions": list(functions.values()),
    }


def _shown(
    line: Line | None, sources: Sources, functions: dict[tuple[str, int], dict[str, Any]]
) -> dict[str, Any]:
    """The line with the index of its function, or -1. A new function is added to ``functions``."""
    if line is None:
        return {"place": "", "text": "", "line": 0, "function": -1}
    index = -1
    if source := sources.read([line]):
        spans = (s for s in functions_in("".join(source)) if s[0] <= line.number <= s[1])
        # the innermost function around the line
        first, last, name = max(spans, default=(line.number, line.number, line.function))
        if (line.file, first) not in functions:
            around = max(first, line.number - LONGEST_FUNCTION // 2)
            start = first if last - first < LONGEST_FUNCTION else around
            end = min(last, start + LONGEST_FUNCTION - 1)
            body = textwrap.dedent("".join(source[start - 1 : end]))
            functions[line.file, first] = {
                "file": line.place.rpartition(":")[0],
                "name": name,
                "first": start,
                "lines": [without_folders(text) for text in body.splitlines()],
            }
        index = list(functions).index((line.file, first))
    text = without_folders(line.text)
    return {"place": line.place, "text": text, "line": line.number, "function": index}


def scrub(model: onnx.ModelProto) -> None:
    """Remove the folders of the author's machine from metadata, doc strings and attributes."""
    for part in described(model):
        if part.doc_string:
            part.doc_string = without_folders(part.doc_string)
        if not isinstance(part, onnx.AttributeProto):
            for note in part.metadata_props:
                note.value = without_folders(note.value)
        elif part.s:
            with suppress(UnicodeDecodeError):  # bytes that are no text
                part.s = without_folders(part.s.decode()).encode()
