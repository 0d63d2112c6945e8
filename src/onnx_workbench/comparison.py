"""Compares two results number by number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from .errors import InputError
from .formatting import Part, Report, Table, plural, shaped
from .graph.dims import by_path
from .torch_state import evaluating

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
"""(relative, absolute) by dtype; wider than torch.testing's, since two backends add in different
orders. Any other dtype must agree exactly."""

Tolerance = tuple[float, float]
"""(relative, absolute); the absolute one is in units of the tensor's largest number."""

_SLICE = 1 << 15
"""Elements compared at a time, so that their double-precision copies stay in a core's cache."""
_FILL = 2.0**13
"""Whole numbers from here on may be a mask's; in bfloat16, -1e4 is -9984."""
_SAMPLE, _SEARCHED = 16, 100_000
"""The most results of an operator that are looked up, and the most inputs that are searched."""


def checked(tolerance: Any) -> Tolerance | None:
    """Check a ``tolerance`` and return it as a pair. A single number is the relative tolerance; the
    absolute one is then a tenth of it.

    >>> checked(1e-3), checked([0.1, 0])
    ((0.001, 0.0001), (0.1, 0.0))
    """
    if tolerance is None:
        return None
    pair = (tolerance, tolerance / 10) if _is_size(tolerance) else tolerance
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(map(_is_size, pair)):
        raise InputError(
            f"`tolerance` is {tolerance!r:.100}, but must be (relative, absolute), two finite "
            "numbers of 0 or more, or the relative one alone.",
            "Write tolerance=1e-3 or tolerance=(1e-3, 1e-5).",
        )
    return float(pair[0]), float(pair[1])


def _is_size(value: object) -> bool:
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0  # type: ignore[arg-type, operator]


def tolerance_of(
    dtype: torch.dtype, asked: Tolerance | None = None, grain: torch.dtype | None = None
) -> Tolerance:
    """The requested tolerance, else the default of the dtype or of the coarser ``grain``.

    >>> tolerance_of(torch.float16), tolerance_of(torch.int64, (0.1, 0.1))
    ((0.01, 0.001), (0.0, 0.0))
    >>> tolerance_of(torch.float32, grain=torch.float16)
    (0.01, 0.001)
    """
    if dtype not in TOLERANCES:
        return 0.0, 0.0
    return asked or TOLERANCES[coarsest(dtype, grain) or dtype]


def coarsest(*dtypes: torch.dtype | None) -> torch.dtype | None:
    """The floating-point dtype with the widest tolerance; None if there is none."""
    known = [dtype for dtype in dtypes if dtype in TOLERANCES]
    return max(known, key=lambda dtype: TOLERANCES[dtype], default=None)


def answer(function: Callable[..., Any], args: tuple, kwargs: Mapping[str, Any]) -> Any:
    """Call ``function`` with copies of the arguments; a module runs in eval mode.

    A ``torch.Size`` in the result becomes a tuple, as in the result of a captured graph.
    """
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (args, dict(kwargs)))
    if isinstance(function, torch.export.ExportedProgram):
        function = function.module()
    with torch.no_grad(), evaluating(function):
        result = function(*args, **kwargs)
    return pytree.tree_map_only(torch.Size, tuple, result)


def compare(
    a: Any, b: Any, tolerance: Tolerance | None = None, grains: Sequence[torch.dtype | None] = ()
) -> Agreement:
    """Compare two results leaf by leaf. ``grains`` has the coarsest dtype that each leaf was
    computed in, see :class:`Grains`."""
    return Agreement(tuple(_leaves(a, b, tolerance, grains)))


@dataclass(frozen=True)
class Leaf:
    """One leaf of the result: how large its error is, and where.

    ``worst`` is the largest absolute error (of the wrong elements, if any) at position ``index``;
    None if no numbers were compared. ``relative`` is the largest
    ``|a - b| / (|a| + f * max |a|)`` with f = absolute / relative; it is compared with the relative
    ``tolerance``. ``reason`` is empty if the leaf agrees; ``note`` says why a leaf beyond its
    tolerance agrees. ``finite`` is False if every element is NaN or infinite, or there is none.
    """

    path: str
    value: str
    worst: float | None = None
    relative: float = 0.0
    index: tuple[int, ...] = ()
    tolerance: Tolerance = (0.0, 0.0)
    reason: str = ""
    note: str = ""
    finite: bool = True

    @property
    def summary(self) -> str:
        """The reason and the size of the error."""
        if self.worst is None or not self.reason:
            return self.reason
        return f"{self.reason}, by up to {self.worst:.1e} (relative {self.relative:.1e})"

    def excused(self) -> Leaf:
        """Accept the leaf: its error is rounding."""
        if self.worst is None or not self.reason:
            return self
        return replace(self, reason="", note=f"rounding: {self.reason}")


@dataclass(frozen=True, repr=False)
class Agreement(Report):
    """The result of :func:`~onnx_workbench.verify`, leaf by leaf."""

    leaves: tuple[Leaf, ...]

    def __bool__(self) -> bool:
        return not any(leaf.reason for leaf in self.leaves)

    @property
    def worst(self) -> Leaf:
        """The wrong leaf with the largest absolute error, else the leaf with the largest."""
        return max(self.leaves, key=lambda leaf: (bool(leaf.reason), leaf.worst or 0.0))

    def _parts(self) -> Iterator[Part]:
        yield f"{'AGREE' if self else 'DIFFERENT'}: {self.count}"
        yield self.table

    @property
    def table(self) -> Table:
        """One row for each leaf."""
        header = ("output", "value", "worst |a - b|", "at", "relative", "tolerance", "verdict")
        return Table([*map(_row, self.leaves)], header, right=(2, 4))

    @property
    def count(self) -> str:
        """How many outputs differ, or how all of them agree."""
        wrong = sum(bool(leaf.reason) for leaf in self.leaves)
        outputs = plural(len(self.leaves), "output")
        if wrong:
            return f"{wrong} of {outputs} {'differs' if wrong == 1 else 'differ'}"
        if any(leaf.note for leaf in self.leaves):
            return f"{outputs}, as near to float64 as PyTorch"
        return f"{outputs} within tolerance"


class Grains(TorchDispatchMode):
    """Tracks the coarsest dtype that each tensor was rounded to, while this mode is active.

    A float32 tensor that ``.float()`` made from float16 is only as accurate as float16. An operator
    that only moves numbers, such as a lookup in a float16 table, does not round.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self._of: Any = WeakTensorKeyDictionary()

    @classmethod
    def of_call(
        cls, function: Callable[..., Any], args: tuple, kwargs: Mapping[str, Any]
    ) -> list[torch.dtype | None]:
        """The grain of each leaf, from another run; empty if the mode cannot track the function."""
        mode = cls()
        try:
            with mode:
                result = answer(function, args, kwargs)
        except Exception:  # the function does not work under a dispatch mode
            return []
        return [mode.of(leaf) for leaf in pytree.tree_leaves(result)]

    def of(self, value: object) -> torch.dtype | None:
        return self._of.get(value) if isinstance(value, torch.Tensor) else None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        inherited = coarsest(*map(self.of, inputs))
        for output in pytree.tree_leaves(result):
            if isinstance(output, torch.Tensor):
                rounded_to = None if _moves(func, inputs, output) else output.dtype
                if grain := coarsest(inherited, rounded_to):
                    self._of[output] = grain
        return result


def _moves(operator: Any, inputs: Sequence[torch.Tensor], output: torch.Tensor) -> bool:
    """Whether an operator only copies numbers from its inputs. Checked on a sample, since no list
    of operators stays complete."""
    if getattr(operator, "is_view", False):
        return True
    alike = [tensor for tensor in inputs if tensor.dtype == output.dtype and tensor.numel()]
    if not (alike and output.numel()) or sum(t.numel() for t in alike) > _SEARCHED:
        return False
    flat = output.reshape(-1)
    sample = wide(flat[:: max(1, flat.numel() // _SAMPLE)][:_SAMPLE])
    return all(any(bool((wide(tensor) == number).any()) for tensor in alike) for number in sample)


@dataclass(frozen=True)
class Difference:
    """The error between two tensors of equal shape and dtype; ``at`` indexes the flat tensor,
    ``finite`` says whether the first has a finite number."""

    worst: float
    at: int
    relative: float
    wrong: int
    finite: bool


def difference(a: torch.Tensor, b: torch.Tensor, tolerance: Tolerance) -> Difference:
    """Compare element by element; ``a`` is the reference.

    An element agrees if ``|a - b| <= relative * |a| + absolute * max |a|``, so that a small number
    is not blamed for the rounding of its large neighbors. If ``a`` is all zeros, ``max |a|`` counts
    as 1. What a mask fills in, such as -1e9, is no such neighbor: see :func:`filled`.
    """
    if not a.numel():
        return Difference(0.0, 0, 0.0, 0, False)
    pairs = [*zip(*(on_cpu(part).flatten().split(_SLICE) for part in (a, b)), strict=True)]
    peak = max(magnitude(torch.where(filled(x, y), 0.0, wide(x))) for x, y in pairs) or 1.0
    parts = [_slice_difference(x, y, tolerance, peak) for x, y in pairs]
    start, worst = max(enumerate(parts), key=lambda part: (bool(part[1].wrong), part[1].worst))
    return Difference(
        worst.worst,
        start * _SLICE + worst.at,
        max(part.relative for part in parts),
        sum(part.wrong for part in parts),
        any(part.finite for part in parts),
    )


def _slice_difference(
    a: torch.Tensor, b: torch.Tensor, tolerance: Tolerance, peak: float
) -> Difference:
    x, y = wide(a), wide(b)
    scale = x.abs().nan_to_num(nan=0.0, posinf=0.0)
    error = (x - y).abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
    relative, absolute = tolerance
    if a.is_floating_point() or a.is_complex():
        same = (x == y) | ((x != x) & (y != y))  # equal infinities, NaN and NaN
        wrong = ~same & (~(error <= absolute * peak + relative * scale) | error.isinf())
    else:  # a double cannot represent every integer
        same = a == b
        wrong, error = ~same, error.clamp(min=1.0)
    error = torch.where(same, 0.0, error)
    unit = scale + peak * absolute / relative if relative else torch.full_like(scale, peak)
    ratio = torch.where(same, 0.0, error / unit).nan_to_num(nan=torch.inf, posinf=torch.inf)
    ranked = torch.where(wrong, error, -1.0) if wrong.any() else error
    at = int(ranked.argmax())
    finite = bool(x.isfinite().any())
    return Difference(float(error[at]), at, float(ratio.max()), int(wrong.sum()), finite)


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """In double precision."""
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def filled(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The equal elements that a mask may have filled in: whole numbers as large as -1e4, -1e9 or
    ``torch.finfo(torch.float32).min``.

    >>> filled(torch.tensor([0.5, -1e4, 12345.5]), torch.tensor([0.5, -1e4, 12345.5])).tolist()
    [False, True, False]
    """
    if not a.is_floating_point():
        return torch.zeros(a.shape, dtype=torch.bool)
    x, y = wide(a), wide(b)
    return (x == y) & (x.abs() >= _FILL) & (x == x.round())


def magnitude(tensor: torch.Tensor) -> float:
    """The largest finite absolute value; 0 if there is none."""
    sizes = wide(tensor).abs().nan_to_num(nan=0.0, posinf=0.0)
    return float(sizes.max()) if sizes.numel() else 0.0


def on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """On the CPU, dense, without autograd history."""
    tensor = tensor.detach().cpu()
    if tensor.is_quantized:
        return tensor.dequantize()
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


def _row(leaf: Leaf) -> tuple[str, ...]:
    odd = "empty" if leaf.worst is None else "no number is finite"
    agree = "agree" if leaf.finite else f"agree, but {odd}"
    verdict = leaf.reason or leaf.note or agree
    if leaf.worst is None:
        return (leaf.path, leaf.value, "", "", "", "", verdict)
    relative, absolute = leaf.tolerance
    return (
        leaf.path,
        leaf.value,
        f"{leaf.worst:.2e}",
        str(list(leaf.index)),
        f"{leaf.relative:.2e}",
        f"{relative:.0e},{absolute:.0e}",
        verdict,
    )


def _leaves(
    a: Any, b: Any, tolerance: Tolerance | None, grains: Sequence[torch.dtype | None]
) -> Iterator[Leaf]:
    left, (right, spec_b) = by_path({"result": a}).items(), pytree.tree_flatten(b)
    if pytree.tree_structure(a) != spec_b:
        yield Leaf("structure", _outline(a), reason=f"a is {_outline(a)}, b is {_outline(b)}")
        return
    for i, ((path, x), y) in enumerate(zip(left, right, strict=True)):
        grain = grains[i] if i < len(grains) else None
        yield compare_leaf(path, x, y, tolerance, grain)


def compare_leaf(
    path: str, a: Any, b: Any, tolerance: Tolerance | None, grain: torch.dtype | None
) -> Leaf:
    if isinstance(a, float) and isinstance(b, float):  # computed in an unknown dtype
        a, b, grain = torch.tensor(a).double(), torch.tensor(b).double(), torch.float32
    a, b = _tensor(a), _tensor(b)
    if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)):
        agrees = type(a) is type(b) and _equal(a, b)
        return Leaf(path, _word(a), reason="" if agrees else f"a is {_word(a)}, b is {_word(b)}")
    value = shaped(a.dtype, a.shape)
    if a.shape != b.shape or a.dtype != b.dtype:
        reason = f"a is {value}, b is {shaped(b.dtype, b.shape)}"
        if a.is_complex() and b.shape == (*a.shape, 2):
            reason += ": its real and imaginary parts"
        return Leaf(path, value, reason=reason)
    bounds = tolerance_of(a.dtype, tolerance, grain)
    if not a.numel():
        return Leaf(path, value, finite=False)
    error = difference(a, b, bounds)
    index = tuple(map(int, np.unravel_index(error.at, a.shape)))
    reason = f"{error.wrong:,} of {a.numel():,} differ" if error.wrong else ""
    found = error.worst, error.relative, index, bounds, reason
    return Leaf(path, value, *found, finite=error.finite)


def _tensor(value: Any) -> Any:
    """Turn a NumPy array or scalar into a tensor."""
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    try:
        return torch.from_numpy(np.array(value))
    except TypeError:  # torch lacks the dtype
        return value


def _equal(a: object, b: object) -> bool:
    """Whether two values are equal; their comparison may raise, or return an array."""
    try:
        return bool(np.all(a == b))
    except Exception:
        return a is b


def _word(value: object) -> str:
    return shaped(value.dtype, value.shape) if isinstance(value, torch.Tensor) else f"{value!r:.60}"


def _outline(value: Any) -> str:
    """The structure of a result, with the type of each leaf."""
    if isinstance(value, dict):
        inner = ", ".join(f"{key}: {_outline(item)}" for key, item in value.items())
        return f"{type(value).__name__}({inner})"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}({', '.join(map(_outline, value))})"
    return type(value).__name__
