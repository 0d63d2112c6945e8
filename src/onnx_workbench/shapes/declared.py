"""What a file declares of the shapes of its outputs, against what comes out."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..formatting import shaped
from ..ort import Value

_SIGNS: Mapping[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_CALLS: Mapping[str, Callable[..., int]] = {"Max": max, "Min": min}


def misstated(
    inputs: Sequence[Value],
    given: Sequence[torch.Tensor],
    outputs: Sequence[Value],
    results: Sequence[Any],
) -> str:
    """The first output whose shape is another than the file says; empty where none is.

    A dimension such as ``2*batch + 1`` is computed from the sizes of the inputs; one of a name that
    no input has may have any size.

    >>> x, y = Value("x", "float32", ("n", 3)), Value("y", "float32", ("2*n", 3))
    >>> misstated([x], [torch.ones(2, 3)], [y], [torch.ones(5, 3)])
    'y is declared float32[2*n, 3] and comes out as float32[5, 3]'
    """
    sizes = {
        name: size
        for value, tensor in zip(inputs, given, strict=False)
        for name, size in zip(value.shape or (), tensor.shape, strict=False)
        if isinstance(name, str)
    }
    for value, result in zip(outputs, results, strict=False):
        if not isinstance(result, torch.Tensor) or result.is_complex():
            continue
        if value.shape is None:
            continue
        want = [computed(size, sizes) for size in value.shape]
        if len(want) == result.dim() and _fits(want, result.shape):
            continue
        return f"{value!r}".replace(" ", " is declared ", 1) + (
            f" and comes out as {shaped(result.dtype, result.shape)}"
        )
    return ""


def _fits(want: Sequence[int | None], have: Sequence[int]) -> bool:
    return all(size in (None, got) for size, got in zip(want, have, strict=True))


def computed(size: int | str, sizes: Mapping[str, int]) -> int | None:
    """A declared dimension as a number; None where it cannot be known.

    >>> computed("(h//4) + Max(1, w)", {"h": 9, "w": 5}), computed("u0", {}), computed(3, {})
    (7, None, 3)
    """
    if isinstance(size, int):
        return size
    if size in sizes:
        return sizes[size]

    try:
        return _value(ast.parse(size[:1000], mode="eval").body, sizes)
    except (SyntaxError, KeyError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, sizes: Mapping[str, int]) -> int:
    """Arithmetic alone: the text comes from a file."""
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id=name):
            return sizes[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, sizes)
        case ast.BinOp(left=left, op=sign, right=right):
            return _SIGNS[type(sign)](_value(left, sizes), _value(right, sizes))
        case ast.Call(func=ast.Name(id=name), args=given):
            return _CALLS[name](*(_value(one, sizes) for one in given))
    raise ValueError
