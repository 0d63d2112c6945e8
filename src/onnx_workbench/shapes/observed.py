"""``observe``: dynamic shapes from real calls of a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn

from ..calls import whole
from ..errors import InputError
from ..formatting import Part, Report, Table, plural, shaped
from ..graph import check_module
from ..graph.dims import by_argument, by_path
from ..graph.signature import arguments, bind
from .trials import Call


@contextmanager
def observe(model: nn.Module, calls: int = 8) -> Iterator[Observed]:
    """Watch the calls of ``model`` and infer which dimensions change.

    A dimension that had different sizes is dynamic; one that was always the same is not. Dimensions
    that had equal sizes in every call get one name. Copies of the first ``calls`` calls are kept.
    Pass the result as ``dynamic_shapes`` to capture, export or probe.

    Raises:
        InputError: raised by the result, if there was no call or the calls do not fit together.

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
    most, seen = whole("calls", calls), Observed(model, [])

    def note(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if len(seen.calls) < most:
            seen.calls.append(pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs)))

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


@dataclass(frozen=True, repr=False, eq=False)
class Observed(Report):
    """The result of :func:`observe`: the ``calls`` of ``model``, each with its own tensors."""

    model: nn.Module
    calls: list[Call]

    @property
    def dynamic_shapes(self) -> dict[str, Any]:
        """The dimensions that changed, as :func:`~onnx_workbench.capture` takes them."""
        return by_argument(self._axes, arguments(self.model, *self._example))

    @property
    def args(self) -> tuple:
        """The positional arguments of an example call to capture with."""
        return self._example_call[0]

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments of the same call."""
        return self._example_call[1]

    @property
    def _example_call(self) -> Call:
        bound = bind(self.model, *self._example)
        kinds = {bound.signature.parameters[name].kind for name in bound.arguments}
        if kinds & {Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL}:
            return bound.args, bound.kwargs
        return (), arguments(self.model, *self._example)

    @property
    def _example(self) -> Call:
        """The first call with the most arguments."""
        if not self.calls:
            raise self._error("it was not called")
        return max(self.calls, key=lambda call: len(_leaves(self.model, call)))

    @property
    def _axes(self) -> dict[str, dict[int, str]]:
        """The path of an argument -> the name of each axis that changed."""
        example = _leaves(self.model, self._example)
        calls = [_leaves(self.model, call) for call in self.calls]
        if extra := next((path for call in calls for path in call if path not in example), None):
            raise self._error(f"{extra} is only in some calls, other arguments only in others")
        names: dict[tuple[int | None, ...], str] = {}
        axes: dict[str, dict[int, str]] = {}
        for path in (path for path, leaf in example.items() if isinstance(leaf, torch.Tensor)):
            shapes = [getattr(call.get(path), "shape", None) for call in calls]
            if len({len(shape) for shape in shapes if shape is not None}) > 1:
                raise self._error(f"{path} has a different number of dimensions in some calls")
            for axis in range(example[path].dim()):
                sizes = tuple(None if shape is None else shape[axis] for shape in shapes)
                if len(set(sizes) - {None}) > 1:
                    name = "_".join(re.findall(r"\w+", f"{path}[{axis}]"))
                    axes.setdefault(path, {})[axis] = names.setdefault(sizes, name)
        return axes

    def _error(self, why: str) -> InputError:
        return InputError(
            f"observe() cannot infer dynamic shapes from the calls of {type(self.model).__name__}: "
            f"{why}.",
            "Call it inside `with observe(model) as seen:` at least twice, with different sizes "
            "but otherwise the same arguments.",
        )

    def _parts(self) -> list[Part]:
        axes, example = self._axes, _leaves(self.model, self._example)
        rows = [
            (path, shaped(x.dtype, x.shape), shaped(x.dtype, _labeled(x.shape, axes.get(path, {}))))
            for path, x in example.items()
            if isinstance(x, torch.Tensor)
        ]
        header = ("input", "example", "dynamic")
        return [plural(len(self.calls), "call"), Table(rows, header)]


def _labeled(shape: torch.Size, axes: dict[int, str]) -> Iterator[str | int]:
    return (axes.get(axis, size) for axis, size in enumerate(shape))


def _leaves(model: nn.Module, call: Call) -> dict[str, Any]:
    """The leaves of a call by path: ``x``, ``batch['ids'][0]``."""
    return by_path(arguments(model, *call))
