"""The FX nodes; of those without an ONNX node of their own why, and which nodes do their work."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from ..exporter_metadata import CallSite, call_site, is_getitem, operator_nodes
from ..graph.signature import weight_inputs
from ..source import Line

_LARGEST = 10_000_000
"""Numbers in the largest tensor on which :func:`_returns_its_input` tries an operator."""


@dataclass(frozen=True)
class Operation:
    """An FX node that computes something.

    If the ONNX graph has no node of it, ``why`` says why: ``into`` are the call sites that do its
    work, ``nodes`` their ONNX nodes. A ``twin`` repeats an equal operation; a ``view`` moves no
    data.
    """

    fx: str
    site: CallSite
    why: str = ""
    into: tuple[CallSite, ...] = ()
    twin: bool = False
    view: bool = False
    nodes: tuple[str, ...] = ()

    @property
    def line(self) -> Line | None:
        return self.site.line

    @property
    def stack(self) -> tuple[Line, ...]:
        return self.site.stack

    @property
    def module(self) -> str:
        return self.site.module


def operations(program: ExportedProgram, exported: Collection[CallSite]) -> Iterator[Operation]:
    """Yield the operations of a captured graph; ``exported`` are the call sites of ONNX nodes.

    The first reason that fits counts: no node uses the result; it is a size, not a tensor; it
    depends only on weights and constants; an equal operation has the same inputs; the operation
    returns its input (tried on random numbers); else the nodes that use the result do its work.
    """
    graph = program.graph
    constant, first = _constants(graph, weight_inputs(program)), _twins(graph)
    for node in operator_nodes(graph):
        site, value, twin = call_site(node), node.meta.get("val"), call_site(first[node])
        asserts = value is None and not node.users  # makes no value
        if is_getitem(node):
            continue
        if not site.trace or site in exported or asserts:
            yield Operation(node.name, site)
        elif not node.users:
            yield Operation(node.name, site, "nothing uses its result")
        elif not isinstance(value, (torch.Tensor, tuple, list)):
            yield Operation(node.name, site, "a size, written into the nodes that use it")
        elif node in constant:
            yield Operation(node.name, site, "computed at export: it depends on no input")
        elif first[node] is not node and twin in exported:
            why = "computed once, together with an equal operation on the same input"
            yield Operation(node.name, site, why, (twin,), twin=True)
        elif _returns_its_input(node):
            yield Operation(node.name, site, "it returns its input unchanged")
        else:
            into, view = _exported_users(node, exported), getattr(node.target, "is_view", False)
            yield Operation(node.name, site, "merged into what uses it", into, view=view)


def _constants(graph: fx.Graph, weights: Collection[str]) -> set[fx.Node]:
    """Nodes that depend only on parameters, buffers and constants."""
    constants: set[fx.Node] = set()
    for node in graph.nodes:
        inner = node.op == "call_function" and constants.issuperset(node.all_input_nodes)
        if node.name in weights or node.op == "get_attr" or inner:
            constants.add(node)
    return constants


def _twins(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """Each node -> the first node with the same operator and inputs."""
    first: dict[object, fx.Node] = {}
    same: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        same[node] = node
        if node.op == "call_function":
            inputs = fx.map_arg((node.args, node.kwargs), lambda arg: same[arg])
            same[node] = first.setdefault((node.target, repr(inputs)), node)
    return same


def _returns_its_input(node: fx.Node) -> bool:
    """Whether it returns its input, like dropout in eval mode or a cast to the same dtype. Found by
    a trial, since no list of operators stays complete."""
    if not isinstance(node.target, torch._ops.OpOverload):  # functorch's operators change state
        return False
    values: list[Any] = [one.meta.get("val") for one in (node, *node.all_input_nodes)]
    if len(values) != 2 or not all(isinstance(value, torch.Tensor) for value in values):
        return False
    shape = [size if isinstance(size, int) else 2 for size in values[1].shape]
    if torch.Size(shape).numel() > _LARGEST:
        return False
    sample = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(values[1].dtype)
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda _: sample)
    try:
        with torch.no_grad():
            result = node.target(*args, **kwargs)
    except Exception:  # the operator does not take this sample
        return False
    return isinstance(result, torch.Tensor) and torch.equal(result, sample)


def _exported_users(node: fx.Node, exported: Collection[CallSite]) -> tuple[CallSite, ...]:
    """The nearest users that are in the ONNX graph."""
    sites: dict[CallSite, None] = {}
    seen, waiting = {node}, list(node.users)
    while waiting:
        user = waiting.pop()
        if user in seen:
            continue
        seen.add(user)
        if user.op == "call_function" and call_site(user) in exported:
            sites[call_site(user)] = None
        else:
            waiting += user.users
    return tuple(sites)
