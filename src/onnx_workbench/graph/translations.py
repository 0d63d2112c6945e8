"""torch.onnx's table of translations, built once a process.

``torch.onnx.export`` builds it for every export, which takes most of a small one: it parses 500
functions of onnxscript (torch 2.13, ``ONNXRegistry.from_torchlib``).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import torch


@contextmanager
def shared_table() -> Iterator[None]:
    """While this lasts, torch.onnx gets a copy of the table; custom translations enter the copy.

    A torch that keeps its table elsewhere is left as it is.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        build = ONNXRegistry.from_torchlib
        _ = ONNXRegistry().functions
    except (ImportError, AttributeError, TypeError):
        yield
        return

    def copied(*opset: int, **options: int) -> Any:
        table = _built(build, _operators(), *opset, **options)
        own = copy.copy(table)
        own.functions = {operator: list(found) for operator, found in table.functions.items()}
        return own

    with patch.object(ONNXRegistry, "from_torchlib", staticmethod(copied)):
        yield


@lru_cache(maxsize=32)
def _built(build: Callable[..., Any], operators: int, *opset: int, **options: int) -> Any:
    """The table of one opset. An import that registers operators (torchvision) makes a new one."""
    return build(*opset, **options)


def _operators() -> int:
    return len(torch._C._dispatch_get_all_op_names())
