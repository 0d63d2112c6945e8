"""How every door reads the call of a model: a tuple ``args`` and a dict ``kwargs``, as in torch."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from .errors import InputError

P = ParamSpec("P")
R = TypeVar("R")

_OLD = {
    "dynamic": "dynamic_shapes",
    "opset": "opset_version",
    "translations": "custom_translation_table",
}
"""Options of version 0.1 -> torch's name for the same."""


def door(function: Callable[P, R]) -> Callable[P, R]:
    """A function that takes the call of a model as ``args`` and ``kwargs``.

    Inside, ``args`` is always a tuple (a bare value is one argument) and ``kwargs`` a dict. A call
    that was right in version 0.1 raises an InputError that shows the new call.

    >>> @door
    ... def count(model, args=(), kwargs=None):
    ...     return len(args), list(kwargs)
    >>> count(abs, 1), count(abs, (1, 2), {"k": 3})
    ((1, []), (2, ['k']))
    """
    signature = inspect.signature(function)
    name = function.__name__  # type: ignore[attr-defined]
    leads = [p for p in signature.parameters if p not in ("args", "kwargs", "f")]
    lead = ", ".join(leads[: list(signature.parameters).index("args")])

    @functools.wraps(function)
    def opened(*given: Any, **options: Any) -> R:
        for old in _OLD.keys() & options.keys():
            if (new := _OLD[old]) in signature.parameters:
                raise InputError(
                    f"{name}() has no option `{old}`: torch's name for it is `{new}`. "
                    f"Write {name}(..., {new}=...)."
                )
        try:
            bound = signature.bind(*given, **options)
        except TypeError as error:
            _explain(name, lead, signature, given, options)
            raise TypeError(f"{name}(): {error}") from None
        bound.apply_defaults()
        bound.arguments["args"], bound.arguments["kwargs"] = _call(name, lead, bound.arguments)
        return function(*bound.args, **bound.kwargs)

    return opened


def _call(name: str, lead: str, given: Mapping[str, Any]) -> tuple[tuple, dict[str, Any]]:
    args, kwargs = given["args"], given["kwargs"]
    if kwargs is None:
        kwargs = {}
    if not (isinstance(kwargs, Mapping) and all(isinstance(key, str) for key in kwargs)):
        raise InputError(
            f"{name}() was given {_kind(kwargs)} as `kwargs`, which takes a dict by name. "
            f"Several arguments of the model are one tuple: {name}({lead}, (x, y))."
        )
    return args if isinstance(args, tuple) else (args,), dict(kwargs)


def _explain(
    name: str, lead: str, signature: inspect.Signature, given: tuple, options: Mapping[str, Any]
) -> None:
    """Raises InputError where inputs of the model were passed one by one, or by keyword."""
    known = signature.parameters
    strange = {key: value for key, value in options.items() if key not in known}
    tensors = [key for key, value in strange.items() if _is_tensor(value)]
    if tensors:
        raise InputError(
            f"{name}() has no option {tensors[0]!r}, and was given a tensor for it. Keyword "
            f"arguments of the model are one dict: {name}({lead}, args, kwargs={{{tensors[0]!r}: "
            "...})."
        )
    if any(map(_is_tensor, given)) and not strange:
        raise InputError(
            f"{name}() takes the inputs of the model as one tuple, and was given {len(given)} "
            f"positional arguments. Write {name}({lead}, (x, y))."
        )


def _is_tensor(value: object) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"
