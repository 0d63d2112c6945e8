"""Where in a person's source code something came from."""

from __future__ import annotations

import inspect
import linecache
import os
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

_FRAME = re.compile(
    r'File "(?P<file>[^"]+)", line (?P<number>\d+), in (?P<function>.+)'
    r'(?:\n[ \t]+(?!File ")(?P<text>\S.*))?'
)
_CELL = re.compile(r"ipykernel_\d+|<ipython-input|<doctest|<stdin>")
_INSTALLED = re.compile(r"[\\/](?:site|dist)-packages[\\/]([^\\/]+)")  # pip --user, Debian, too

_PATHS = sysconfig.get_paths()
_LIBRARIES = (
    "<",
    "torch/",  # how torch shortens its own files in the traces that it keeps
    "torch\\",
    *(f"{_PATHS[key]}{os.sep}" for key in ("stdlib", "platstdlib", "purelib", "platlib")),
)
_PACKAGE = f"{Path(__file__).parent}{os.sep}"
_LESSONS = f"{_PACKAGE}lessons{os.sep}"


@dataclass(frozen=True)
class Line:
    """One line of source: ``file`` as Python names it, ``number`` from 1.

    >>> Line("/home/ada/model.py", 12, "forward", "return x.relu()")
    model.py:12  return x.relu()
    """

    file: str
    number: int
    function: str
    text: str

    @property
    def place(self) -> str:
        """Short and the same on every machine: ``model.py:12``, or ``cell:12`` in a notebook."""
        return f"{'cell' if _CELL.search(self.file) else Path(self.file).name}:{self.number}"

    def __repr__(self) -> str:
        return f"{self.place}  {self.text}"


def lines(stack_trace: str) -> list[Line]:
    """All frames of a stack trace as torch and Python print it, outermost first.

    Their text is that of the trace, which the file may no longer hold.
    """
    return [
        line_at(match["file"], int(match["number"]), match["function"].strip(), match["text"])
        for match in _FRAME.finditer(stack_trace)
    ]


def user_line(trace: str | TracebackType | None) -> Line | None:
    """The innermost frame of the user's own code; where there is none, that of the library which
    the model comes from; else the innermost at all.

    ``trace`` is a stack trace as text (``node.meta["stack_trace"]``) or the traceback of an
    exception. The user's own code is what lies outside the standard library and site-packages.

    >>> user_line('File "/home/ada/model.py", line 12, in forward').place
    'model.py:12'
    """
    return nearest(lines(trace) if isinstance(trace, str) else list(_walk(trace)))


def nearest(found: Sequence[Line]) -> Line | None:
    """What :func:`user_line` says of these frames, outermost first."""
    own = next((line for line in reversed(found) if is_users(line.file)), None)
    return own or _librarys(found) or next(reversed(found), None)


def told(line: Line | None) -> Line | None:
    """The line, where it is of a model: not in torch's own machinery, but in a module of torch."""
    if line is None or is_users(line.file) or _package(line.file) or line.function == "forward":
        return line
    return None


def _librarys(found: Sequence[Line]) -> Line | None:
    """The innermost line of the package whose forward() is the innermost; torch comes last, since
    what it calls (sympy) is not where the model stands."""
    outside = [line for line in found if _package(line.file)]
    modules = [line for line in found if line.function == "forward"]
    calls = [line for line in outside if line.function == "forward"]
    home = _package(calls[-1].file) if calls else ""
    inside = [line for line in outside if not home or _package(line.file) == home]
    return next(reversed(inside or modules), None)


def _package(file: str) -> str:
    """The installed package that a file belongs to; empty for torch, ours and the user's."""
    found = _INSTALLED.search(file)
    own = file.startswith((*_torch(), _PACKAGE))
    return found[1] if found and not own else ""


@lru_cache(maxsize=1)
def _torch() -> tuple[str, ...]:
    found = find_spec("torch")
    folders = [f"{Path(found.origin).parent}{os.sep}"] if found and found.origin else []
    return ("torch/", "torch\\", "<", *folders)


def method_lines(method: object) -> list[Line]:
    """The source of a function, line by line; none where it cannot be read."""
    code = getattr(method, "__code__", None)
    try:
        texts, first = inspect.getsourcelines(code)  # type: ignore[arg-type]
    except (OSError, TypeError):  # made in C, or by exec
        return []
    return [
        Line(code.co_filename, number, code.co_name, text.strip())  # type: ignore[union-attr]
        for number, text in enumerate(texts, first)
    ]


def is_cell(file: str) -> bool:
    """Whether Python's name of a file is that of a notebook's cell, or of typed input."""
    return bool(_CELL.search(file))


def is_users(file: str) -> bool:
    """Whether a file is the user's own: not the standard library's, nor an installed package's.

    The models of this package's lessons count as the user's, wherever they are installed.
    """
    if _CELL.search(file) or file.startswith(_LESSONS):
        return True
    return not file.startswith((*_LIBRARIES, _PACKAGE)) and not _INSTALLED.search(file)


def _walk(trace: TracebackType | None) -> Iterator[Line]:
    while trace is not None:
        code = trace.tb_frame.f_code
        yield line_at(code.co_filename, trace.tb_lineno, code.co_name)
        trace = trace.tb_next


def line_at(file: str, number: int, function: str, text: str | None = None) -> Line:
    """The line of that number, with its text of today where it is not given."""
    return Line(file, number, function, (text or linecache.getline(file, number)).strip())
