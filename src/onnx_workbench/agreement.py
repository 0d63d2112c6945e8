"""Two callables on the same inputs: do they give the same numbers?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree

from .capturing.exporter import evaluating
from .errors import InputError
from .text import plural, shaped, table

TOLERANCES = {
    torch.float64: (1e-7, 1e-9),
    torch.float32: (1e-4, 1e-5),
    torch.float16: (1e-2, 1e-3),
    torch.bfloat16: (5e-2, 1e-2),
    torch.float8_e4m3fn: (0.25, 0.05),  # two steps of its three bits
    torch.float8_e5m2: (0.5, 0.1),
    torch.complex64: (1e-4, 1e-5),
    torch.complex128: (1e-7, 1e-9),
}
"""(relative, absolute) by dtype; wider than torch.testing's, since two backends add in another
order. Any other dtype must agree exactly."""


def agree(
    a: Callable[..., Any],
    b: Callable[..., Any],
    *args: Any,
    tolerance: tuple[float, float] | None = None,
    **kwargs: Any,
) -> Agreement:
    """What both return for the same arguments, compared as :func:`~onnx_workbench.verify` says."""
    results = [_call(name, function, args, kwargs) for name, function in (("a", a), ("b", b))]
    return Agreement(tuple(_leaves(results[0], results[1], tolerance)))


@dataclass(frozen=True)
class Leaf:
    """One tensor of the result: how far apart, and where.

    ``worst`` and ``relative`` are the largest absolute and relative error, ``index`` is where the
    largest absolute one stands; ``worst`` is None where no numbers were compared. ``reason`` is
    empty where the leaf agrees.
    """

    path: str
    value: str
    worst: float | None = None
    relative: float = 0.0
    index: tuple[int, ...] = ()
    tolerance: tuple[float, float] = (0.0, 0.0)
    reason: str = ""


@dataclass(frozen=True, repr=False)
class Agreement:
    """The verdict of :func:`~onnx_workbench.verify`, leaf by leaf."""

    leaves: tuple[Leaf, ...]

    def __bool__(self) -> bool:
        return not any(leaf.reason for leaf in self.leaves)

    @property
    def worst(self) -> Leaf:
        """The leaf with a reason to differ, else the one with the largest absolute error."""
        return max(self.leaves, key=lambda leaf: (bool(leaf.reason), leaf.worst or 0.0))

    def __repr__(self) -> str:
        header = ("output", "value", "worst |a - b|", "at", "relative", "tolerance", "verdict")
        return f"{self._headline()}\n{table(map(_row, self.leaves), header)}"

    def _headline(self) -> str:
        wrong = sum(bool(leaf.reason) for leaf in self.leaves)
        outputs = plural(len(self.leaves), "output")
        if self:
            return f"AGREE: {outputs} within tolerance"
        return f"DIFFERENT: {wrong} of {outputs} {'differs' if wrong == 1 else 'differ'}"


def _row(leaf: Leaf) -> tuple[str, ...]:
    if leaf.worst is None:
        return (leaf.path, leaf.value, "", "", "", "", leaf.reason or "agree")
    relative, absolute = leaf.tolerance
    return (
        leaf.path,
        leaf.value,
        f"{leaf.worst:.2e}",
        str(list(leaf.index)),
        f"{leaf.relative:.2e}",
        f"{relative:.0e},{absolute:.0e}",
        leaf.reason or "agree",
    )


def _call(name: str, function: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    if not callable(function):
        raise InputError(
            f"verify() was given a {type(function).__name__} as {name!r}, and it takes two "
            "callables and their arguments: verify(model, artifact, x)."
        )
    copies = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
    with torch.no_grad():
        if isinstance(function, torch.nn.Module):
            with evaluating(function):
                return function(*copies[0], **copies[1])
        return function(*copies[0], **copies[1])


def _leaves(a: Any, b: Any, tolerance: tuple[float, float] | None) -> Iterator[Leaf]:
    left, spec_a = pytree.tree_flatten_with_path(a)
    right, spec_b = pytree.tree_flatten(b)
    if spec_a != spec_b:
        yield Leaf("structure", _outline(a), reason=f"a is {_outline(a)}, b is {_outline(b)}")
        return
    for (path, x), y in zip(left, right, strict=True):
        yield _compare(f"result{pytree.keystr(path)}", x, y, tolerance)


def _compare(path: str, a: Any, b: Any, tolerance: tuple[float, float] | None) -> Leaf:
    if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)):
        return Leaf(path, repr(a), reason="" if a == b else f"a is {a!r}, b is {b!r}")
    value = shaped(a.dtype, a.shape)
    if a.shape != b.shape or a.dtype != b.dtype:
        return Leaf(path, value, reason=f"a is {value}, b is {shaped(b.dtype, b.shape)}")
    bounds = tolerance_of(a.dtype, tolerance)
    error, scale, wrong = errors(a.detach().cpu(), b.detach().cpu(), *bounds)
    if not error.numel():
        return Leaf(path, value)
    # the worst among those that are wrong, if any is: a large number may be far off and still agree
    ranked = torch.where(wrong, error, -1.0) if wrong.any() else error
    index = tuple(int(i) for i in torch.unravel_index(ranked.argmax(), error.shape))
    relative = torch.where(error == 0, 0.0, error / scale).max()
    count = int(wrong.sum())
    reason = f"{count:,} of {error.numel():,} differ" if count else ""
    return Leaf(path, value, float(error[index]), float(relative), index, bounds, reason)


def tolerance_of(
    dtype: torch.dtype, asked: tuple[float, float] | None = None
) -> tuple[float, float]:
    """(relative, absolute): what was asked for, else the default of the dtype.

    >>> tolerance_of(torch.float16), tolerance_of(torch.int64, (0.1, 0.1))
    ((0.01, 0.001), (0.0, 0.0))
    """
    return (asked or TOLERANCES[dtype]) if dtype in TOLERANCES else (0.0, 0.0)


def errors(
    a: torch.Tensor, b: torch.Tensor, relative: float, absolute: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Absolute error, magnitude of ``a``, and what is wrong, element by element."""
    x, y = (part.to(torch.complex128 if a.is_complex() else torch.float64) for part in (a, b))
    exact = not (a.is_floating_point() or a.is_complex())
    # equal numbers, equal infinities, NaN and NaN; a double does not hold every whole number
    same = a == b if exact else (x == y) | ((x != x) & (y != y))
    error = torch.where(same, 0.0, (x - y).abs().nan_to_num(nan=torch.inf, posinf=torch.inf))
    scale = x.abs().nan_to_num(nan=0.0)
    if exact:
        return error, scale, ~same
    wrong = ~same & (~(error <= absolute + relative * scale) | error.isinf())
    return error, scale, wrong


def _outline(value: Any) -> str:
    """The nesting of a result, with a word for each leaf."""
    if isinstance(value, dict):
        inner = ", ".join(f"{key}: {_outline(item)}" for key, item in value.items())
        return f"{type(value).__name__}({inner})"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}({', '.join(map(_outline, value))})"
    return type(value).__name__
