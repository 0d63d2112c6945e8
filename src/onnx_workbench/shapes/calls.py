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

from ..calls import whole
from ..errors import InputError
from ..formatting import plural, shaped, table
from ..graph import check_module
from ..graph.dims import paths
from ..graph.signature import arguments, parameters, rest_of

_NAMELESS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY)


@contextmanager
def observe(model: nn.Module, calls: int = 8) -> Iterator[Calls]:
    """Watch the calls of ``model`` and infer which dimensions change: ``torch.onnx.InputObserver``.

    A dimension that had two sizes is dynamic; one that was always the same is not. Dimensions that
    had the same sizes in every call get one name. Tensors of the first ``calls`` calls are kept.
    What comes out feeds ``dynamic_shapes`` of capture, export and probe.

    Raises:
        InputError: when the answer is asked for, and there was no call, or the calls do not fit
            together.

    >>> model = nn.Linear(8, 2).eval()
    >>> with observe(model) as seen:
    ...     _ = model(torch.ones(2, 8)), model(torch.ones(5, 8))
    >>> seen
    2 calls
    input  example        dynamic
    -----  -------------  -------------------
    input  float32[2, 8]  float32[input_0, 8]
    >>> from onnx_workbench import capture
    >>> graph = capture(model, seen.args, seen.kwargs, dynamic_shapes=seen.dynamic_shapes)
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
        with observer(model, store_n_calls=whole("calls", calls)):
            seen = Calls(type(model).__name__, observer, [], rest, parameters(model))
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
    rest: str
    takes: inspect.Signature

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

        return named(self._spread(self._asked("infer_dynamic_shapes")), "") or {}

    @property
    def args(self) -> tuple:
        """The arguments of one of the calls that have no name: an example to capture with."""
        return self._example[0]

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments of the same call by name."""
        return self._example[1]

    @cached_property
    def _example(self) -> tuple[tuple, dict[str, Any]]:
        args, kwargs = self._asked("infer_arguments", as_args_kwargs=True)
        return args, self._spread(kwargs)

    def _spread(self, found: Mapping[str, Any] | tuple) -> dict[str, Any]:
        """By the names of the parameters; what went into ``**kwargs`` by its own."""
        if isinstance(found, tuple):
            found = dict(zip(self.takes.parameters, found, strict=False))
        found = dict(found)
        more = found.pop(self.rest, None)
        return {**found, **(more or {})}

    def _asked(self, method: str, **options: Any) -> Any:
        try:
            return getattr(self.observer, method)(**options)
        except RuntimeError as error:
            raise InputError(
                f"No dynamic shapes can be inferred from what was seen of {self.model}: "
                f"{str(error).splitlines()[0]}\nCall it inside `with observe(model) as seen:` "
                "at least twice, with other sizes and with the same arguments otherwise."
            ) from error

    def __repr__(self) -> str:
        rows = [
            row
            for name, value in {
                **self.takes.bind_partial(*self.args).arguments,
                **self.kwargs,
            }.items()
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
    """``forward`` with every argument passed on by name, where all have one: the observer wants
    numbers that way."""
    forward, signature = model.forward, parameters(model)
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}

    def named(*args: Any, **kwargs: Any) -> Any:
        given = arguments(model, args, kwargs)
        leaves = zip(paths(given), pytree.tree_leaves(given), strict=True)
        shapes.append({path: x.shape for path, x in leaves if isinstance(x, torch.Tensor)})
        bound = signature.bind(*args, **kwargs)
        nameless = any(kinds[name] in _NAMELESS for name in bound.arguments)
        forward(*bound.args, **bound.kwargs) if nameless else forward(**given)
        return returned.pop()

    named.__signature__ = signature  # type: ignore[attr-defined]
    return named
