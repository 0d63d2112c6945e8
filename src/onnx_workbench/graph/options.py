"""The rare options of ``torch.onnx.export``, accepted so that an existing call works unchanged."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Collection, Mapping
from typing import Any, TypedDict

import torch

from ..errors import InputError, UnknownOption
from ..source import depth_of_caller

_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(torch.onnx.export).parameters.items()
}
_DOORS = {
    "report": "audit(model, args).save('report.html')",
    "profile": "profile(onnx, args)",
    "dump_exported_program": "torch.export.save(capture(model, args).program, 'model.pt2')",
    "artifacts_dir": "audit(model, args).bundle('folder')",
}
"""What torch.onnx writes beside the file, and what to call instead."""

_IMPOSSIBLE = {
    "export_params": "a file without weights does not run",
    "operator_export_type": "torch.onnx writes only ONNX operators",
    "export_modules_as_functions": "torch.onnx no longer does it",
    "training": "it writes a model in eval mode: dropout and batch normalization answer otherwise "
    "in training",
}


class Options(TypedDict, total=False):
    """The options not in the signature of :func:`~onnx_workbench.export`; torch's defaults hold."""

    verbose: bool | None
    optimize: bool
    verify: bool
    report: bool
    profile: bool
    dump_exported_program: bool
    artifacts_dir: str | os.PathLike[str]
    export_params: bool
    keep_initializers_as_inputs: bool
    training: Any
    operator_export_type: Any
    do_constant_folding: bool
    custom_opsets: Mapping[str, int] | None
    export_modules_as_functions: bool | Collection[type]
    autograd_inlining: bool


def checked(options: Mapping[str, Any], training: bool = False) -> Options:
    """The options, those that were not given with torch's default; ``training`` is the model's.

    Raises:
        UnknownOption: a TypeError; torch.onnx.export has no option of that name.
        InputError: a value for which no file would run.

    >>> checked({"optimize": False})["optimize"], checked({})["optimize"]
    (False, True)
    """
    names = Options.__annotations__
    if unknown := [name for name in options if name not in names]:
        raise UnknownOption(f"export() got an unexpected keyword argument {unknown[0]!r}")
    asked = {name: value for name, value in options.items() if value != _DEFAULTS.get(name)}
    mode = asked.get("training")
    if mode is None or (mode == torch.onnx.TrainingMode.PRESERVE and not training):
        asked.pop("training", None)
    for name in _IMPOSSIBLE.keys() & asked.keys():
        raise InputError(
            f"export() was given {name}={asked[name]!r}, and {_IMPOSSIBLE[name]}.",
            f"leave `{name}` out.",
        )
    for name in _DOORS.keys() & asked.keys():
        warnings.warn(
            f"export() writes only the model and ignores {name}={asked[name]!r}: call "
            f"onnx_workbench.{_DOORS[name]}.",
            UserWarning,
            stacklevel=depth_of_caller(),
        )
    return Options(**{name: _DEFAULTS.get(name) for name in names} | asked)  # type: ignore[typeddict-item]
