"""What can go wrong, one class for each door that can fail.

::

    WorkbenchError
    ├── InputError (ValueError)   what was passed does not fit what is asked for
    ├── CaptureError              torch.export could not turn the model into a graph
    ├── ExportError               the graph did not become a file that ONNX Runtime loads
    ├── LoadError                 the file is no ONNX model that ONNX Runtime can load
    └── RunError                  ONNX Runtime loaded the model and failed while running it

Every message has three parts: what was passed, what was expected, what to do next. The error of
torch, onnx or ONNX Runtime that led to it is chained as ``__cause__``.
"""

from __future__ import annotations

from typing import Any


class WorkbenchError(Exception):
    """Base of all errors that this package raises on purpose.

    ``line`` is the :class:`~onnx_workbench.source.Line` of the user's that it is about, where one
    is known.
    """

    def __init__(self, message: str = "", line: Any = None) -> None:
        super().__init__(message)
        self.line = line


class InputError(WorkbenchError, ValueError):
    """What was passed does not fit what is asked for."""


class CaptureError(WorkbenchError):
    """torch.export could not turn the model into a graph."""


class ExportError(WorkbenchError):
    """The graph did not become an ``.onnx`` file that ONNX Runtime loads.

    ``step`` is where it ended: translate, opset, check or load. ``got`` is the opset that a file
    was labelled with before it was refused.
    """

    def __init__(
        self, message: str, step: str = "translate", got: int | None = None, line: Any = None
    ) -> None:
        super().__init__(message, line)
        self.step, self.got = step, got


class LoadError(WorkbenchError):
    """The file is no ONNX model that ONNX Runtime can load."""


class RunError(WorkbenchError):
    """ONNX Runtime loaded the model and failed while running it."""


class TrainingModeWarning(UserWarning):
    """The model was in training mode; it is used in eval mode and put back."""
