"""What can go wrong, one class for each step that can fail.

::

    WorkbenchError
    ├── InputError (ValueError)   what was passed does not fit what is asked for
    ├── CaptureError              torch.export could not turn the model into a graph
    ├── ExportError               the graph did not become a file that ONNX Runtime loads
    ├── LoadError                 the file is not an ONNX model that ONNX Runtime can load
    └── RunError                  ONNX Runtime loaded the model and failed while running it

Every error says what was passed, what was expected and what to do next. ``reason``, ``hint`` and
``line`` are fields, so that no caller parses the text. The error of torch, onnx or ONNX Runtime
that led to it is chained as ``__cause__``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

_MACHINE = (
    (
        r"can't start new thread|pthread_create|PosixThread|Resource temporarily unavailable",
        "The machine starts no more threads or processes.",
        "Ask for fewer threads, end what else runs, or raise the limit (ulimit -u).",
    ),
    (
        r"^MemoryError|OutOfMemoryError|bad_alloc|bad allocation|can't allocate memory|"
        r"Cannot allocate memory|Failed to allocate memory|CUDA out of memory",
        "The machine has no more memory.",
        "Close what else holds memory, or take a smaller model, batch or data type.",
    ),
    (
        r"No space left on device|Disk quota exceeded",
        "The disk is full.",
        "Free space, or pass a path on another disk; temporary files follow TMPDIR.",
    ),
    (
        r"Permission denied|Read-only file system|Operation not permitted",
        "The operating system does not let this process write or read there.",
        "Get permission, or pass another path.",
    ),
    (
        r"Too many open files",
        "This process has as many files open as it may.",
        "Close some, or raise the limit (ulimit -n).",
    ),
)
"""What an error of the operating system says -> reason and hint."""


def chained(error: BaseException | None) -> Iterator[BaseException]:
    """The error, then what led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__


def refused_by_machine(error: BaseException) -> tuple[str, str] | None:
    """Reason and hint where the machine refused: threads, memory, disk, rights, open files.

    >>> refused_by_machine(RuntimeError("can't start new thread"))[0]
    "The machine starts no more threads or processes. It says: can't start new thread"
    >>> refused_by_machine(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    """
    for one in chained(error):
        said = "" if isinstance(one, WorkbenchError) else f"{type(one).__name__}: {one}"
        for key, reason, hint in _MACHINE:
            if re.search(key, said):
                return f"{reason} It says: {(str(one).splitlines() or [said])[0]}", hint
    return None


class WorkbenchError(Exception):
    """Base of all errors that this package raises on purpose.

    Args:
        message: what failed, in one sentence.
        hint: what usually helps.
        line: the :class:`~onnx_workbench.source.Line` of the user's code that it is about, if
            known.
        reason: why it failed; the default is ``message``.

    ``partial`` is set where a model did not become a file: it returns what there is of its graph
    (an ExportedProgram or None) and how that was captured. ``trace(error)`` shows both.

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
        self.partial: Callable[[], tuple[Any, str]] | None = None

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

    ``step`` is what failed: translate, opset, check or load. ``got`` is the opset that a file
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
    """The file is not an ONNX model that ONNX Runtime can load."""


class RunError(WorkbenchError):
    """ONNX Runtime loaded the model and failed while running it."""


class UnknownOption(TypeError):
    """There is no option of that name, here or in torch."""


class TrainingModeWarning(UserWarning):
    """The model was in training mode; it runs in eval mode and gets its mode back."""
