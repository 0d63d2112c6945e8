"""``dynamic_shapes``, a dict or a sequence, as in torch.export -> the axes of each tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.export import AdditionalInputs, Dim, ShapesCollection

from ..errors import InputError
from ..formatting import kind_of

DynamicAxes = dict[int, Any]
"""The dynamic dimensions of a tensor by axis, as names, Dims or hints: ``{0: "batch"}``."""

Shapes = dict[str, Any]
"""The axes of each leaf of a call by its path, such as ``batch['mask']``. An int may have a hint
instead: then it is an input of the graph."""

_HINT = type(Dim.DYNAMIC)
_LABELS = (str, Dim, _HINT)


def parse_shapes(dynamic_shapes: Any, arguments: Mapping[str, Any], rest: str = "") -> Shapes:
    """The axes of each leaf of each argument. Negative axes count from the end.

    Args:
        dynamic_shapes: a dict by input, or a tuple or list in the order of the inputs.
        arguments: of the call, by their names in ``forward``.
        rest: the name of ``forward``'s ``**kwargs``, whose entries are arguments, too.

    Raises:
        InputError: there is no such input or axis, a dynamic dimension has size 0, the structure
            differs from the argument's, or one name has two sizes.

    >>> parse_shapes(({-1: "words"},), {"x": torch.ones(2, 5)})
    {'x': {1: 'words'}}
    """
    entries = _by_name(dynamic_shapes, arguments, rest)
    shapes: Shapes = {}
    for name, value in arguments.items():
        shapes.update(_of_leaves(entries.get(name), value, name))
    _check_sizes(shapes, by_path(arguments))
    return shapes


def from_dynamic_axes(
    dynamic_axes: Any,
    arguments: Mapping[str, Any],
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
) -> dict[str, Any]:
    """Convert ``dynamic_axes``, by the file's input names, to ``dynamic_shapes``.

    >>> from_dynamic_axes({"in": {0: "n"}, "out": [0]}, {"x": torch.ones(2)}, ["in"], ["out"])
    {'x': {0: 'n'}}
    """
    if not isinstance(dynamic_axes, Mapping):
        raise InputError(
            f"`dynamic_axes` is {dynamic_axes!r}, but must be a dict by input name.",
            "Write {'x': {0: 'batch'}}.",
        )
    rest = {name: entry for name, entry in dynamic_axes.items() if name not in output_names}
    names, shapes = iter(input_names), {}
    for path, leaf in by_path(arguments).items():
        entry = rest.pop(next(names, path), None) if isinstance(leaf, torch.Tensor) else None
        if isinstance(entry, (list, tuple)):
            entry = dict.fromkeys(entry, Dim.DYNAMIC)
        shapes[path] = entry
    if rest:
        inputs = ", ".join(map(repr, input_names or arguments))
        raise InputError(
            f"`dynamic_axes` names {', '.join(map(repr, rest))}, but the inputs are {inputs}.",
            "Name one of those; an output must be in `output_names`.",
        )
    return by_argument(shapes, arguments)


def for_torch(shapes: Shapes, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """The shapes as torch.export takes them: nested like the arguments, with ``Dim.DYNAMIC`` for
    each name."""

    def plain(axes: Any) -> Any:
        if not isinstance(axes, dict):
            return axes
        return {a: Dim.DYNAMIC if isinstance(x, str) else x for a, x in axes.items()} or None

    known = {path: plain(axes) for path, axes in shapes.items()}
    return by_argument(known, arguments) if any(known.values()) else None


def by_path(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of the arguments: ``{"x": ..., "batch['mask']": ..., "cache[0].k": ...}``."""
    return {path: leaf for name, value in arguments.items() for path, leaf in _leaves(value, name)}


def by_argument(shapes: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What is given by path, nested like the arguments: the inverse of :func:`by_path`."""
    spec = pytree.tree_structure(dict(arguments))
    return nested(spec, (shapes.get(path) for path in by_path(arguments)))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each leaf of a value with its path, which is ``path`` if the value is a leaf."""
    for name, part in _parts(value):
        if name:
            yield from _leaves(part, path + name)
        else:
            yield path, value


def _parts(value: Any) -> list[tuple[str, Any]]:
    """The parts of a container by name, such as ``['mask']``; a leaf is its own part, named ""."""

    def is_part(part: Any) -> bool:
        return part is not value

    try:
        named = pytree.tree_flatten_with_path(value, is_part)[0]
        return [(pytree.keystr(key), part) for key, part in named]
    except ValueError:  # a class that was registered without names for its parts
        return [(f"[{i}]", part) for i, part in enumerate(pytree.tree_leaves(value, is_part))]


def nested(spec: pytree.TreeSpec, leaves: Iterator[Any]) -> Any:
    """Nest the leaves like ``spec``, with a list in place of each user-defined class.

    Such a class may look at the tensors it is given, as a KV cache does, but these leaves are none.
    """
    if spec.is_leaf():
        return next(leaves)
    children = [nested(child, leaves) for child in spec.children()]
    if spec.type in pytree.BUILTIN_TYPES:
        return pytree.SUPPORTED_NODES[spec.type].unflatten_fn(children, spec.context)
    return children


def _by_name(given: Any, arguments: Mapping[str, Any], rest: str) -> dict[str, Any]:
    names, listed = list(arguments), ", ".join(map(repr, arguments))
    if given is None:
        return {}
    if isinstance(given, (tuple, list)) and len(given) == len(names):
        return dict(zip(names, given, strict=True))
    if isinstance(given, (tuple, list)):
        several = [name for name, value in arguments.items() if isinstance(value, tuple)]
        nest = f" Those of *{several[-1]} are one tuple: (..., (a, b))." if several else ""
        raise InputError(
            f"`dynamic_shapes` has {len(given)} entries, but this call has {len(names)} "
            f"argument{'s' * (len(names) != 1)}: {listed}.",
            f"Give one entry for each, None if nothing in it is dynamic.{nest}",
        )
    if not isinstance(given, Mapping):
        makes_one = isinstance(given, (ShapesCollection, AdditionalInputs))
        what = kind_of(given) if makes_one else repr(given)
        raise InputError(
            f"`dynamic_shapes` is {what}, but must be a dict by argument of forward().",
            "Pass what its .dynamic_shapes(model, args, kwargs) returns."
            if makes_one
            else f"Write for example {{{names[0] if names else 'x'!r}: {{0: 'batch'}}}}.",
        )
    entries = dict(given)
    if rest and rest not in arguments and isinstance(entries.get(rest), Mapping):
        entries |= entries.pop(rest)
    asked = [name for name, entry in entries.items() if entry is not None]
    if unknown := [name for name in asked if name not in names]:
        raise InputError(
            f"`dynamic_shapes` names {', '.join(map(repr, unknown))}, but this call has the "
            f"arguments {listed}.",
            f"Pass {unknown[0]!r} in the call if forward() takes it; if not, use the names of its "
            "parameters.",
        )
    return entries


def _of_leaves(entry: Any, value: Any, path: str) -> Iterator[tuple[str, Any]]:
    children = _parts(value)
    if [name for name, _ in children] == [""]:
        yield path, _axes(entry, value, path)
        return
    by_key = isinstance(value, Mapping)
    keys = list(value) if by_key else list(range(len(children)))
    if entry is None:
        entry = {}
    elif not by_key and isinstance(entry, (list, tuple)) and len(entry) == len(children):
        entry = dict(enumerate(entry))
    elif not (by_key and isinstance(entry, Mapping) and set(entry) <= set(keys)):
        form = f"a dict with some of the keys {keys}" if by_key else f"a tuple of {len(children)}"
        raise InputError(
            f"`dynamic_shapes` has {entry!r} for {path!r}, which is {kind_of(value)} of "
            f"{len(children)}.",
            f"Give it {form}, with entries such as {{0: 'batch'}} or None.",
        )
    for key, (name, child) in zip(keys, children, strict=True):
        yield from _of_leaves(entry.get(key), child, path + name)


def _axes(entry: Any, value: Any, path: str) -> Any:
    if entry is None:
        return {}
    if type(value) is int and isinstance(entry, _HINT):
        return entry if varies(entry) else {}
    if not isinstance(value, torch.Tensor):
        raise InputError(
            f"`dynamic_shapes` has {entry!r} for {path!r}, which is {value!r:.60} and no tensor.",
            "Make it a tensor, or leave it out; an int may have Dim.DYNAMIC or Dim.AUTO. If it is "
            "a class of yours, such as a cache, register it before the call "
            "(torch.utils._pytree.register_pytree_node).",
        )
    count = value.dim()
    if isinstance(entry, (list, tuple)) and len(entry) == count:
        entry = dict(enumerate(entry))
    if not isinstance(entry, Mapping):
        raise InputError(
            f"`dynamic_shapes` has {entry!r} for the tensor {path!r} of {count} dimensions.",
            "Give it a dict by axis, such as {0: 'batch'}, or one entry for each dimension.",
        )
    axes: DynamicAxes = {}
    for axis, label in entry.items():
        if type(axis) is not int or not -count <= axis < count or axis % count in axes:
            raise InputError(
                f"`dynamic_shapes` names axis {axis!r} of {path!r}, which has {count} dimensions, "
                f"{list(value.shape)}.",
                f"Name an axis from 0 to {count - 1}, each once.",
            )
        _check_label(label, axis % count, value.shape[axis], path)
        axes[axis % count] = label
    return {axis: label for axis, label in axes.items() if varies(label)}


def _check_label(label: Any, axis: int, size: int, path: str) -> None:
    whole = isinstance(label, int) and not isinstance(label, bool)
    named = isinstance(label, _LABELS) and not (isinstance(label, str) and label.isdigit())
    if whole and label != size:
        raise InputError(
            f"`dynamic_shapes` has {label} for axis {axis} of {path!r}, but the example has "
            f"{size}.",
            "Pass an example of that size, or a name for a dimension that changes.",
        )
    if label is not None and not whole and (not named or label == ""):
        raise InputError(
            f"`dynamic_shapes` has {label!r} for axis {axis} of {path!r}.",
            "Write a name such as 'batch', a torch.export.Dim, or Dim.DYNAMIC.",
        )
    low, high = limits(label) if isinstance(label, Dim) else (None, None)
    if size < (low or 0) or (high is not None and size > high):
        raise InputError(
            f"Axis {axis} of {path!r} has size {size} in the example, but the Dim "
            f"{name_of(label)!r} has min={low} and max={high}.",
            "Pass an example of a size in that range, or change the range.",
        )
    if size == 0 and varies(label):
        raise InputError(
            f"Axis {axis} of {path!r} is dynamic, but its size is 0 in the example.",
            "Pass an example with at least one row.",
        )


def _check_sizes(shapes: Shapes, leaves: Mapping[str, Any]) -> None:
    """Raises InputError unless each name has one size."""
    sizes: dict[str, dict[int, str]] = {}
    for path, axes in shapes.items():
        for axis, label in axes.items() if isinstance(axes, dict) else ():
            if name := name_of(label):
                size = leaves[path].shape[axis]
                sizes.setdefault(name, {}).setdefault(size, f"{path}.shape[{axis}] = {size}")
    for name, places in sizes.items():
        if len(places) > 1:
            raise InputError(
                f"`dynamic_shapes` gives {' and '.join(places.values())} the name {name!r}, but "
                "one name means one size.",
                "Give them two names, or pass examples of one size.",
            )


def varies(label: Any) -> bool:
    """Whether a dimension with this label may change: not with None, a number or ``Dim.STATIC``."""
    fixed = label is None or isinstance(label, int)
    return not fixed and getattr(label, "type", None) != Dim.STATIC.type


def is_dynamic(size: int | torch.SymInt) -> bool:
    """Whether torch.export kept a size dynamic. A specialized size may be a SymInt, too."""
    return isinstance(size, torch.SymInt) and not size.node.expr.is_Integer


def must_stay_dynamic(label: Any) -> bool:
    """Whether torch.export raises if it cannot keep the dimension dynamic: all but ``Dim.AUTO``."""
    return varies(label) and getattr(label, "type", None) != Dim.AUTO.type


def limits(label: Any) -> tuple[int | None, int | None]:
    """The least and greatest size that a hint or Dim allows, None for no limit."""
    return bound(getattr(label, "min", None)), bound(getattr(label, "max", None))


def name_of(label: Any) -> str:
    return label if isinstance(label, str) else getattr(label, "__name__", "")


def bound(value: Any) -> int | None:
    """A bound of torch as a number; None for one of torch's infinities."""
    try:
        return int(value) if value is not None and -(2**31) < value < 2**31 else None
    except (TypeError, ValueError, OverflowError):
        return None


def relaxed(dynamic_shapes: Any) -> Any:
    """Replace each name, Dim and ``Dim.DYNAMIC`` by ``Dim.AUTO``, so that torch.export never
    raises."""

    def auto(label: Any) -> Any:
        low, high = limits(label)
        return Dim.AUTO(min=low, max=high) if must_stay_dynamic(label) else label

    several = isinstance(dynamic_shapes, (Mapping, tuple, list))  # anything else is refused later
    return pytree.tree_map(auto, dynamic_shapes) if several else dynamic_shapes
