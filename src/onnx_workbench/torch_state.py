"""Torch state that is changed for a while and restored: a model's mode, the log, warnings."""

from __future__ import annotations

import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import fx, nn
from torch.nn.parameter import is_lazy

from .errors import TrainingModeWarning
from .source import depth_of_caller, is_user_file

_LOCK = threading.RLock()


@contextmanager
def evaluating(model: Any, warn: bool = True) -> Iterator[None]:
    """Put a model into eval mode for a while; each submodule then gets its own mode back, and its
    buffers what they held.

    Warns about a model in training mode, unless ``warn`` is False: dropout and batch normalization
    in training mode give different results on every call. Anything but a module is left alone.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [(module, module.training) for module in modules]
    if warn and modules and trains(model):
        name = type(model).__name__
        what = name if model.training else f"A part of {name}"
        warnings.warn(
            f"{what} is in training mode. It runs in eval mode here and then gets its mode back; "
            f"call {name.lower()}.eval() yourself to silence this warning.",
            TrainingModeWarning,
            stacklevel=depth_of_caller(),
        )
    try:
        for module in modules:  # not model.eval(), which an exported module refuses
            module.training = False
        with buffers_restored(model):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def buffers_restored(model: Any) -> Iterator[None]:
    """Give the buffers of a module back what they held: a model may count its calls in one."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    held = [
        (module._buffers, {n: (t, t.detach().clone()) for n, t in _tensors(module).items()})
        for module in modules
        if not isinstance(module, torch.jit.ScriptModule)
    ]
    try:
        yield
    finally:
        for buffers, values in held:
            buffers.update({name: tensor for name, (tensor, _) in values.items()})
            for tensor, value in values.values():
                if not _equal(tensor, value):
                    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
                        tensor.copy_(value)


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {n: t for n, t in module._buffers.items() if t is not None and not is_lazy(t)}


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether no element changed, as far as torch can tell. NaN equals NaN; a version says nothing,
    since batch_norm writes its statistics without a new one."""
    try:
        return bool(((one == other) | ((one != one) & (other != other))).all())
    except Exception:  # a sparse or a meta tensor
        return True


_WATCHED = frozenset(vars(nn.Module()))
"""Parameters, buffers and modules: torch.export reports writes into these itself."""


def owners(model: nn.Module) -> dict[int, Any]:
    """What has the model's attributes, by its id: its modules, and objects of the user's classes in
    their attributes, such as a cache."""
    found, waiting = {}, list[Any](model.modules())
    while waiting:
        owner = waiting.pop()
        if id(owner) not in found:
            found[id(owner)] = owner
            leaves = pytree.tree_leaves(list(attributes(owner).values()))
            waiting += [leaf for leaf in leaves if _is_own(leaf)]
    return found


def attributes(owner: Any) -> dict[str, Any]:
    """The attributes of an object, but no parameters, buffers and modules."""
    return {name: value for name, value in vars(owner).items() if name not in _WATCHED}


def _is_own(value: Any) -> bool:
    kind = type(value)
    file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
    own = is_user_file(file) if file else kind.__module__ == "__main__"
    return own and hasattr(value, "__dict__") and not isinstance(value, (nn.Module, torch.Tensor))


def trains(model: nn.Module) -> bool:
    """Whether the model or a part of it is in training mode. An exported module has a fixed mode,
    and its ``eval()`` raises."""
    exported = isinstance(model, fx.GraphModule) and "eval" in vars(model)
    return not exported and any(module.training for module in model.modules())


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
