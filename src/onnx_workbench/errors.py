"""What can go wrong, one class for each door that can fail.

::

    WorkbenchError
    ├── InputError (ValueError)   what was passed does not fit what is asked for
    ├── CaptureError              torch.export could not turn the model into a graph
    ├── ExportError               the graph did not become a file that ONNX Runtime loads
    ├── LoadError                 the file is no ONNX model that ONNX Runtime can load
    └── RunError                  ONNX Runtime loaded the model and failed while running it

Every error says what was passed, what was expected and what to do next. ``reason``, ``hint`` and
``line`` are fields, so that no caller parses the text. The error of torch, onnx or ONNX Runtime
that led to it is chained as ``__cause__``.
"""

from __future__ import annotations

from typing import Any


class WorkbenchError(Exception):
    """Base of all errors that this package raises on purpose.

    Args:
        message: what failed, in one sentence.
        hint: what usually helps.
        line: the :class:`~onnx_workbench.source.Line` of the user's that it is about, where one is
            known.
        reason: why it failed; the default is ``message``.

    >>> print(WorkbenchError("Net could not be captured", "use torch.where", reason="it branches"))
    Net could not be captured
    Why: it branches
    What helps: use torch.where
    """

    def __init__(
        self, message: str = "", hint: str = "", line: Any = None, *, reason: str = ""
    ) -> None:
        super().__init__(message)
        self.message, self.hint, self.line = message, hint, line
        self.reason = reason or message

    def __str__(self) -> str:
        said = self.message
        if self.line:
            said = f"{said.rstrip('.')} at {self.line.place}\n    {self.line.text}"
            if library := self.line.library:
                said = f"{said}\n  in {library.place}\n    {library.text}"
        why = f"\nWhy: {self.reason}" if self.reason != self.message else ""
        helps = f"\nWhat helps: {self.hint}" if self.hint else ""
        return f"{said}{why}{helps}"


class InputError(WorkbenchError, ValueError):
    """What was passed does not fit what is asked for."""


class CaptureError(WorkbenchError):
    """torch.export could not turn the model into a graph."""


class ExportError(WorkbenchError):
    """The graph did not become an ``.onnx`` file that ONNX Runtime loads.

    ``step`` is where it ended: translate, opset, check or load. ``got`` is the opset that a file
    was labeled with before it was refused.
    """

    def __init__(
        self,
        message: str = "",
        hint: str = "",
        line: Any = None,
        *,
        reason: str = "",
        step: str = "translate",
        got: int | None = None,
    ) -> None:
        super().__init__(message, hint, line, reason=reason)
        self.step, self.got = step, got


class LoadError(WorkbenchError):
    """The file is no ONNX model that ONNX Runtime can load."""


class RunError(WorkbenchError):
    """ONNX Runtime loaded the model and failed while running it."""


class TrainingModeWarning(UserWarning):
    """The model was in training mode; it is used in eval mode and put back."""
