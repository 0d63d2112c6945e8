"""Why a value of a file differs: from its node, computed alone and in float64, and its numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import fx

from .comparison import Tolerance, coarsest, difference, filled, magnitude, on_cpu, wide
from .exporter_metadata import is_getitem
from .formatting import plural, shaped

_AS_NEAR = 4.0
"""The factor by which the largest errors of two orders of summation may differ without a fault."""
_BITS = 8.0
"""The error that a node may have, in last bits of its inputs."""
_NUDGES = 4
"""How often the inputs are nudged by their last bit."""
_LARGEST = 1e3
"""The largest error that counts as rounding, in steps of the dtype at the node's largest number."""

_DOUBLE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}


@dataclass(frozen=True)
class Cause:
    """``reason`` says why a value differs, ``repair`` what usually helps. ``rounding`` is True if
    ONNX Runtime computes the node as accurately as PyTorch, from the same inputs."""

    reason: str
    repair: str
    rounding: bool = False


ROUNDING = Cause("from the same inputs ONNX Runtime is as near to float64 as PyTorch", "", True)
UNKNOWN = Cause(
    "from the same inputs ONNX Runtime and PyTorch compute different numbers",
    "Write the line with other operators, or pass export() an onnxscript function for its "
    "operator in `custom_translation_table`.",
)

INT8 = Cause(
    "the file computes it in 8-bit integers",
    "Quantize with per_channel=True, calibrate with other examples, or leave the node out: "
    "nodes_to_exclude=[its name].",
)


def of(
    node: fx.Node,
    given: Mapping[fx.Node, Any],
    constants: Callable[[str], Any],
    reference: torch.Tensor,
    alone: Any,
    tolerance: Tolerance,
) -> Cause:
    """Why a node differs, if ``alone`` is ONNX Runtime's result for PyTorch's own inputs.

    Args:
        given: PyTorch's values that the node depends on, directly or through other nodes.
        constants: returns an attribute of the graph by name.
    """
    if not isinstance(alone, torch.Tensor):
        return UNKNOWN
    if (reference.shape, reference.dtype) != (alone.shape, alone.dtype):
        return _kinds(reference, alone)
    if not difference(reference, alone, tolerance).wrong:
        return ROUNDING
    inputs = [on_cpu(value) for value in given.values() if isinstance(value, torch.Tensor)]
    reference, alone = on_cpu(reference), on_cpu(alone)
    recomputed = partial(_recomputed, node, given, constants)
    if _as_near(recomputed, inputs, reference, alone):
        return ROUNDING
    return next(_special(_operator(node), inputs, reference, alone), UNKNOWN)


def _kinds(reference: torch.Tensor, value: torch.Tensor) -> Cause:
    """Why two values have different shapes or dtypes."""
    have, got = (shaped(tensor.dtype, tensor.shape) for tensor in (reference, value))
    if reference.is_floating_point() and value.is_floating_point():
        repair = (
            "If a tool converted the file, compare its outputs alone, without values=True. Else "
            f"cast the result at this line with .to({reference.dtype})."
        )
    elif reference.dtype != value.dtype:
        repair = (
            "Cast at this line: compute in a dtype that ONNX has the operator for, such as "
            f"x.to(torch.int32), and cast the result with .to({reference.dtype})."
        )
    else:
        repair = "State the shape at this line with reshape or expand, or rewrite the line."
    return Cause(f"PyTorch returns {have} and the file returns {got}", repair)


def _as_near(
    recomputed: Callable[[Callable[[Any], Any]], Any],
    inputs: Sequence[torch.Tensor],
    reference: torch.Tensor,
    alone: torch.Tensor,
) -> bool:
    """Whether ``alone`` is as near to the node's result in float64 as the reference is, or as near
    as if the inputs had moved by their last bit."""
    dtype = coarsest(reference.dtype, *(tensor.dtype for tensor in inputs))
    if dtype is None:
        return False
    nudged = partial(_nudged, torch.Generator().manual_seed(0))
    casts: list[Callable[[Any], Any]] = [_double, *[nudged] * _NUDGES]
    try:
        exact, *near = [on_cpu(recomputed(cast)) for cast in casts]
    except Exception:  # the operator has no float64
        return False
    if any(tensor.shape != reference.shape for tensor in (exact, *near)):
        return False
    step = torch.finfo(dtype).eps * max(map(magnitude, (exact, *inputs)))
    compared = ~filled(reference, alone)
    torch_error, ort_error, *moved = (
        difference(wide(exact)[compared], wide(value)[compared], (0.0, 0.0)).worst
        for value in (reference, alone, *near)
    )
    if torch_error > _LARGEST * step:  # float64 computes something else
        return False
    # a jump, as in round(), is no rounding
    most = max(moved) if max(moved) <= _LARGEST * step else 0.0
    return ort_error <= max(_AS_NEAR * torch_error, _BITS * most)


def _recomputed(
    node: fx.Node,
    given: Mapping[fx.Node, Any],
    constants: Callable[[str], Any],
    cast: Callable[[Any], Any],
) -> Any:
    """Compute the node from the given values, after ``cast``, with its dtype arguments widened."""
    values: dict[fx.Node, Any] = {}

    def value_of(one: fx.Node) -> Any:
        if one not in values:
            values[one] = cast(given[one]) if one in given else compute(one)
        return values[one]

    def compute(one: fx.Node) -> Any:
        if one.op == "get_attr":
            return cast(constants(str(one.target)))
        args, kwargs = fx.map_arg((one.args, one.kwargs), value_of)
        args, kwargs = pytree.tree_map_only(
            torch.dtype, lambda dtype: _DOUBLE.get(dtype, dtype), (args, kwargs)
        )
        return one.target(*args, **kwargs)  # type: ignore[operator]

    with torch.no_grad():
        return compute(node)


def _double(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(_DOUBLE.get(value.dtype, value.dtype))


def _nudged(source: torch.Generator, value: Any) -> Any:
    """The value in float64, with each number moved up or down by a last bit of its own dtype."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return _double(value)
    signs = torch.randint(2, value.shape, generator=source) * 2 - 1
    return _double(value) * (1 + torch.finfo(value.dtype).eps * signs.to(value.device))


def _operator(node: fx.Node) -> str:
    """The operator of a node; for an item of a tuple, the operator that made the tuple."""
    whole = node.args[0] if is_getitem(node) else node
    return str(whole.target if isinstance(whole, fx.Node) else node.target)


# ---------------------------------------------------------------- what is special about the numbers


def _special(
    operator: str, inputs: Sequence[torch.Tensor], a: torch.Tensor, b: torch.Tensor
) -> Iterator[Cause]:
    wrong = ~((a == b) | ((a != a) & (b != b)))
    if any(_tied(tensor, a, b) for tensor in inputs):
        yield Cause(
            "ties: PyTorch and ONNX Runtime choose different ones of equal values",
            "Do not rely on the order of equal values, or fix it: sort with stable=True, or break "
            "ties by position, x - 1e-6 * torch.arange(x.shape[-1]).",
        )
    if re.search(r"softmax|attention", operator) and any(map(_masks_a_row, inputs)):
        yield Cause(
            "a fully masked row: a softmax over nothing is undefined, and each runtime returns "
            "something else",
            "Keep one position of each row, or set such rows with torch.where.",
        )
    odd = [int(wrong.logical_and(~part.isfinite()).sum()) for part in (a, b)]
    if any(odd):
        yield Cause(
            f"NaN or infinity: where they differ, PyTorch has {odd[0]:,}, the file has {odd[1]:,}",
            "Keep them out of this line: clamp the divisor and the arguments of log and exp, "
            "and mask with torch.finfo(x.dtype).min instead of -inf.",
        )
    if re.search(r"div|remainder|fmod|floor|ceil|trunc|round|mod|shift", operator):
        yield from _rounded(operator, inputs, wrong)


def _tied(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether ``a`` and ``b`` are indices of equal values in ``x`` along some dimension."""
    if {a.dtype, b.dtype} != {torch.int64} or not x.numel() or not a.numel():
        return False
    x, a, b = (tensor.contiguous() for tensor in (x, a, b))  # take_along_dim flattens no other
    for axis in (None, *range(x.dim())):  # None: in the flat tensor
        with suppress(RuntimeError, IndexError):  # no indices along this one
            whole = axis is None or a.dim() == x.dim()
            one, other = (x.take_along_dim(i if whole else i.unsqueeze(axis), axis) for i in (a, b))
            if torch.equal(one, other):
                return True
    return False


def _masks_a_row(mask: torch.Tensor) -> bool:
    if not mask.dim() or not mask.numel():
        return False
    if mask.dtype == torch.bool:
        return bool((~mask).all(-1).any())
    if not mask.is_floating_point():
        return False
    return bool((mask <= torch.finfo(mask.dtype).min / 2).all(-1).any())


def _rounded(operator: str, inputs: Sequence[torch.Tensor], wrong: torch.Tensor) -> Iterator[Cause]:
    """Division, remainder and rounding, if they differ by a convention."""
    parts = (_at(tensor, wrong) for tensor in inputs)
    at = [part for part in parts if part is not None and not part.is_complex()]
    count = plural(int(wrong.sum()), "number")
    halves = any(bool((part.double().frac().abs() == 0.5).all()) for part in at)
    if halves and "round" in operator:
        yield Cause(
            f"halves: all {count} that differ end in .5, which PyTorch rounds to the even number",
            "Write the rounding out, torch.floor(x + 0.5), where halves matter.",
        )
    if at and bool(torch.stack([part < 0 for part in at]).any(0).all()):
        yield Cause(
            f"negative numbers: all {count} that differ have a negative operand, which "
            f"{operator} and the file round differently",
            "Write the rounding out: torch.div(x, y, rounding_mode='floor') or 'trunc', and "
            "x - y * torch.floor(x / y) for a remainder.",
        )


def _at(tensor: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor | None:
    try:
        return tensor.broadcast_to(wrong.shape)[wrong]
    except RuntimeError:
        return None
