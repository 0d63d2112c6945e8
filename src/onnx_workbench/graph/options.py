"""The rare options of ``torch.onnx.export``, accepted so that an existing call works unchanged."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Collection, Mapping
from typing import Any, TypedDict

import torch

from ..errors import CallError, InputError
from ..source import depth_of_caller

_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(torch.onnx.export).parameters.items()
}
_INSTEAD = {
    "report": "onnx_workbench.audit(model, args).save('report.html')",
    "profile": "onnx_workbench.profile(onnx, args)",
    "dump_exported_program": "torch.export.save(onnx_workbench.capture(model, args).program, "
    "'model.pt2')",
    "artifacts_dir": "onnx_workbench.audit(model, args).bundle('folder')",
}
"""Options for which torch.onnx writes something beside the file -> what to call instead."""

_IMPOSSIBLE = {
    "export_params": "a file without weights does not run",
    "operator_export_type": "torch.onnx writes only ONNX operators",
    "export_modules_as_functions": "torch.onnx no longer does it",
    "training": "it writes a model in eval mode: dropout and batch normalization compute something "
    "else in training",
}


class ExportOptions(TypedDict, total=False):
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


def with_defaults(options: Mapping[str, Any], training: bool = False) -> ExportOptions:
    """Check the options and fill in torch's defaults. ``training`` is the model's mode.

    Raises:
        CallError: a TypeError; torch.onnx.export has no option of that name.
        InputError: no file could have such a value.

    >>> with_defaults({"optimize": False})["optimize"], with_defaults({})["optimize"]
    (False, True)
    """
    names = ExportOptions.__annotations__
    if unknown := [name for name in options if name not in names]:
        raise CallError(f"export() got an unexpected keyword argument {unknown[0]!r}")
    changed = {name: value for name, value in options.items() if value != _DEFAULTS.get(name)}
    mode = changed.get("training")
    if mode is None or (mode == torch.onnx.TrainingMode.PRESERVE and not training):
        changed.pop("training", None)
    for name in _IMPOSSIBLE.keys() & changed.keys():
        raise InputError(
            f"export() was given {name}={changed[name]!r}, but {_IMPOSSIBLE[name]}.",
            f"Leave `{name}` out.",
        )
    for name in _INSTEAD.keys() & changed.keys():
        warnings.warn(
            f"export() writes only the model and ignores {name}={changed[name]!r}: call "
            f"{_INSTEAD[name]}.",
            UserWarning,
            stacklevel=depth_of_caller(),
        )
    return ExportOptions(**{name: _DEFAULTS.get(name) for name in names} | changed)  # type: ignore[typeddict-item]
