"""The metadata in which torch's exporter records the origin of an ONNX node."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import onnx

from .reader import DEEPEST
from .source import Line, lines, model_line

if TYPE_CHECKING:
    from torch import fx

_PREFIX = "pkg.torch.onnx."
STACK = f"{_PREFIX}stack_trace"
_FX = re.compile(r"%(\w+)")
_NO_MODULE = {"", "_guards_fn", "_empty_nn_module_stack_from_metadata_hook"}
"""The model itself, the checks that torch inserts, and its name for an unknown module."""


@dataclass(frozen=True)
class CallSite:
    """A stack trace as torch records it, and the path of the innermost module.

    An FX node and its ONNX nodes share both: they survive decomposition, while names do not.
    """

    trace: str = ""
    module: str = ""

    @property
    def line(self) -> Line | None:
        return model_line(self.trace)

    @property
    def stack(self) -> tuple[Line, ...]:
        """All calls, outermost first."""
        return lines(self.trace)


def call_site(node: fx.Node) -> CallSite:
    """The call site of an FX node.

    >>> from torch import fx, nn
    >>> node = fx.symbolic_trace(nn.ReLU()).graph.output_node()
    >>> unknown = "_empty_nn_module_stack_from_metadata_hook"
    >>> node.meta["nn_module_stack"] = {"0": ("block", nn.Module), "1": (unknown, None)}
    >>> call_site(node).module
    'block'
    """
    modules = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    known = [path for path in modules if path not in _NO_MODULE]
    return CallSite(node.meta.get("stack_trace") or "", known[-1] if known else "")


def operator_nodes(graph: fx.Graph) -> Iterator[fx.Node]:
    """The nodes that call an operator, those that unpack its results included."""
    return (node for node in graph.nodes if node.op == "call_function")


def is_getitem(node: fx.Node) -> bool:
    """Whether a node takes one of several results."""
    return getattr(node.target, "__name__", "") == "getitem"


@dataclass(frozen=True)
class Metadata:
    """The metadata of one node. A field is empty if the file does not have it.

    ``fx`` and ``target`` are the name and the operator of the FX node, ``trace`` its stack trace.
    ``modules`` are the paths of the modules around it, outermost first, ``classes`` their classes.
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
        return model_line(self.trace)


_EMPTY = Metadata()


def of_values(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Values with a stack trace of their own, for nodes that a quantizer replaced: by their name,
    and by that of their FX node, whose last value has it."""
    values = [v for v in (*model.graph.value_info, *model.graph.output) if has_trace(v)]
    return {_fx_name(_notes(v)): v for v in values} | {v.name: v for v in values}


def _notes(part: onnx.NodeProto | onnx.ValueInfoProto) -> dict[str, str]:
    return {entry.key.removeprefix(_PREFIX): entry.value for entry in part.metadata_props}


def _fx_name(notes: Mapping[str, str]) -> str:
    name = _FX.match(notes.get("fx_node", ""))
    return name[1] if name else ""


def has_trace(part: onnx.NodeProto | onnx.ValueInfoProto) -> bool:
    return any(entry.key == STACK for entry in part.metadata_props)


def read(node: onnx.NodeProto, values: Mapping[str, onnx.ValueInfoProto] | None = None) -> Metadata:
    """Read the metadata of a node under torch's keys (``pkg.torch.onnx.stack_trace``).

    A node without metadata gets that of its result in ``values``. ONNX Runtime's quantizer keeps
    the name of the result, or renames ``conv`` to ``conv_quantized``.

    >>> node = onnx.helper.make_node("Relu", ["x"], ["y"])
    >>> scopes = "['', 'block', '_empty_nn_module_stack_from_metadata_hook', 'relu']"
    >>> _ = node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    >>> read(node).modules
    ('block',)
    """
    part: onnx.NodeProto | onnx.ValueInfoProto = node
    if values and not has_trace(node):
        names = (n for out in node.output for n in (out, out.removesuffix("_quantized")))
        part = next((values[name] for name in names if name in values), node)
    if not part.metadata_props:
        return _EMPTY
    entries = _notes(part)
    target, closed, _ = entries.get("fx_node", "").partition("[target=")[2].partition("]")
    modules, classes = _scopes(
        *(_all_but_last(entries.get(key, "")) for key in ("name_scopes", "class_hierarchy"))
    )
    return Metadata(
        _fx_name(entries),
        target.removeprefix("torch.ops.") if closed else "",
        modules,
        classes,
        entries.get("stack_trace", ""),
    )


@lru_cache(maxsize=4096)
def _scopes(names: str, classes: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    scopes, kinds = _listed(names), _listed(classes)
    kinds += ["Module"] * (len(scopes) - len(kinds))
    inside = [
        (scope, kind.rpartition(".")[2])
        for scope, kind in zip(scopes, kinds, strict=False)
        if scope not in _NO_MODULE
    ]
    del inside[DEEPEST:]
    return tuple(scope for scope, _ in inside), tuple(kind for _, kind in inside)


def _all_but_last(written: str) -> str:
    """Drop the FX node, which is last, so that all nodes of a module share one cached list."""
    return f"{written.rpartition(', ')[0]}]"


def _listed(written: str) -> list[str]:
    try:
        parsed = ast.literal_eval(written)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    valid = isinstance(parsed, list) and all(isinstance(part, str) for part in parsed)
    return parsed if valid else []
