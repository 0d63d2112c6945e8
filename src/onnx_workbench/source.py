"""Where in a person's source code something came from."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import linecache
import os
import re
import stat
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from .errors import InputError

LONGEST_TRACE, MOST_FRAMES, LONGEST_TEXT = 100_000, 200, 1_000
"""Characters of a trace, frames, and characters of a line that are read. The rest is cut: a
trace is text from a file, which may come from anyone."""
LARGEST_SOURCE = 4_000_000
"""Bytes of a file that is read as source code."""

GENERATED = "<eval_with_key>"
"""Prefix of the file names under which torch runs its graphs as code."""

_CELL = re.compile(r"ipykernel_\d+|<ipython-input|<doctest|<stdin>")
_INSTALLED = re.compile(r"[\\/](?:site|dist)-packages[\\/]")  # pip --user, Debian, too
_LAYERS = re.compile(r"(?:^|[\\/])torch[\\/]nn[\\/](?!modules[\\/]module\.py)")
"""Files of torch that hold layers, as opposed to the one that calls them."""

_PATHS = sysconfig.get_paths()
_LIBRARIES = (
    "<",
    "torch/",  # how torch shortens its own files in the traces that it keeps
    "torch\\",
    *(f"{_PATHS[key]}{os.sep}" for key in ("stdlib", "platstdlib", "purelib", "platlib")),
)
_PACKAGE = f"{Path(__file__).parent}{os.sep}"
_LESSONS = f"{_PACKAGE}lessons{os.sep}"
_SEPARATOR = re.compile(r"[\\/]")


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
    library: Line | None = field(default=None, compare=False, repr=False)
    """The innermost line of the installed package that this line of the user's calls."""

    @property
    def place(self) -> str:
        """Short and the same on every machine: ``model.py:12``, ``cell:12`` in a notebook, and
        ``torchvision/models/resnet.py:92`` in an installed package."""
        if is_cell(self.file):
            return f"cell:{self.number}"
        return f"{_installed(self.file) or re.split(_SEPARATOR, self.file)[-1]}:{self.number}"

    @property
    def where(self) -> str:
        """The place, and that of the library's line which it calls."""
        return f"{self.place}, in {self.library.place}" if self.library else self.place

    def __repr__(self) -> str:
        return f"{self.place}  {self.text}"


def lines(stack_trace: str) -> list[Line]:
    """The frames of a stack trace as torch and Python print it, outermost first.

    Their text is that of the trace; no file is opened. Of a trace that is longer than
    ``LONGEST_TRACE`` or ``MOST_FRAMES``, the innermost frames are read.
    """
    return list(_lines(stack_trace))


@lru_cache(maxsize=4096)
def _lines(stack_trace: str) -> tuple[Line, ...]:
    rows = stack_trace[-LONGEST_TRACE:].split("\n")
    found = [
        Line(*frame, _text_below(rows[index + 1 : index + 2]))
        for index, row in enumerate(rows)
        if (frame := _frame(row))
    ]
    return tuple(found[-MOST_FRAMES:])


def _frame(row: str) -> tuple[str, int, str] | None:
    """The three parts of ``File "model.py", line 12, in forward``."""
    file, quote, rest = row.partition('File "')[2].partition('", line ')
    number, comma, function = rest.partition(", in ")
    if not (quote and comma and file and number.isdecimal() and len(number) < 10):
        return None
    return file, int(number), function.strip()[:LONGEST_TEXT]


def _text_below(rows: Sequence[str]) -> str:
    row = rows[0] if rows else ""
    is_text = row[:1] in (" ", "\t") and not row.lstrip().startswith('File "')
    return row.strip()[:LONGEST_TEXT] if is_text else ""


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
    """The line that :func:`user_line` picks from these frames, outermost first."""
    found = [line for line in found if not line.file.startswith(GENERATED)]
    own = [index for index, line in enumerate(found) if is_users(line.file)]
    if not own:
        return _librarys(found) or next(reversed(found), None)
    called = [line for line in found[own[-1] + 1 :] if _package(line.file)]
    return replace(found[own[-1]], library=next(reversed(called), None))


def below(found: Sequence[Line]) -> tuple[Line, ...]:
    """The lines of installed packages that the user's line calls, outermost first; where there are
    none of others, those of torch's layers. Without a line of the user's there is nothing below."""
    own = [index for index, line in enumerate(found) if is_users(line.file)]
    called = found[own[-1] + 1 :] if own else ()
    packages = tuple(line for line in called if _package(line.file))
    return packages or tuple(line for line in called if is_layer(line.file))


def is_library(file: str) -> bool:
    """Whether a file belongs to an installed package other than torch and this one."""
    return bool(_package(file))


def is_layer(file: str) -> bool:
    """Whether a file is one of torch's own that define layers (``torch/nn/modules/linear.py``)."""
    return bool(_LAYERS.search(file)) and file.startswith(_torch())


def told(line: Line | None) -> Line | None:
    """The line if it belongs to a model; None inside torch, except in a torch module."""
    if line is None or is_users(line.file) or _package(line.file) or line.function == "forward":
        return line
    return None


def _librarys(found: Sequence[Line]) -> Line | None:
    """The innermost line of the package whose forward() is the innermost; torch comes last, since
    the libraries it calls (sympy) hold no model."""
    outside = [line for line in found if _package(line.file)]
    modules = [line for line in found if line.function == "forward"]
    calls = [line for line in outside if line.function == "forward"]
    home = _package(calls[-1].file) if calls else ""
    inside = [line for line in outside if not home or _package(line.file) == home]
    return next(reversed(inside or modules), None)


def _package(file: str) -> str:
    """The installed package that a file belongs to; empty for torch, ours and the user's."""
    own = file.startswith((*_torch(), _PACKAGE))
    return "" if own else _installed(file).partition("/")[0]


@lru_cache(maxsize=4096)
def _installed(file: str) -> str:
    """The path of a file within the folder of installed packages, with ``/``; else empty."""
    if file.startswith(("torch/", "torch\\")):
        return file.replace("\\", "/")
    found = _INSTALLED.search(file)
    if found:
        return file[found.end() :].replace("\\", "/")
    for folder in sys.path:
        prefix = f"{folder}{os.sep}"
        name = file[len(prefix) :].replace(os.sep, "/") if file.startswith(prefix) else ""
        if folder and name.partition("/")[0] in _pip_targets(folder):
            return name
    return ""


@lru_cache(maxsize=64)
def _pip_targets(folder: str) -> frozenset[str]:
    """What ``pip install --target`` put into a folder; an editable install puts nothing there."""
    records = Path(folder).glob("*.dist-info/RECORD")
    rows = (row for record in records for row in record.read_text("utf-8", "replace").splitlines())
    return frozenset(row.partition(",")[0].partition("/")[0] for row in rows)


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
    return not file.startswith((*_LIBRARIES, _PACKAGE)) and not _installed(file)


def _walk(trace: TracebackType | None) -> Iterator[Line]:
    while trace is not None:
        code = trace.tb_frame.f_code
        yield line_at(code.co_filename, trace.tb_lineno, code.co_name)
        trace = trace.tb_next


def line_at(file: str, number: int, function: str) -> Line:
    """A line of code that runs in this process, with its current text."""
    return Line(file, number, function, linecache.getline(file, number).strip()[:LONGEST_TEXT])


@dataclass(frozen=True)
class Sources:
    """The files whose text may be shown around a line.

    A stack trace in a foreign file can name any file of this machine, and a saved page is passed
    on. So a file is read only if this process made the model from it (``own``), or if it is a
    regular ``.py`` file below the folder of the model, the working folder (``near``) or a folder
    that the user names (``named``); and only if it holds the line that the trace quotes.
    """

    own: frozenset[str] = frozenset()
    near: tuple[Path, ...] = ()
    named: tuple[Path, ...] = ()

    @classmethod
    def of(cls, model: Any, source: str | os.PathLike[str] | None = None) -> Sources:
        """For anything that holds a model: an Artifact, a path, a torch.onnx.ONNXProgram."""
        program = getattr(model, "exported_program", None)
        program = program or getattr(getattr(model, "graph", None), "program", None)
        path = model if isinstance(model, str | os.PathLike) else getattr(model, "path", None)
        near = []
        with suppress(OSError):  # the working folder is gone
            near.append(Path.cwd())
        if isinstance(path, str | os.PathLike):
            near.append(Path(os.fsdecode(path)).absolute().parent)
        named = () if source is None else (_folder(source),)
        return cls(_files_of(program) & _running(), tuple(near), named)

    def read(self, known: Sequence[Line]) -> list[str]:
        """The text of the file that all of ``known`` stand in, line by line; empty where it may
        not be shown, cannot be read, or does not have these lines."""
        file = known[0].file
        texts = {line.number: line.text for line in known}
        for candidate in [file] if file in self.own else self._candidates(file):
            found = linecache.getlines(candidate)
            if all(
                text
                and 0 < number <= len(found)
                and found[number - 1].strip()[:LONGEST_TEXT] == text
                for number, text in texts.items()
            ):
                return found
        return []

    def _candidates(self, file: str) -> Iterator[str]:
        """The file by its own path, then by the end of its path below each folder: the model may
        have been exported elsewhere."""
        parts = [part for part in re.split(_SEPARATOR, file) if part not in ("", ".", "..")]
        ends = [Path(*parts[-count:]) for count in range(min(len(parts), 6), 0, -1)]
        for folder in (*self.named, *self.near):
            for path in (Path(file), *(folder / end for end in ends)):
                if found := _regular(path, folder, hidden_above=folder in self.named):
                    yield found


NOTHING_MORE = Sources()
"""Shows the lines alone."""


def _folder(path: str | os.PathLike[str]) -> Path:
    try:
        folder = Path(path).expanduser().absolute()
        if folder.is_dir():
            return folder
    except (TypeError, ValueError, RuntimeError):  # not a path, or an unknown home
        pass
    raise InputError(
        f"`source` is {path!r:.200}, and there is no such folder. "
        "Pass the folder that the model's .py files lie in."
    )


def _regular(path: Path, folder: Path, hidden_above: bool) -> str:
    """The real path of a regular ``.py`` file below a folder and in no hidden one; else empty."""
    try:
        real, home = path.resolve(strict=True), folder.resolve()
        inside = real.relative_to(home)
        kind = real.stat()
    except (OSError, ValueError, RuntimeError):  # not there, not below, a NUL, a loop of links
        return ""
    parts = inside.parts if hidden_above else real.parts
    plain = stat.S_ISREG(kind.st_mode) and kind.st_size <= LARGEST_SOURCE
    hidden = any(part.startswith(".") for part in parts)
    return str(real) if plain and real.suffix == ".py" and not hidden else ""


def _files_of(program: Any) -> frozenset[str]:
    """The files in the stack traces of an ExportedProgram."""
    modules = program.graph_module.modules() if program else ()
    graphs = (module.graph for module in modules if hasattr(module, "graph"))
    traces = {node.meta.get("stack_trace") or "" for graph in graphs for node in graph.nodes}
    return frozenset(line.file for trace in traces for line in lines(trace))


def _running() -> frozenset[str]:
    """The files of the modules and cells of this process."""
    modules = (
        getattr(module, "__dict__", {}).get("__file__") for module in [*sys.modules.values()]
    )
    cells = (file for file in [*linecache.cache] if is_cell(file))
    return frozenset(file for file in (*modules, *cells) if isinstance(file, str))


def depth_of_caller() -> int:
    """How many frames up the caller of this package is."""
    ours = (_PACKAGE, contextlib.__file__)
    frames = itertools.takewhile(
        lambda frame: frame.filename.startswith(ours),
        itertools.islice(inspect.stack(context=0), 1, None),
    )
    return 1 + sum(1 for _ in frames)
