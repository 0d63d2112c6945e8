"""Dynamic shapes read off real calls of a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.onnx import InputObserver

from .errors import InputError
from .signature import bind, parameters
from .text import plural, shaped, table


@contextmanager
def observe(model: nn.Module, calls: int = 8) -> Iterator[Calls]:
    """Watch the calls of ``model`` and infer which dimensions change: ``torch.onnx.InputObserver``.

    A dimension that had two sizes is dynamic; one that was always the same is not. Tensors of the
    first ``calls`` calls are kept. What comes out feeds ``dynamic`` of capture, export and probe.

    Raises:
        InputError: ``forward`` has arguments without a name; or, when the answer is asked for,
            there was no call, or the calls do not fit together.

    >>> model = nn.Linear(8, 2).eval()
    >>> with observe(model) as seen:
    ...     _ = model(torch.ones(2, 8)), model(torch.ones(5, 8))
    >>> seen
    2 calls
    input  example        dynamic
    -----  -------------  -------
    input  float32[2, 8]  [0]
    >>> from onnx_workbench import capture
    >>> graph = capture(model, **seen.arguments, dynamic=seen.dynamic)
    """
    observer = InputObserver()
    own = vars(model).get("forward")
    try:
        with observer(model, store_n_calls=calls):
            model.forward = _by_name(model)
            yield Calls(type(model).__name__, observer)
    finally:
        vars(model).pop("forward", None)
        if own is not None:
            model.forward = own


@dataclass(frozen=True, repr=False, eq=False)
class Calls:
    """The answer of :func:`observe`. ``model`` is the name of the module's class."""

    model: str
    observer: InputObserver

    @cached_property
    def dynamic(self) -> dict[str, Any]:
        """The dimensions that changed, as :func:`~onnx_workbench.capture` takes them."""
        return {name: _pruned(axes) for name, axes in self._asked("infer_dynamic_shapes").items()}

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The arguments of one of the calls, by name: an example to capture with."""
        return dict(self._asked("infer_arguments"))

    def _asked(self, method: str) -> Mapping[str, Any]:
        try:
            return getattr(self.observer, method)()
        except RuntimeError as error:
            raise InputError(
                f"No dynamic shapes can be inferred from what was seen of {self.model}: "
                f"{str(error).splitlines()[0]}\nCall the model inside `with observe(model) as seen:` "
                "at least twice, with other sizes and with the same arguments otherwise."
            ) from error

    def __repr__(self) -> str:
        rows = [
            row
            for name, value in self.arguments.items()
            for row in _rows(name, value, self.dynamic.get(name))
        ]
        calls = plural(self.observer.num_obs(), "call")
        return f"{calls}\n{table(rows, ('input', 'example', 'dynamic'))}"


def _rows(name: str, value: Any, axes: Any) -> Iterator[tuple[str, str, str]]:
    if isinstance(value, torch.Tensor):
        yield name, shaped(value.dtype, value.shape), str(list(axes or ()))
    elif isinstance(value, (Mapping, list, tuple)):
        for key in value if isinstance(value, Mapping) else range(len(value)):
            yield from _rows(f"{name}[{key!r}]", value[key], axes[key] if axes else None)


def _by_name(model: nn.Module) -> Callable[..., Any]:
    """``forward`` with every argument passed on by name: the observer wants numbers that way."""
    forward, signature = model.forward, parameters(model)
    kinds = {parameter.kind: name for name, parameter in signature.parameters.items()}
    if inspect.Parameter.VAR_POSITIONAL in kinds or inspect.Parameter.POSITIONAL_ONLY in kinds:
        raise InputError(
            f"observe() was given a {type(model).__name__}, whose forward takes {signature}: "
            "arguments without a name. Give them names, or write `dynamic` yourself."
        )
    rest = kinds.get(inspect.Parameter.VAR_KEYWORD, "")

    def named(*args: Any, **kwargs: Any) -> Any:
        given = bind(model, args, kwargs).arguments
        return forward(**given.pop(rest, {}), **given)

    named.__signature__ = signature  # type: ignore[attr-defined]
    return named


def _pruned(axes: Any) -> Any:
    """Without the empty dicts of tensors that never changed, which capture takes for structure."""
    if isinstance(axes, dict):
        return {key: _pruned(value) for key, value in axes.items()} or None
    return type(axes)(map(_pruned, axes)) if isinstance(axes, (list, tuple)) else axes
