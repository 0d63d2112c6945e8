"""Two callables on the same call: do they give the same numbers?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import zip_longest
from typing import Any, Literal, overload

from .calls import door
from .comparison import Agreement, Grains, answer, checked, coarsest, compare
from .divergence import Divergence, check_graph, compare_values
from .errors import InputError, WorkbenchError
from .formatting import kind_of
from .source import told, user_line


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
@door
def verify(
    a: Callable[..., Any],
    b: Callable[..., Any],
    args: Any,
    kwargs: dict[str, Any] | None = None,
    *,
    values: bool = False,
    tolerance: float | tuple[float, float] | None = None,
) -> Agreement | Divergence:
    """Call ``a`` and ``b`` with the same arguments and compare what they return.

    Structure, shapes and dtypes come first, and nothing is ever broadcast: (2, 3) and (1, 3) do not
    agree. A number agrees where ``|a - b| <= relative * |a| + absolute * max |a|``, with ``a`` as
    the reference: a number that is small beside its neighbors is not blamed for their rounding. NaN
    agrees with NaN, and an infinity with itself. The tolerance is that of the coarsest dtype that a
    result was computed in: float32 at the end of a float16 model is no more exact than float16.

    With ``values=True``, ``b`` is an artifact, and every value inside it is compared by the same
    rule. The translated graph runs in PyTorch, node by node, beside a session of ONNX Runtime that
    returns the values of the file (one session for each 256 MB of values). Names join the two, and
    :func:`~onnx_workbench.trace` gives each value its node, module and line. The verdict is that of
    the outputs, with and without ``values``: an error inside that reaches no output is shown, and
    does not change it.

    The first divergence is a wrong value whose inputs all agree. An error ten times theirs or more
    is a *jump*, made at this node; a smaller one is *drift*, which was inherited and grew. Its node
    is computed again alone, from PyTorch's inputs, by ONNX Runtime and by PyTorch in float64. Where
    ONNX Runtime is as near to float64 as PyTorch, the difference is rounding and no fault. Outputs
    that differ by rounding alone agree, and say so.

    Args:
        a: the reference. Both run without gradients, modules in eval mode.
        values: compare the values inside ``b`` too, not only its outputs.
        tolerance: (relative, absolute) for every dtype of floating point, or the relative one
            alone; the default goes by dtype and is printed. Whole numbers and booleans must be
            equal.

    Returns:
        an Agreement, or a Divergence; it is true where the outputs agree.

    Raises:
        InputError: ``a`` or ``b`` cannot be called or refuses the arguments, ``tolerance`` is
            not valid, or ``b`` has no captured graph.
        RunError: with ``values``, the graph does not run on these sizes.

    >>> import torch
    >>> verify(torch.exp, lambda x: 1 + x, torch.tensor([0.0, 1.0]))
    DIFFERENT: 1 of 1 output differs
    output  value       worst |a - b|  at   relative  tolerance    verdict
    ------  ----------  -------------  ---  --------  -----------  -------------
    result  float32[2]  7.18e-01       [1]  2.40e-01  1e-04,1e-05  1 of 2 differ
    """
    bounds, kwargs = checked(tolerance), kwargs or {}
    if values:
        check_graph(b)
    named = {"a": a, "b": b}
    reference, other = (_answer(name, one, args, kwargs) for name, one in named.items())
    outputs = compare(reference, other, bounds)
    if values:
        return compare_values(b, args, kwargs, (reference, other), bounds)
    if not outputs and getattr(b, "translated", None):
        with suppress(WorkbenchError):  # the graph does not run on these sizes
            return compare_values(b, args, kwargs, (reference, other), bounds).outputs
        return outputs
    if outputs or bounds or not any(leaf.worst for leaf in outputs.leaves):
        return outputs
    found = [Grains.of_call(function, args, kwargs) for function in named.values()]
    return compare(reference, other, None, [coarsest(*pair) for pair in zip_longest(*found)])


def _answer(name: str, function: Callable[..., Any], args: tuple, kwargs: Mapping[str, Any]) -> Any:
    if not callable(function):
        raise InputError(
            f"verify() was given {kind_of(function)} as {name!r}, but it takes two "
            "callables and their arguments: verify(model, artifact, x)."
        )
    try:
        return answer(function, args, kwargs)
    except WorkbenchError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"verify() called {name!r}, a {type(function).__name__}, and it refuses these "
            f"arguments: {type(error).__name__}: {first}",
            "pass arguments that both take, in the order in which both take them.",
            told(user_line(error.__traceback__)),
        ) from error
