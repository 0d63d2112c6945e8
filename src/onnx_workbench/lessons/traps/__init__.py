"""A zoo of small models, each one way in which PyTorch -> ONNX goes wrong in the field.

Each names the thread in which somebody met it, what :func:`~onnx_workbench.audit` must say about it
and on which line, and a mended twin that must pass. A torch that mends one of them, or breaks it in
another way, fails ``tests/test_traps.py``.
"""

from __future__ import annotations

from . import data, files, numbers, results, shapes
from .trap import TRAPS, Call, Trap

__all__ = ["TRAPS", "Call", "Trap", "data", "files", "numbers", "results", "shapes"]
