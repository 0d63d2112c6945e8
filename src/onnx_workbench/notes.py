"""What torch's exporter wrote into an ONNX node about where it came from."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import onnx

from .reader import DEEPEST
from .source import Line, told, user_line

_PREFIX = "pkg.torch.onnx."
_FX = re.compile(r"%(\w+)")
_OWN = {"", "_guards_fn"}  # the model itself, and the checks that torch puts into it


@dataclass(frozen=True)
class Notes:
    """All fields are empty where the file is silent.

    ``fx`` and ``target`` are the name and the operator of the FX node, ``trace`` its stack trace.
    ``modules`` are the paths of the modules around it from the outermost in, ``classes`` theirs.
    """

    fx: str = ""
    target: str = ""
    modules: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    trace: str = ""

    @property
    def module(self) -> str:
        """The path of the innermost module."""
        return self.modules[-1] if self.modules else ""

    @property
    def line(self) -> Line | None:
        return line_of(self.trace)


_SILENT = Notes()
STACK = "pkg.torch.onnx.stack_trace"


def of_values(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """The values with a stack trace of their own: results of nodes that a quantizer may replace."""
    values = (*model.graph.value_info, *model.graph.output)
    return {v.name: v for v in values if any(note.key == STACK for note in v.metadata_props)}


def read(node: onnx.NodeProto, values: Mapping[str, onnx.ValueInfoProto] | None = None) -> Notes:
    """The notes in the metadata of a node, by torch's keys (``pkg.torch.onnx.stack_trace``).

    A node without them has those of its result in ``values``, which ONNX Runtime's quantizer keeps,
    or calls ``conv_quantized`` where it was ``conv``.

    >>> node = onnx.helper.make_node("Relu", ["x"], ["y"])
    >>> scopes = "['', 'block', 'relu']"
    >>> _ = node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    >>> read(node).module
    'block'
    """
    told: onnx.NodeProto | onnx.ValueInfoProto = node
    if values and not any(note.key == STACK for note in node.metadata_props):
        names = (
            name for output in node.output for name in (output, output.removesuffix("_quantized"))
        )
        told = next((values[name] for name in names if name in values), node)
    if not told.metadata_props:
        return _SILENT
    said = {p.key.removeprefix(_PREFIX): p.value for p in told.metadata_props}
    fx = said.get("fx_node", "")
    modules, classes = _scopes(said.get("name_scopes", ""), said.get("class_hierarchy", ""))
    name = _FX.match(fx)
    target = fx.partition(" : ")[2].partition("[target=")[2].partition("]")
    return Notes(
        name[1] if name else "",
        target[0].removeprefix("torch.ops.") if target[1] else "",
        modules,
        classes,
        said.get("stack_trace", ""),
    )


@lru_cache(maxsize=4096)
def line_of(trace: str) -> Line | None:
    """The user's own line, else the innermost that is not torch's, else that of a torch module.

    None where there is but torch's own machinery, such as the checks that it inserts.
    """
    return told(user_line(trace))


def _scopes(names: str, classes: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Torch writes the model itself first, by no name, and the FX node last."""
    return _inside(_but_last(names), _but_last(classes))


@lru_cache(maxsize=4096)
def _inside(names: str, classes: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    scopes, kinds = _listed(names), _listed(classes)
    kinds += ["Module"] * (len(scopes) - len(kinds))
    inside = [
        (scope, kind.rpartition(".")[2])
        for scope, kind in zip(scopes, kinds, strict=False)
        if scope not in _OWN
    ]
    del inside[DEEPEST:]
    return tuple(scope for scope, _ in inside), tuple(kind for _, kind in inside)


def _but_last(written: str) -> str:
    """The nodes of a module have the same list but for its last item: read once, not once each."""
    return f"{written.rpartition(', ')[0]}]"


def _listed(written: str) -> list[str]:
    try:
        found = ast.literal_eval(written) if written else []
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    whole = isinstance(found, list) and all(isinstance(part, str) for part in found)
    return found if whole else []
