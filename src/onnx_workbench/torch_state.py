"""Torch state that is changed for a while and restored: a model's mode, the log, warnings."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import fx, nn
from torch.nn.parameter import is_lazy

from .errors import TrainingModeWarning
from .source import depth_of_caller, is_user_file

_LOCK = threading.RLock()


@contextmanager
def evaluating(model: Any, warn: bool = True) -> Iterator[None]:
    """Put a model into eval mode for a while; each submodule then gets its own mode back, and its
    buffers what they held: a model may count its calls in one.

    Warns about a model in training mode, unless ``warn`` is False: dropout and batch normalization
    in training mode give different results on every call. Anything but a module is left alone.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [(module, module.training) for module in modules]
    held = [
        _buffers(module) for module in modules if not isinstance(module, torch.jit.ScriptModule)
    ]
    if warn and modules and trains(model):
        name = type(model).__name__
        warnings.warn(
            f"{name} is in training mode. It runs in eval mode here and then gets its mode back; "
            f"call {name.lower()}.eval() yourself to silence this warning.",
            TrainingModeWarning,
            stacklevel=depth_of_caller(),
        )
    try:
        for module in modules:  # not model.eval(), which an exported module refuses
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for buffers, values in held:
            buffers.update({name: tensor for name, (tensor, _, _) in values.items()})
            for tensor, version, value in values.values():
                if tensor.is_inference() or tensor._version != version:
                    with torch.inference_mode(tensor.is_inference()):
                        tensor.copy_(value)


def _buffers(module: nn.Module) -> tuple[dict[str, Any], dict[str, tuple[torch.Tensor, int, Any]]]:
    """The buffers of a module, and of each the tensor, its version and a copy."""
    tensors = {n: t for n, t in module._buffers.items() if t is not None and not is_lazy(t)}
    versions = {n: -1 if t.is_inference() else t._version for n, t in tensors.items()}
    return module._buffers, {n: (t, versions[n], t.detach().clone()) for n, t in tensors.items()}


def trains(model: nn.Module) -> bool:
    """Whether the model is in training mode. An exported module has a fixed mode, and its
    ``eval()`` raises."""
    return model.training and not (isinstance(model, fx.GraphModule) and "eval" in vars(model))


@contextmanager
def silent_log() -> Iterator[None]:
    """Silence torch's log, one thread at a time: otherwise a thread could restore the level that
    another thread has set."""
    logger = logging.getLogger("torch")
    with _LOCK:
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter's output; exceptions still propagate.

    torch.onnx prints its progress, logs a line for each missing torchvision operator and warns
    about its own internals; torch.export prints the graph of a failed capture to stderr. Warnings
    about the user's lines still appear, and so does the one about tensors that ``forward`` assigns
    to attributes. Other threads wait, since the log, the warnings and the state of torch's
    exporters belong to the process.
    """
    with silent_log(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        with redirect_stderr(io.StringIO()):
            yield
    for warning in caught:
        text = str(warning.message)
        if "assigned during export" in text and "_flat_weights" not in text:  # torch.nn's own
            warnings.warn(warning.message, warning.category, stacklevel=depth_of_caller())
        elif is_user_file(warning.filename):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
