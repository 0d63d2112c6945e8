"""How public functions read their arguments: the model's ``args`` and ``kwargs``, and options."""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, ParamSpec, TypeVar

from .brief import first_words
from .errors import CallError, InputError, WorkbenchError
from .formatting import kind_of
from .source import unless_internal, user_line

P = ParamSpec("P")
R = TypeVar("R")

_OLD = {
    "dynamic": "dynamic_shapes",
    "opset": "opset_version",
    "translations": "custom_translation_table",
}
"""Options of version 0.1 -> torch's name for the same."""

_THREADS_PER_CORE = 4
"""A larger pool only slows the whole machine down."""


def normalize_call(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function that takes a model's call as ``args`` and ``kwargs``.

    The function always gets a tuple as ``args`` (a bare value is one argument) and a dict as
    ``kwargs``. A call in the style of version 0.1 raises an InputError that shows the new call. An
    error of torch, onnx or ONNX Runtime that no lower module explains becomes a WorkbenchError.

    >>> @normalize_call
    ... def count(model, args=(), kwargs=None):
    ...     return len(args), list(kwargs)
    >>> count(abs, 1), count(abs, (1, 2), {"k": 3})
    ((1, []), (2, ['k']))
    """
    signature = inspect.signature(function)
    name = function.__name__
    leads = [p for p in signature.parameters if p not in ("args", "kwargs", "f")]
    lead = ", ".join(leads[: list(signature.parameters).index("args")])

    @functools.wraps(function)
    def wrapper(*given: Any, **options: Any) -> R:
        for old in _OLD.keys() & options.keys():
            if (new := _OLD[old]) in signature.parameters:
                raise InputError(
                    f"{name}() has no option `{old}`: torch's name for it is `{new}`.",
                    f"Write {name}(..., {new}=...).",
                )
        _check_options(name, lead, signature, options)
        try:
            bound = signature.bind(*given, **options)
        except TypeError as error:
            _check_positions(name, lead, given, options)
            takes = ", ".join(signature.parameters)
            raise CallError(f"{name}(): {error}; it takes {takes}") from None
        bound.apply_defaults()
        bound.arguments["args"], bound.arguments["kwargs"] = _call(name, lead, bound.arguments)
        try:
            return function(*bound.args, **bound.kwargs)
        except (WorkbenchError, CallError):
            raise
        except Exception as error:
            raise WorkbenchError(
                f"{name}() failed with an error of a library that it cannot explain",
                "Call the model itself with these inputs; if that works, report this with the "
                "whole traceback.",
                unless_internal(user_line(error.__traceback__)),
                reason=first_words(error),
            ) from error

    return wrapper


def _call(name: str, lead: str, given: Mapping[str, Any]) -> tuple[tuple, dict[str, Any]]:
    args, kwargs = given["args"], given["kwargs"]
    if "f" in given:
        _check_export(args)
    if kwargs is None:
        kwargs = {}
    if not (isinstance(kwargs, Mapping) and all(isinstance(key, str) for key in kwargs)):
        raise InputError(
            f"{name}() was given {kind_of(kwargs)} as `kwargs`, which must be a dict by name.",
            f"Pass several arguments as one tuple: {name}({lead}, (x, y)).",
        )
    return args if isinstance(args, tuple) else (args,), dict(kwargs)


def _check_export(args: object) -> None:
    """export() reads ``args`` as torch.onnx.export does: a tuple, or one tensor alone."""
    if isinstance(args, (str, bytes, os.PathLike)):
        raise InputError(
            f"export() was given {args!r} as `args`, but the inputs of the model come before the "
            "path, as in torch.onnx.export.",
            "Write export(model, (x,), 'model.onnx').",
        )
    if isinstance(args, (list, dict)):
        one = "kwargs={...}" if isinstance(args, dict) else "(x, y)"
        raise InputError(
            f"export() was given {kind_of(args)} as `args`, which must be a tuple of inputs.",
            f"Write {one}, or (value,) if the model takes one {type(args).__name__}.",
        )


def _check_options(
    name: str, lead: str, signature: inspect.Signature, options: Mapping[str, Any]
) -> None:
    """Raises InputError if an input of the model was passed by keyword."""
    for key, value in options.items():
        if key not in signature.parameters and _is_tensor(value):
            raise InputError(
                f"{name}() has no option {key!r}, but got a tensor for it.",
                "Pass keyword arguments of the model as one dict: "
                f"{name}({lead}, args, kwargs={{{key!r}: ...}}).",
            )


def _check_positions(name: str, lead: str, given: tuple, options: Mapping[str, Any]) -> None:
    """Raises InputError if inputs of the model were passed one by one."""
    if len(given) > 2 and any(map(_is_tensor, given)) and not options.keys() - _OLD.keys():
        raise InputError(
            f"{name}() takes the inputs of the model as one tuple, and was given {len(given)} "
            "positional arguments.",
            f"Write {name}({lead}, (x, y)).",
        )


def _is_tensor(value: object) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number of ``least`` or more.

    >>> whole("times", 3)
    3
    """
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least:
        return int(value)
    wanted = f"a whole number of {least} or more"
    raise InputError(f"{name} is {value!r:.80}; it must be {wanted}.", f"Pass {wanted}.")


def threads(value: Any) -> int:
    """A number of threads that this machine can run: up to four for each core.

    >>> threads(100_000)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    onnx_workbench.errors.InputError: threads is 100000; it must be a whole number of 1 or more, ...
    """
    most = _THREADS_PER_CORE * (os.cpu_count() or 1)
    count = whole("threads", value)
    if count > most:
        raise InputError(
            f"threads is {count}; it must be a whole number of 1 or more, and at most {most} here: "
            f"{_THREADS_PER_CORE} for each core.",
            "Pass the number of cores or less.",
        )
    return count


def number(name: str, value: Any, zero: bool = False) -> float:
    """A finite number above 0; with ``zero``, 0 is allowed.

    >>> number("seconds", 2)
    2.0
    """
    real = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if real and (value > 0 or (zero and value == 0)):
        return float(value)
    least = "a number of 0 or more" if zero else "more than 0"
    raise InputError(f"{name} is {value!r:.80}; it must be {least}.", f"Pass {least}.")


def check_initialized(caller: str, model: Any) -> None:
    """Raises InputError if a module's ``__init__`` never called ``super().__init__()``."""
    if not hasattr(model, "_parameters"):
        raise InputError(
            f"{caller}() was given {kind_of(model)} whose __init__ does not call "
            "super().__init__().",
            "Call it first there: it sets up torch.nn.Module.",
        )


Mode = Literal["", "API", "compute"]
"""How a call is timed: ``API`` takes and returns the user's own objects, ``compute`` works on
buffers that are bound once and reused. Empty if both are the same, as for a PyTorch model."""


@dataclass(frozen=True)
class PreparedCall:
    """A call that is ready to be timed: inputs in place, threads set.

    A target of a race may have a method ``timed_call(args, kwargs, threads=1)``. It returns an
    object that can be pickled. In a worker process, the object's ``prepare()`` makes a
    PreparedCall; the process first imports the object's ``modules``. Any other target is timed as
    ``fn(*args, **kwargs)``.

    Args:
        run: takes no argument and makes one call; only this is timed.
        timed: what the time covers and what it leaves out.
        threads: intra-op threads, as the runtime reports them.
        close: undoes the preparation.
        first: the first call, if it does more than ``run``.

    >>> ready = PreparedCall(run=lambda: sum(range(10)), timed="call: nothing in, an int out")
    >>> ready.run()
    45
    """

    run: Callable[[], object]
    timed: str
    threads: int | None = None
    mode: Mode = ""
    close: Callable[[], object] = lambda: None
    first: Callable[[], object] | None = None
