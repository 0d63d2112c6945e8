"""The output shapes that a file declares, against its actual outputs."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree

from ..artifact import Artifact
from ..formatting import shaped

_ARITHMETIC = (
    *(ast.Expression, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod),
    *(ast.UnaryOp, ast.USub, ast.Call, ast.Name, ast.Load),
)


def mismatch(artifact: Artifact, args: tuple, kwargs: Mapping[str, Any], result: Any) -> str:
    """Describe the first output whose shape differs from the declared one; empty if there is none.

    A dimension such as ``2*batch + 1`` is computed from the sizes of the inputs. If no input has
    its name, it may have any size.
    """
    tensors = artifact.tensors(*args, **kwargs)
    sizes = {
        name: size
        for value, tensor in zip(artifact.inputs, tensors, strict=False)
        for name, size in zip(value.shape or (), tensor.shape, strict=False)
        if isinstance(name, str)
    }
    baked = artifact.signature.baked_outputs if artifact.signature else ()
    results = [leaf for i, leaf in enumerate(pytree.tree_leaves(result)) if i not in baked]
    for value, tensor in zip(artifact.outputs, results, strict=False):
        if value.shape is None or not isinstance(tensor, torch.Tensor) or tensor.is_complex():
            continue
        if not fits([computed(size, sizes) for size in value.shape], tensor.shape):
            declared = f"{value!r}".replace(" ", " is declared ", 1)
            return f"{declared}, but is {shaped(tensor.dtype, tensor.shape)}"
    return ""


def fits(declared: list[int | None], shape: torch.Size) -> bool:
    """Whether a shape has the declared sizes; None is any size."""
    return len(declared) == len(shape) and all(
        size in (None, actual) for size, actual in zip(declared, shape, strict=True)
    )


def computed(size: int | str, sizes: Mapping[str, int]) -> int | None:
    """A declared dimension as a number; None if it is unknown.

    >>> computed("(h//4) + Max(1, w)", {"h": 9, "w": 5}), computed("u0", {}), computed(3, {})
    (7, None, 3)
    """
    if isinstance(size, int):
        return size
    if size in sizes:
        return sizes[size]
    try:  # only arithmetic, since the text comes from a file
        tree = ast.parse(size[:1000], mode="eval")
        for node in ast.walk(tree):
            number = isinstance(node, ast.Constant) and isinstance(node.value, int)
            if not (number or isinstance(node, _ARITHMETIC)):
                return None
        names = {"__builtins__": {}, "Max": max, "Min": min}
        return int(eval(compile(tree, "size", "eval"), names, dict(sizes)))
    except (SyntaxError, NameError, TypeError, ValueError, ArithmeticError, RecursionError):
        return None
