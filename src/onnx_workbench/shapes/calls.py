"""Dynamic shapes read off real calls of a model."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn
from torch.onnx import InputObserver

from .. import checks
from ..capturing.dims import paths
from ..capturing.graph import check_module
from ..capturing.signature import arguments, parameters, rest_of
from ..errors import InputError
from ..text import plural, shaped, table


@contextmanager
def observe(model: nn.Module, calls: int = 8) -> Iterator[Calls]:
    """Watch the calls of ``model`` and infer which dimensions change: ``torch.onnx.InputObserver``.

    A dimension that had two sizes is dynamic; one that was always the same is not. Dimensions that
    had the same sizes in every call get one name. Tensors of the first ``calls`` calls are kept.
    What comes out feeds ``dynamic_shapes`` of capture, export and probe.

    Raises:
        InputError: ``forward`` has arguments without a name; or, when the answer is asked for,
            there was no call, or the calls do not fit together.

    >>> model = nn.Linear(8, 2).eval()
    >>> with observe(model) as seen:
    ...     _ = model(torch.ones(2, 8)), model(torch.ones(5, 8))
    >>> seen
    2 calls
    input  example        dynamic
    -----  -------------  -------------------
    input  float32[2, 8]  float32[input_0, 8]
    >>> from onnx_workbench import capture
    >>> graph = capture(model, (), seen.kwargs, dynamic_shapes=seen.dynamic_shapes)
    """
    check_module("observe", model)
    observer = InputObserver()
    own, forward = vars(model).get("forward"), model.forward
    returned: list[Any] = []

    @functools.wraps(forward)
    def silent(*args: Any, **kwargs: Any) -> None:
        returned.append(forward(*args, **kwargs))  # the observer would clone it as tensors

    try:
        rest = rest_of(model)
        model.forward = silent
        with observer(model, store_n_calls=checks.whole("calls", calls)):
            seen = Calls(type(model).__name__, observer, [], rest)
            model.forward = _by_name(model, seen.shapes, returned)
            yield seen
    finally:
        vars(model).pop("forward", None)
        if own is not None:
            model.forward = own


@dataclass(frozen=True, repr=False, eq=False)
class Calls:
    """The answer of :func:`observe`. ``model`` is the name of the module's class, ``shapes`` has
    for each call the shape of each tensor."""

    model: str
    observer: InputObserver
    shapes: list[dict[str, torch.Size]]
    rest: str = ""

    @cached_property
    def dynamic_shapes(self) -> dict[str, Any]:
        """The dimensions that changed, as :func:`~onnx_workbench.capture` takes them."""
        known: dict[tuple[int | None, ...], str] = {}

        def named(axes: Any, path: str) -> Any:
            """Names for hints, and None for the tensors that never changed."""
            if isinstance(axes, (list, tuple)):
                return type(axes)(named(a, f"{path}[{i}]") for i, a in enumerate(axes))
            if not isinstance(axes, dict):
                return axes
            if path in self.shapes[0] or path in self.shapes[-1]:
                return {axis: name(path, axis) for axis in axes} or None
            return {key: named(value, f"{path}[{key!r}]") for key, value in axes.items()} or None

        def name(path: str, axis: int) -> str:
            sizes = tuple(s[path][axis] if path in s else None for s in self.shapes)
            return known.setdefault(sizes, "_".join(re.findall(r"\w+", f"{path}[{axis}]")))

        return named(self._asked("infer_dynamic_shapes"), "") or {}

    @cached_property
    def kwargs(self) -> dict[str, Any]:
        """The arguments of one of the calls, by name: an example to capture with."""
        return dict(self._asked("infer_arguments"))

    def _asked(self, method: str) -> Mapping[str, Any]:
        try:
            found = dict(getattr(self.observer, method)())
            more = found.pop(self.rest, None)  # what went into ``**kwargs`` has names of its own
            return {**found, **(more or {})}
        except RuntimeError as error:
            raise InputError(
                f"No dynamic shapes can be inferred from what was seen of {self.model}: "
                f"{str(error).splitlines()[0]}\nCall it inside `with observe(model) as seen:` "
                "at least twice, with other sizes and with the same arguments otherwise."
            ) from error

    def __repr__(self) -> str:
        rows = [
            row
            for name, value in self.kwargs.items()
            for row in _rows(name, value, self.dynamic_shapes.get(name))
        ]
        calls = plural(self.observer.num_obs(), "call")
        return f"{calls}\n{table(rows, ('input', 'example', 'dynamic'))}"


def _rows(name: str, value: Any, axes: Any) -> Iterator[tuple[str, str, str]]:
    if isinstance(value, torch.Tensor):
        labels = axes or {}
        shape = (labels.get(axis, size) for axis, size in enumerate(value.shape))
        yield name, shaped(value.dtype, value.shape), shaped(value.dtype, shape)
    elif isinstance(value, (Mapping, list, tuple)):
        for key in value if isinstance(value, Mapping) else range(len(value)):
            yield from _rows(f"{name}[{key!r}]", value[key], axes[key] if axes else None)


def _by_name(
    model: nn.Module, shapes: list[dict[str, torch.Size]], returned: list[Any]
) -> Callable[..., Any]:
    """``forward`` with every argument passed on by name: the observer wants numbers that way."""
    forward, signature = model.forward, parameters(model)
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    nameless = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY)

    def named(*args: Any, **kwargs: Any) -> Any:
        given = arguments(model, args, kwargs)
        if any(kinds.get(name) in nameless for name in given):
            raise InputError(
                f"observe() watches {type(model).__name__}, whose forward takes {signature}: this "
                "call has arguments without a name.",
                "Pass them by name, or write `dynamic_shapes` yourself.",
            )
        leaves = zip(paths(given), pytree.tree_leaves(given), strict=True)
        shapes.append({path: x.shape for path, x in leaves if isinstance(x, torch.Tensor)})
        forward(**given)
        return returned.pop()

    named.__signature__ = signature  # type: ignore[attr-defined]
    return named
