"""``verify``: do two callables give the same numbers for the same call?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import zip_longest
from typing import Any, Literal, overload

import torch
import torch.utils._pytree as pytree

from .brief import first_words
from .calls import normalize_call
from .comparison import Agreement, Grains, answer, checked, coarsest, compare
from .divergence import Divergence, check_graph, compare_values
from .errors import InputError, WorkbenchError
from .formatting import kind_of
from .source import unless_internal, user_line


@overload
def verify(
    a: Callable[..., Any],
    b: Callable[..., Any],
    args: Any,
    kwargs: dict[str, Any] | None = None,
    *,
    values: Literal[False] = False,
    tolerance: float | tuple[float, float] | None = None,
) -> Agreement: ...
@overload
def verify(
    a: Callable[..., Any],
    b: Callable[..., Any],
    args: Any,
    kwargs: dict[str, Any] | None = None,
    *,
    values: Literal[True],
    tolerance: float | tuple[float, float] | None = None,
) -> Divergence: ...
@normalize_call
def verify(
    a: Callable[..., Any],
    b: Callable[..., Any],
    args: Any,
    kwargs: dict[str, Any] | None = None,
    *,
    values: bool = False,
    tolerance: float | tuple[float, float] | None = None,
) -> Agreement | Divergence:
    """Call ``a`` and ``b`` with the same arguments and compare their results.

    Structure, shapes and dtypes must be equal; nothing is broadcast: (2, 3) and (1, 3) do not
    agree. Two numbers agree if ``|a - b| <= relative * |a| + absolute * max |a|``, with ``a`` as
    the reference, so that a small number is not blamed for the rounding of its large neighbors. NaN
    agrees with NaN, and an infinity with itself. The tolerance is that of the coarsest dtype in the
    computation: the float32 result of a float16 model is no more accurate than float16.

    With ``values=True``, ``b`` is an Artifact, and every value inside it is compared by the same
    rule. The translated graph runs in PyTorch, node by node, beside a session of ONNX Runtime that
    returns the values of the file (one session for each 256 MB of values). Values are matched by
    name, and :func:`~onnx_workbench.trace` gives each its node, module and line. The verdict is
    that of the outputs, with and without ``values``: an error inside that reaches no output is
    shown but does not count.

    The first divergence is a wrong value whose inputs all agree. If its error is at least ten times
    theirs, it is a *jump*, made at this node; a smaller one is *drift*, inherited and grown. ONNX
    Runtime, and PyTorch in float64, compute the node again, from PyTorch's inputs. If ONNX Runtime
    is as near to float64 as PyTorch, the difference is rounding and not a fault. Outputs that
    differ only by rounding agree, and the report says so.

    Args:
        a: the reference. Both run without gradients, modules in eval mode.
        values: compare the values inside ``b``, too.
        tolerance: (relative, absolute) for every floating-point dtype, or only the relative one;
            the default depends on the dtype and is printed. Integers and booleans must be equal.

    Returns:
        an Agreement, or a Divergence; it is true if the outputs agree.

    Raises:
        InputError: ``a`` or ``b`` cannot be called or refuses the arguments, ``tolerance`` is
            not valid, or ``b`` has no captured graph.
        RunError: with ``values``, the graph does not run on these sizes.

    >>> import torch
    >>> verify(torch.exp, lambda x: 1 + x, torch.tensor([0.0, 1.0]))
    DIFFERENT: 1 of 1 output differs
    output  value       worst |a - b|  at   relative  tolerance    verdict
    ------  ----------  -------------  ---  --------  -----------  -------------
    result  float32[2]       7.18e-01  [1]  2.40e-01  1e-04,1e-05  1 of 2 differ
    """
    bounds, kwargs = checked(tolerance), kwargs or {}
    if values:
        check_graph(b)
    _check_comparable("was given", (args, kwargs))
    named = {"a": a, "b": b}
    reference, other = (_answer(name, one, args, kwargs) for name, one in named.items())
    outputs = compare(reference, other, bounds)
    if values:
        return compare_values(b, args, kwargs, reference, other, bounds)
    if not outputs:
        with suppress(WorkbenchError):  # b has no graph, or it does not run on these sizes
            check_graph(b)
            return compare_values(b, args, kwargs, reference, other, bounds).outputs
    if outputs or bounds or not any(leaf.worst for leaf in outputs.leaves):
        return outputs
    grains = [Grains.of_call(function, args, kwargs) for function in named.values()]
    return compare(reference, other, None, [coarsest(*pair) for pair in zip_longest(*grains)])


def _answer(name: str, function: Callable[..., Any], args: tuple, kwargs: Mapping[str, Any]) -> Any:
    if not callable(function):
        raise InputError(
            f"verify() was given {kind_of(function)} as {name!r}, but it takes two callables.",
            "Write verify(model, artifact, x).",
        )
    try:
        result = answer(function, args, kwargs)
    except WorkbenchError:
        raise
    except Exception as error:
        raise InputError(
            f"verify() called {name!r}, a {type(function).__name__}, which refuses these "
            f"arguments: {first_words(error)}",
            "Pass arguments that both take, in the same order.",
            unless_internal(user_line(error.__traceback__)),
        ) from error
    _check_comparable(f"called {name!r}, which returned", result)
    return result


def _check_comparable(where: str, values: Any) -> None:
    """Raise InputError if a tensor holds no numbers that can be compared one by one."""
    for tensor in pytree.tree_leaves(values):
        if isinstance(tensor, torch.Tensor) and (tensor.is_nested or tensor.is_meta):
            kind = "nested tensor" if tensor.is_nested else "tensor on the meta device"
            raise InputError(
                f"verify() {where} a {kind}, but it compares numbers at equal places.",
                "Compare its parts one by one: nested.unbind()."
                if tensor.is_nested
                else "Pass a tensor with values: torch.empty_like(x, device='cpu').normal_().",
            )
