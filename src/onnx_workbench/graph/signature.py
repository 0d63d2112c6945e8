"""How a call of the model maps to the flat inputs and outputs of its graph."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import (
    ConstantArgument,
    InputKind,
    OutputKind,
    SymBoolArgument,
    SymFloatArgument,
    SymIntArgument,
)

from ..errors import InputError
from ..formatting import kind_of
from .dims import DynamicAxes, Shapes, by_path, nested

_NUMBERS = SymIntArgument, SymFloatArgument, SymBoolArgument
_ARGS, _KWARGS = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD


@dataclass(frozen=True)
class Signature:
    """One call of a model, to flatten arguments into tensors and unflatten results.

    ``inputs`` names the leaves of the arguments, ``paths`` says where they are in the call:
    ``batch['mask']``. A leaf that is no tensor was baked into the graph: ``baked_inputs`` (for a
    result, ``baked_outputs``) has it by its index. ``numbers`` are the results that are a number
    but a tensor in a file, such as ``x.shape[0]``; ``number_inputs`` are such inputs.

    >>> class Scale(torch.nn.Module):
    ...     def forward(self, x, factor=2):
    ...         return {"scaled": x * factor}
    >>> program = torch.export.export(Scale(), (torch.ones(3), 5))
    >>> signature = Signature.of_program(program, Scale(), (torch.ones(3), 5), {})
    >>> signature.flatten((torch.zeros(3),), {"factor": 5})
    [tensor([0., 0., 0.])]
    >>> signature.unflatten([torch.zeros(1)])
    {'scaled': tensor([0.])}
    """

    parameters: inspect.Signature
    args: tuple[str, ...]
    kwargs: tuple[str, ...]
    in_spec: pytree.TreeSpec
    inputs: tuple[str, ...]
    paths: tuple[str, ...]
    baked_inputs: Mapping[int, object]
    out_spec: pytree.TreeSpec
    baked_outputs: Mapping[int, object]
    numbers: frozenset[int] = frozenset()
    number_inputs: frozenset[int] = frozenset()

    @classmethod
    def of_program(
        cls, program: ExportedProgram, model: Callable, args: tuple, kwargs: Mapping[str, Any]
    ) -> Signature:
        """The call that ``model`` was captured with."""
        graph = program.graph_signature
        inputs = [spec.arg for spec in graph.input_specs if spec.kind is InputKind.USER_INPUT]
        outputs = [spec.arg for spec in graph.output_specs if spec.kind is OutputKind.USER_OUTPUT]
        in_spec = program.call_spec.in_spec
        forward = parameters(model)
        names = tuple(in_spec.child(1).context)
        return cls(
            parameters=forward,
            args=tuple(forward.bind_partial(*args).arguments),
            kwargs=names,
            in_spec=in_spec,
            inputs=tuple(argument.name for argument in inputs),
            paths=_paths(forward, args, {name: kwargs[name] for name in names}),
            baked_inputs=_constants(inputs),
            out_spec=program.call_spec.out_spec,
            baked_outputs=_constants(outputs),
            numbers=_numbers(outputs),
            number_inputs=_numbers(inputs),
        )

    @classmethod
    def of_call(
        cls, model: Callable, args: tuple, kwargs: Mapping[str, Any], result: object
    ) -> Signature:
        """The call ``model(*args, **kwargs) == result``, for a model that is traced."""
        leaves, in_spec = pytree.tree_flatten((args, dict(kwargs)))
        results, out_spec = pytree.tree_flatten(result)
        forward = parameters(model)
        positional = tuple(forward.bind_partial(*args).arguments)
        names = (*positional, *kwargs)
        numbered = tuple(f"input_{i}" for i in range(len(leaves)))
        return cls(
            parameters=forward,
            args=positional,
            kwargs=tuple(kwargs),
            in_spec=in_spec,
            inputs=numbered if len(leaves) > len(names) else names,
            paths=_paths(forward, args, kwargs),
            baked_inputs=_not_tensors(leaves),
            out_spec=out_spec,
            baked_outputs=_not_tensors(results),
        )

    @property
    def tensor_inputs(self) -> tuple[str, ...]:
        """The names of the leaves that are inputs of the graph, in its order."""
        return tuple(name for i, name in enumerate(self.inputs) if i not in self.baked_inputs)

    def flatten(self, args: tuple, kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        """The tensors of a call, in the order of the graph's inputs.

        Raises:
            InputError: the call has another structure than the captured one, or another value for
                an argument that was baked in.
        """
        leaves, spec = pytree.tree_flatten(self._as_captured(args, kwargs))
        if spec != self.in_spec:
            raise InputError(
                f"The arguments have the structure {_structure(spec)}, but the model was captured "
                f"with {_structure(self.in_spec)}.",
                "Pass the same nesting, or capture the model again with these arguments.",
            )
        for index, value in self.baked_inputs.items():
            if not _same(leaves[index], value):
                raise InputError(
                    f"The argument {self.inputs[index]!r} is {leaves[index]!r}, but {value!r} was "
                    "baked into the graph when it was captured.",
                    "Pass that value, capture the model again with this one, or make the argument "
                    "a tensor.",
                )
        named = [(leaf, self.inputs[i]) for i, leaf in enumerate(leaves)]
        return [_as_tensor(*one) for i, one in enumerate(named) if i not in self.baked_inputs]

    def call(self, tensors: Sequence[torch.Tensor]) -> tuple[tuple, dict[str, Any]]:
        """The arguments of a call with these tensors: the inverse of :meth:`flatten`."""
        leaves = _filled(self.in_spec, self.baked_inputs, tensors, self.number_inputs)
        return pytree.tree_unflatten(leaves, self.in_spec)

    def unflatten(self, tensors: Sequence[torch.Tensor]) -> Any:
        """The graph's outputs, nested as the model returns them."""
        leaves = _filled(self.out_spec, self.baked_outputs, tensors, self.numbers)
        return pytree.tree_unflatten(leaves, self.out_spec)

    def axes(self, shapes: Shapes) -> tuple[DynamicAxes, ...]:
        """The dynamic dimensions of each input of the graph; a number has none."""
        leaves = [shapes[path] for i, path in enumerate(self.paths) if i not in self.baked_inputs]
        return tuple(axes if isinstance(axes, dict) else {} for axes in leaves)

    def shapes(self, axes: Sequence[DynamicAxes]) -> Shapes:
        """The axes by path: the inverse of :meth:`axes`."""
        leaves = _filled(self.in_spec, dict.fromkeys(self.baked_inputs), axes)
        for i in self.number_inputs:
            leaves[i] = Dim.DYNAMIC
        return dict(zip(self.paths, leaves, strict=True))

    def _as_captured(self, args: tuple, kwargs: Mapping[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """The same call, with the same arguments by position as the captured call."""
        forward = self.parameters.parameters
        if any(p.kind in (_ARGS, _KWARGS) for p in forward.values()):
            return args, {name: kwargs[name] for name in (*self.kwargs, *kwargs) if name in kwargs}
        given, known = _bound(self.parameters, args, kwargs).arguments, (*self.args, *self.kwargs)
        wrong = [f"lacks {name!r}" for name in known if name not in given]
        wrong += [
            f"has {name!r}"
            for name in given
            if name not in known and not _same(given[name], forward[name].default)
        ]
        if wrong:
            raise InputError(
                f"This call {' and '.join(wrong)}; the captured call had "
                f"{', '.join(map(repr, known))}.",
                "Pass the same arguments, or capture the model again with these.",
            )
        return tuple(given[name] for name in self.args), {n: given[n] for n in self.kwargs}


def parameters(model: Callable) -> inspect.Signature:
    """The parameters of a function, or of a module's ``forward``."""
    function = model.forward if isinstance(model, torch.nn.Module) else model
    if not isinstance(function, torch.ScriptMethod):
        return inspect.signature(function)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = [argument.name for argument in function.schema.arguments[1:]]
    return inspect.Signature([inspect.Parameter(name, kind) for name in names])


def arguments(model: Callable, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by name, the entries of ``**kwargs`` by their own names.

    Raises:
        InputError: they do not fit ``forward``, or one is an array of another library.
    """
    bound = dict(bind(model, args, kwargs).arguments)
    rest = bound.pop(kwargs_name(model), {})
    named = {**bound, **rest}
    for path, leaf in by_path(named).items():
        if hasattr(leaf, "__array__"):
            _as_tensor(leaf, path)
    return named


def kwargs_name(model: Callable) -> str:
    """The name of the ``**kwargs`` parameter; empty if there is none."""
    return next((p.name for p in parameters(model).parameters.values() if p.kind is _KWARGS), "")


def bind(model: Callable, args: tuple, kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
    """The arguments by parameter name, or an InputError that shows what the model takes."""
    return _bound(parameters(model), args, kwargs)


def _bound(
    signature: inspect.Signature, args: tuple, kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        names = ", ".join([type(arg).__name__ for arg in args] + [f"{name}=" for name in kwargs])
        raise InputError(
            f"The model was called with ({names}), but takes {signature}: {error}.",
            "Pass the arguments as you would to the model itself.",
        ) from error


def _filled(
    spec: pytree.TreeSpec,
    baked: Mapping[int, Any],
    rest: Sequence[Any],
    numbers: frozenset[int] = frozenset(),
) -> list[Any]:
    """One value for each leaf: the baked ones by index, the rest in order. A tensor becomes a
    number at the indices ``numbers``."""
    others = iter(rest)
    filled = [baked[i] if i in baked else next(others) for i in range(spec.num_leaves)]
    for i in numbers:
        filled[i] = filled[i].item() if isinstance(filled[i], torch.Tensor) else filled[i]
    return filled


def weight_inputs(program: ExportedProgram) -> set[str]:
    """The inputs of a captured graph that stand for parameters, buffers and constants."""
    specs = program.graph_signature.input_specs
    return {spec.arg.name for spec in specs if spec.kind is not InputKind.USER_INPUT}


def _constants(arguments: Sequence[Any]) -> dict[int, object]:
    return {i: arg.value for i, arg in enumerate(arguments) if isinstance(arg, ConstantArgument)}


def _numbers(arguments: Sequence[Any]) -> frozenset[int]:
    return frozenset(i for i, arg in enumerate(arguments) if isinstance(arg, _NUMBERS))


def _not_tensors(leaves: Sequence[object]) -> dict[int, object]:
    return {i: leaf for i, leaf in enumerate(leaves) if not isinstance(leaf, torch.Tensor)}


def _same(a: object, b: object) -> bool:
    return a is b or (type(a) is type(b) and not isinstance(a, torch.Tensor) and a == b)


def _paths(forward: inspect.Signature, args: tuple, kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(by_path({**forward.bind_partial(*args).arguments, **kwargs}))


def _structure(spec: pytree.TreeSpec) -> str:
    args, kwargs = nested(spec, iter(["tensor"] * spec.num_leaves))
    parts = [repr(arg) for arg in args] + [f"{name}={value!r}" for name, value in kwargs.items()]
    return f"({', '.join(parts)})".replace("'tensor'", "tensor")


def _as_tensor(leaf: Any, name: str) -> torch.Tensor:
    if isinstance(leaf, torch.Tensor):
        return leaf
    if isinstance(leaf, (bool, int, float, complex)):
        return torch.tensor(leaf)
    array = "Pass torch.from_numpy(array), or array.item() of a single number."
    raise InputError(
        f"The argument {name!r} is {kind_of(leaf)}, but the model takes a tensor or a number.",
        array if hasattr(leaf, "__array__") else "Pass one of these.",
    )
