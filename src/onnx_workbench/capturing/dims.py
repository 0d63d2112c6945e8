"""What a user may write for a dimension: a name, or a ``torch.export.Dim``, or one of its hints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.utils._pytree as pytree
from torch.export import Dim


def demanded(label: Any) -> bool:
    """Whether torch.export raises where it cannot keep it dynamic: all but ``Dim.AUTO``."""
    return bool(opened({0: label})) and getattr(label, "type", None) != Dim.AUTO.type


def limits(label: Any) -> tuple[int | None, int | None]:
    """Least and greatest size that a hint or Dim of torch allows, where it says so."""
    return finite(getattr(label, "min", None)), finite(getattr(label, "max", None))


def opened(axes: Mapping[int, Any] | None) -> dict[int, Any]:
    """The dimensions that are asked to be dynamic, and not to be a number."""
    return {
        axis: label
        for axis, label in (axes or {}).items()
        if label is not None
        and not isinstance(label, int)
        and getattr(label, "type", None) != Dim.STATIC.type
    }


def name_of(label: Any) -> str:
    return label if isinstance(label, str) else getattr(label, "__name__", "")


def finite(bound: Any) -> int | None:
    """A bound of torch, which has infinities of its own, as a number."""
    try:
        return int(bound) if bound is not None and bound < 2**31 else None
    except (TypeError, ValueError, OverflowError):
        return None


def relaxed(dynamic: Any) -> Any:
    """Each name, Dim or ``Dim.DYNAMIC`` as a ``Dim.AUTO``: torch.export raises for it no more."""

    def auto(label: Any) -> Any:
        low, high = limits(label)
        return Dim.AUTO(min=low, max=high) if demanded(label) else label

    return pytree.tree_map(auto, dynamic)
