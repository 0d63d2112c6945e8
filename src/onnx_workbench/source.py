"""Where in a person's source code something came from."""

from __future__ import annotations

import linecache
import os
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_FRAME = re.compile(
    r'File "(?P<file>[^"]+)", line (?P<number>\d+), in (?P<function>.+)'
    r'(?:\n[ \t]+(?!File ")(?P<text>\S.*))?'
)
_CELL = re.compile(r"ipykernel_\d+|<ipython-input|<doctest|<stdin>")
_INSTALLED = re.compile(r"[\\/](site|dist)-packages[\\/]")  # of pip --user or Debian, too

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
    """The innermost frame of the user's own code, else the innermost frame at all.

    ``trace`` is a stack trace as text (``node.meta["stack_trace"]``) or the traceback of an
    exception. The user's own code is what lies outside the standard library and site-packages.

    >>> user_line('File "/home/ada/model.py", line 12, in forward').place
    'model.py:12'
    """
    found = lines(trace) if isinstance(trace, str) else list(_walk(trace))
    innermost = found[-1] if found else None
    return next((line for line in reversed(found) if is_users(line.file)), innermost)


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
