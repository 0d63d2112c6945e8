"""FX nodes that left no ONNX node of their own: why, and where their work went."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import fx

from ..exporter_metadata import CallSite, call_site

_LARGEST = 10_000_000
"""Numbers in a tensor that :func:`_gives_back_its_input` still tries an operator on."""


@dataclass(frozen=True)
class Folded:
    """An FX node without an ONNX node. ``into`` are the FX nodes that took over its work; where
    they did the same anyway, it is a ``twin`` of theirs, and a ``view`` moves no data."""

    fx: str
    key: CallSite
    why: str
    into: tuple[str, ...] = ()
    twin: bool = False
    view: bool = False


def folded(graph: fx.Graph, left: Collection[CallSite]) -> tuple[Folded, ...]:
    """The operations of a captured graph whose key is not among those ``left`` in the ONNX graph.

    Rules, in this order: nobody uses it; it is a size and no tensor; it depends on weights and
    constants alone; an equal operation on equal inputs is computed elsewhere; it gives back its
    input (tried out on random numbers); else its work went into the operations that use it.
    """
    return tuple(_explain(graph, left))


def _explain(graph: fx.Graph, left: Collection[CallSite]) -> Iterator[Folded]:
    constant = _constants(graph)
    first = _twins(graph)
    for node in _operations(graph):
        key = call_site(node)
        if not key.trace or key in left or _asserts(node):
            continue
        twin = first[node]
        if not node.users:
            yield Folded(node.name, key, "nothing uses its result")
        elif not isinstance(_value(node), (torch.Tensor, tuple, list)):
            yield Folded(node.name, key, "a size, written into the nodes that use it")
        elif node in constant:
            yield Folded(node.name, key, "computed at export: it depends on no input")
        elif twin is not node and call_site(twin) in left:
            why = "computed once for this and for an equal operation on the same input"
            yield Folded(node.name, key, why, (twin.name,), twin=True)
        elif _gives_back_its_input(node):
            yield Folded(node.name, key, "it gives back its input")
        else:
            heirs = _heirs(node, lambda user: call_site(user) in left)
            view = getattr(node.target, "is_view", False)
            yield Folded(node.name, key, "merged into what uses it", heirs, view=view)


def _operations(graph: fx.Graph) -> Iterator[fx.Node]:
    return (node for node in graph.nodes if node.op == "call_function" and not _unpacks(node))


def _unpacks(node: fx.Node) -> bool:
    return getattr(node.target, "__name__", "") == "getitem"


def _asserts(node: fx.Node) -> bool:
    return _value(node) is None and not node.users


def _value(node: fx.Node) -> object:
    return node.meta.get("val")


def _constants(graph: fx.Graph) -> set[fx.Node]:
    """Nodes that depend on parameters, buffers and constants alone."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        weight = node.op == "placeholder" and node.name.startswith(("p_", "b_", "c_"))
        inner = node.op == "call_function" and found.issuperset(node.all_input_nodes)
        if weight or node.op == "get_attr" or inner:
            found.add(node)
    return found


def _twins(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """Each node -> the first that does the same to the same."""
    first: dict[object, fx.Node] = {}
    same: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node.op != "call_function":
            same[node] = node
            continue
        told = fx.map_arg((node.args, node.kwargs), lambda arg: same[arg])
        same[node] = first.setdefault((node.target, repr(told)), node)
    return same


def _gives_back_its_input(node: fx.Node) -> bool:
    """Tried, since no list of operators lasts: dropout in eval mode, a cast to the same dtype."""
    if not isinstance(node.target, torch._ops.OpOverload):  # functorch's change torch's own state
        return False
    tensors = node.all_input_nodes
    value = _value(tensors[0]) if len(tensors) == 1 else None
    if not isinstance(value, torch.Tensor) or not isinstance(_value(node), torch.Tensor):
        return False
    shape = [size if isinstance(size, int) else 2 for size in value.shape]
    if torch.Size(shape).numel() > _LARGEST:
        return False
    probe = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(value.dtype)
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda _: probe)
    try:
        with torch.no_grad():
            result = node.target(*args, **kwargs)  # type: ignore[operator]
    except Exception:  # a probe of another size than the operator wants: then it is not known
        return False
    return isinstance(result, torch.Tensor) and torch.equal(result, probe)


def _heirs(node: fx.Node, remains: Callable[[fx.Node], bool]) -> tuple[str, ...]:
    """The nearest users that are still there, over users that are not."""
    heirs: dict[str, None] = {}
    seen, waiting = {node}, list(node.users)
    while waiting:
        user = waiting.pop()
        if user in seen:
            continue
        seen.add(user)
        if user.op == "call_function" and remains(user):
            heirs[user.name] = None
        else:
            waiting += user.users
    return tuple(heirs)


def keys(graph: fx.Graph) -> Mapping[str, CallSite]:
    """FX node -> its key."""
    return {node.name: call_site(node) for node in _operations(graph)}
