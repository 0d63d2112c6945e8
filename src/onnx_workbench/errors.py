"""The errors of this package, one class for each step that can fail.

::

    WorkbenchError
    ├── InputError (ValueError)   an argument does not fit
    ├── CaptureError              torch.export could not turn the model into a graph
    ├── ExportError               the graph did not become a file that ONNX Runtime loads
    ├── LoadError                 the file is not an ONNX model that ONNX Runtime can load
    ├── RunError                  ONNX Runtime loaded the model and failed while running it
    └── MissingPackageError (ImportError)   an optional package is not installed
    CallError (TypeError)         there is no option of that name

Every error says what was passed, what was expected and what to do next. ``reason``, ``hint`` and
``line`` are fields, so that no caller has to parse the text. If an error of torch, onnx or ONNX
Runtime led to it, that error is the ``__cause__``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .brief import Brief, chained

_MACHINE = (
    (
        r"can't start new thread|pthread_create|PosixThread|Resource temporarily unavailable",
        "The machine cannot start more threads or processes.",
        "Ask for fewer threads, close other programs, or raise the limit (ulimit -u).",
    ),
    (
        r"^MemoryError|OutOfMemoryError|bad_alloc|bad allocation|can't allocate memory|"
        r"Cannot allocate memory|Failed to allocate memory|CUDA out of memory",
        "The machine is out of memory.",
        "Close other programs, or use a smaller model, batch or data type.",
    ),
    (
        r"No space left on device|Disk quota exceeded",
        "The disk is full.",
        "Free space, or pass a path on another disk; temporary files follow TMPDIR.",
    ),
    (
        r"Permission denied|Read-only file system|Operation not permitted",
        "This process has no permission to read or write there.",
        "Get permission, or pass another path.",
    ),
    (
        r"Too many open files",
        "This process has too many open files.",
        "Close some, or raise the limit (ulimit -n).",
    ),
)
"""Pattern in an error of the operating system -> reason and hint."""


def refused_by_machine(error: BaseException) -> tuple[str, str] | None:
    """Reason and hint if the machine lacks something: threads, memory, disk, permission, files.

    >>> refused_by_machine(RuntimeError("can't start new thread"))[0]
    "The machine cannot start more threads or processes. It says: can't start new thread"
    >>> refused_by_machine(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    """
    for one in chained(error):
        text = "" if isinstance(one, WorkbenchError) else f"{type(one).__name__}: {one}"
        for key, reason, hint in _MACHINE:
            if re.search(key, text):
                return f"{reason} It says: {(str(one).splitlines() or [text])[0]}", hint
    return None


_USUAL = (
    (
        r"index out of range|out of data bounds|index -?\d+ is out of bounds",
        "An index is outside its table: pass numbers from 0 to the table's length - 1.",
    ),
    (
        r"ConcatFromSequence.*1 or more inputs",
        "A loop ran zero times, and ONNX cannot concatenate zero results. Pass sizes for which it "
        "runs at least once: nn.EmbeddingBag with include_last_offset=True takes two offsets or "
        "more.",
    ),
    (
        r"bound to different types",
        "ONNX converts no dtypes. Pass inputs of the dtype of the model's weights, such as "
        "x.float(); in a translation, convert with op.CastLike.",
    ),
    (
        r"is not a registered function/op|No Op registered for",
        "ONNX Runtime does not have this operator. Translate it in `custom_translation_table` into "
        "operators of ONNX, or run the file in a session that registers its library.",
    ),
    (
        r"NOT_IMPLEMENTED|Could not find an implementation",
        "The operator exists, but the provider has no kernel for its dtypes: compute that step in "
        "float32, export model.float(), or use another `provider`.",
    ),
)
"""Pattern of an error of torch or ONNX Runtime -> what usually helps."""


def usual_hint(error: BaseException, otherwise: str) -> str:
    """What helps against an error of torch or ONNX Runtime, if its words are known.

    >>> usual_hint(IndexError("index out of range in self"), "Pass another.")
    "An index is outside its table: pass numbers from 0 to the table's length - 1."
    >>> usual_hint(ValueError("no"), "Pass another.")
    'Pass another.'
    """
    return next((hint for key, hint in _USUAL if re.search(key, str(error))), otherwise)


class WorkbenchError(Brief, Exception):
    """Base of all errors that this package raises on purpose.

    Args:
        message: what failed, in one sentence.
        hint: what usually helps.
        line: the :class:`~onnx_workbench.source.Line` of the user's code at fault, if known.
        reason: why it failed; the default is ``message``.

    ``partial_graph`` is set where a model did not become a file. It returns the part of its graph
    that was captured (an ExportedProgram, or None), and how; ``trace(error)`` shows both.

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
        self.partial_graph: Callable[[], tuple[Any, str]] | None = None

    def __reduce__(self) -> Any:
        """Pickled without ``partial_graph``, which stays in the process that captured the model."""
        return _unpickled, (type(self), self.args, {**vars(self), "partial_graph": None})

    def __str__(self) -> str:
        text = self.message
        if self.line:
            text = f"{text.rstrip('.')} at {self.line.place}\n    {self.line.text}"
            if library := self.line.library:
                text = f"{text}\n  in {library.place}\n    {library.text}"
        why = f"\nWhy: {self.reason}" if self.reason != self.message else ""
        helps = f"\nWhat helps: {self.hint}" if self.hint else ""
        return f"{text}{why}{helps}"


def _unpickled(kind: type[WorkbenchError], args: tuple, fields: dict[str, Any]) -> WorkbenchError:
    error = kind.__new__(kind, *args)
    vars(error).update(fields)
    return error


class InputError(WorkbenchError, ValueError):
    """An argument does not fit."""


class CaptureError(WorkbenchError):
    """torch.export could not turn the model into a graph.

    ``code`` is that of the finding that an audit makes of it, such as ``OW101``; it is empty if the
    reason is unknown. `python -m onnx_workbench explain OW101` describes it.
    """

    def __init__(self, *args: Any, code: str = "", **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.code = code


class ExportError(WorkbenchError):
    """The graph did not become an ``.onnx`` file that ONNX Runtime loads.

    ``step`` is the one that failed: translate, opset, check, load or verify. ``got`` is the opset
    of the refused file, if one was written.
    """

    def __init__(
        self, *args: Any, step: str = "translate", got: int | None = None, **fields: Any
    ) -> None:
        super().__init__(*args, **fields)
        self.step, self.got = step, got


class LoadError(WorkbenchError):
    """The file is not an ONNX model that ONNX Runtime can load."""


class RunError(WorkbenchError):
    """ONNX Runtime loaded the model and failed while running it."""


class MissingPackageError(WorkbenchError, ImportError):
    """An optional package is not installed; ``hint`` is the command that installs it."""


class CallError(Brief, TypeError):
    """There is no option of that name, here or in torch, or an argument is missing."""

    hint, line = "", None

    @property
    def message(self) -> str:
        return str(self)

    reason = message


class TrainingModeWarning(UserWarning):
    """The model was in training mode. It runs in eval mode, then gets its mode back."""
