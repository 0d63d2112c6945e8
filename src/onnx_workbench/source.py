"""Lines of source: where something came from, and whose line it is."""

from __future__ import annotations

import ast
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

LONGEST_TRACE, MOST_FRAMES, LONGEST_TEXT = 100_000, 200, 1_000
"""The most characters of a trace, frames, and characters of a line that are read. The rest is cut:
a trace is text from a file, which may come from anyone."""
LARGEST_SOURCE = 4_000_000
"""Bytes of the largest file that is read as source code."""

GENERATED = "<eval_with_key>"
"""Prefix of the file names under which torch runs its graphs as code."""

_CELL = re.compile(r"ipykernel_\d+|<ipython-input|<doctest|<stdin>")
_INSTALLED = re.compile(r"[\\/](?:site|dist)-packages[\\/]")  # pip --user, Debian, too
_LAYERS = re.compile(r"(?:^|[\\/])torch[\\/]nn[\\/](?!modules[\\/]module\.py)")
"""Files of torch that define layers, except the one that calls them."""

_PATHS = sysconfig.get_paths()
_LIBRARIES = (
    "<",
    "torch/",  # torch shortens the names of its own files in traces
    "torch\\",
    *(f"{_PATHS[key]}{os.sep}" for key in ("stdlib", "platstdlib", "purelib", "platlib")),
)
_PACKAGE = f"{Path(__file__).parent}{os.sep}"
_LESSONS = f"{_PACKAGE}lessons{os.sep}"
_SEPARATOR = re.compile(r"[\\/]")
_ROOT = r"(?:[A-Za-z]:[\\/]|/|\\\\)"
_FILE = re.compile(
    rf"""(?<=File ")(?P<file>[^"\n]+)(?=")"""
    rf"""|(?<=(["']))(?P<quoted>{_ROOT}[^"'\n]+)(?=\2)"""
    rf"""|(?<![\w:/\\.<>)\]}}-])(?:file://)?(?P<bare>{_ROOT}[^\s"'<>:,;()]+)"""
)
"""A file in a stack trace; a quoted absolute path; a bare absolute path. No repetition is inside or
beside another, so that the time is linear in the text."""


@dataclass(frozen=True, order=True)
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
    """The innermost line of an installed package that this line calls."""

    @property
    def place(self) -> str:
        """A short name, the same on every machine: ``model.py:12``, ``cell:12`` in a notebook,
        ``torchvision/models/resnet.py:92`` in an installed package."""
        if is_cell(self.file):
            return f"cell:{self.number}"
        return f"{_installed(self.file) or re.split(_SEPARATOR, self.file)[-1]}:{self.number}"

    @property
    def short_place(self) -> str:
        """The place without folders: ``resnet.py:92``."""
        return self.place.rpartition("/")[2]

    @property
    def where(self) -> str:
        """The place, and the place of the library's line that it calls."""
        return f"{self.place}, in {self.library.place}" if self.library else self.place

    def __repr__(self) -> str:
        return f"{self.place}  {self.text}"


@lru_cache(maxsize=4096)
def lines(stack_trace: str) -> tuple[Line, ...]:
    """The frames of a stack trace as torch and Python print it, outermost first.

    Their text comes from the trace; no file is opened. If a trace is longer than ``LONGEST_TRACE``
    or ``MOST_FRAMES``, only its innermost frames are read.
    """
    rows = stack_trace[-LONGEST_TRACE:].split("\n")
    frames = [
        Line(*frame, _text_below(rows[index + 1 : index + 2]))
        for index, row in enumerate(rows)
        if (frame := _frame(row))
    ]
    return tuple(frames[-MOST_FRAMES:])


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
    """The innermost line of the user's own code; else of the library that the model is from; else
    the innermost line.

    ``trace`` is a stack trace as text (``node.meta["stack_trace"]``) or the traceback of an
    exception. The user's own code is outside the standard library and site-packages.

    >>> user_line('File "/home/ada/model.py", line 12, in forward').place
    'model.py:12'
    """
    return nearest(lines(trace) if isinstance(trace, str) else tuple(lines_of(trace)))


def nearest(frames: Sequence[Line]) -> Line | None:
    """The line that :func:`user_line` picks from these frames, outermost first."""
    frames = [line for line in frames if not line.file.startswith(GENERATED)]
    users = [index for index, line in enumerate(frames) if is_user_file(line.file)]
    if not users:
        return _library_line(frames) or next(reversed(frames), None)
    called = [line for line in frames[users[-1] + 1 :] if _package(line.file)]
    return replace(frames[users[-1]], library=next(reversed(called), None))


def called_lines(frames: Sequence[Line]) -> tuple[Line, ...]:
    """The lines of installed packages that the user's line calls, outermost first; if there are
    none, those of torch's layers. Empty if no frame is the user's."""
    users = [index for index, line in enumerate(frames) if is_user_file(line.file)]
    called = frames[users[-1] + 1 :] if users else ()
    packages = tuple(line for line in called if _package(line.file))
    return packages or tuple(line for line in called if is_layer(line.file))


def is_library(file: str) -> bool:
    """Whether a file belongs to an installed package other than torch and this one."""
    return bool(_package(file))


def is_layer(file: str) -> bool:
    """Whether a file of torch defines layers (``torch/nn/modules/linear.py``)."""
    return bool(_LAYERS.search(file)) and file.startswith(_torch())


def unless_internal(line: Line | None) -> Line | None:
    """The line if it belongs to a model; None if it is internal to torch."""
    if line is None or is_user_file(line.file) or _package(line.file) or line.function == "forward":
        return line
    return None


@lru_cache(maxsize=4096)
def model_line(trace: str) -> Line | None:
    """The user's line, else the innermost line outside torch, else that of a torch module.

    None if the trace has only torch's internals, such as the checks that it inserts.
    """
    return unless_internal(user_line(trace))


def node_line(node: Any) -> Line | None:
    """The line of an FX node."""
    return model_line(node.meta.get("stack_trace") or "")


def _library_line(frames: Sequence[Line]) -> Line | None:
    """The innermost line of the package that has the innermost forward(), so that libraries which
    torch calls (sympy) do not count; else the innermost forward() of torch."""
    outside = [line for line in frames if _package(line.file)]
    modules = [line for line in frames if line.function == "forward"]
    calls = [line for line in outside if line.function == "forward"]
    package = _package(calls[-1].file) if calls else ""
    inside = [line for line in outside if not package or _package(line.file) == package]
    return next(reversed(inside or modules), None)


def _package(file: str) -> str:
    """The installed package that a file belongs to; empty for torch, ours and the user's."""
    excluded = file.startswith((*_torch(), _PACKAGE))
    return "" if excluded else _installed(file).partition("/")[0]


@lru_cache(maxsize=4096)
def _installed(file: str) -> str:
    """The path of a file within the folder of installed packages, with ``/``; else empty."""
    if file.startswith(("torch/", "torch\\")):
        return file.replace("\\", "/")
    if match := _INSTALLED.search(file):
        return file[match.end() :].replace("\\", "/")
    for folder in sys.path:
        prefix = f"{folder}{os.sep}"
        name = file[len(prefix) :].replace(os.sep, "/") if file.startswith(prefix) else ""
        if folder and name.partition("/")[0] in _pip_targets(folder):
            return name
    return ""


@lru_cache(maxsize=64)
def _pip_targets(folder: str) -> frozenset[str]:
    """The top-level names that ``pip install --target`` put into a folder."""
    records = Path(folder).glob("*.dist-info/RECORD")
    rows = (row for record in records for row in record.read_text("utf-8", "replace").splitlines())
    return frozenset(row.partition(",")[0].partition("/")[0] for row in rows)


@lru_cache(maxsize=1)
def _torch() -> tuple[str, ...]:
    spec = find_spec("torch")
    folders = [f"{Path(spec.origin).parent}{os.sep}"] if spec and spec.origin else []
    return ("torch/", "torch\\", "<", *folders)


def method_lines(method: object) -> list[Line]:
    """The source of a function, line by line; empty if it cannot be read."""
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
    """Whether a file name of Python stands for a notebook cell or typed input."""
    return bool(_CELL.search(file))


def is_user_file(file: str) -> bool:
    """Whether a file is the user's own: not in the standard library or an installed package.

    The models of this package's lessons count as the user's.
    """
    if _CELL.search(file) or file.startswith(_LESSONS):
        return True
    return not file.startswith((*_LIBRARIES, _PACKAGE)) and not _installed(file)


def lines_of(trace: TracebackType | None) -> Iterator[Line]:
    """The frames of a traceback, outermost first."""
    while trace is not None:
        code = trace.tb_frame.f_code
        yield line_at(code.co_filename, trace.tb_lineno, code.co_name)
        trace = trace.tb_next


def line_at(file: str, number: int, function: str) -> Line:
    """A line of code that runs in this process, with its current text."""
    return Line(file, number, function, linecache.getline(file, number).strip()[:LONGEST_TEXT])


@lru_cache(maxsize=64)
def functions_in(source: str) -> tuple[tuple[int, int, str], ...]:
    """First line, last line and qualified name of each function; none if it does not parse.

    >>> functions_in("class Net:\\n    def forward(self, x):\\n        return x")
    ((2, 3, 'Net.forward'),)
    """
    try:
        return tuple(_defined(ast.parse(source), ""))
    except (SyntaxError, ValueError, RecursionError):
        return ()


def _defined(tree: ast.AST, scope: str) -> Iterator[tuple[int, int, str]]:
    for node in ast.iter_child_nodes(tree):
        inner = scope
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{scope}{node.name}."
            if not isinstance(node, ast.ClassDef):
                yield node.lineno, node.end_lineno or node.lineno, inner[:-1]
        yield from _defined(node, inner)


@dataclass(frozen=True)
class Sources:
    """The files whose text may be shown around a line.

    A stack trace in someone else's model can name any file of this machine, and people share saved
    pages. So a file is read only if this process made the model from it (``executed``), or if it is
    a regular ``.py`` file below the folder of the model or the working folder (``near``), or below
    a folder that the user names (``named``); and only if it has the line that the trace quotes.
    """

    executed: frozenset[str] = frozenset()
    near: tuple[Path, ...] = ()
    named: tuple[Path, ...] = ()

    @classmethod
    def of(cls, model: Any, source: Path | None = None) -> Sources:
        """The files for a model: an Artifact, a path, a torch.onnx.ONNXProgram."""
        program = getattr(model, "exported_program", None)
        program = program or getattr(getattr(model, "graph", None), "program", None)
        path = model if isinstance(model, str | os.PathLike) else getattr(model, "path", None)
        near = []
        with suppress(OSError):  # the working folder is gone
            near.append(Path.cwd())
        if isinstance(path, str | os.PathLike):
            near.append(Path(os.fsdecode(path)).absolute().parent)
        named = () if source is None else (source,)
        return cls(_files_of(program) & _loaded_files(), tuple(near), named)

    def read(self, known: Sequence[Line]) -> list[str]:
        """The lines of the file that all of ``known`` are in; empty if it may not be shown, cannot
        be read, or does not have these lines."""
        file = known[0].file
        texts = {line.number: line.text for line in known}
        for candidate in [file] if file in self.executed else self._candidates(file):
            source = linecache.getlines(candidate)
            if all(
                text
                and 0 < number <= len(source)
                and source[number - 1].strip()[:LONGEST_TEXT] == text
                for number, text in texts.items()
            ):
                return source
        return []

    def _candidates(self, file: str) -> Iterator[str]:
        """The file itself, then files below each folder whose paths end like its path: the model
        may have been exported elsewhere."""
        parts = [part for part in re.split(_SEPARATOR, file) if part not in ("", ".", "..")]
        ends = [Path(*parts[-count:]) for count in range(min(len(parts), 6), 0, -1)]
        for folder in (*self.named, *self.near):
            for path in (Path(file), *(folder / end for end in ends)):
                if real := _regular(path, folder, hidden_above=folder in self.named):
                    yield real


NO_SOURCES = Sources()
"""No file: only the quoted lines are shown."""


def _regular(path: Path, folder: Path, hidden_above: bool) -> str:
    """The real path of a regular ``.py`` file below a folder, not in a hidden one; else empty."""
    try:
        real = path.resolve(strict=True)
        inside = real.relative_to(folder.resolve())
        status = real.stat()
    except (OSError, ValueError, RuntimeError):  # not there, not below, a NUL, a loop of links
        return ""
    parts = inside.parts if hidden_above else real.parts
    regular = stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST_SOURCE
    hidden = any(part.startswith(".") for part in parts)
    return str(real) if regular and real.suffix == ".py" and not hidden else ""


def _files_of(program: Any) -> frozenset[str]:
    """The files in the stack traces of an ExportedProgram."""
    modules = program.graph_module.modules() if program else ()
    graphs = (module.graph for module in modules if hasattr(module, "graph"))
    traces = {node.meta.get("stack_trace") or "" for graph in graphs for node in graph.nodes}
    return frozenset(line.file for trace in traces for line in lines(trace))


def _loaded_files() -> frozenset[str]:
    """The files of the modules and cells of this process."""
    modules = (
        getattr(module, "__dict__", {}).get("__file__") for module in [*sys.modules.values()]
    )
    cells = (file for file in [*linecache.cache] if is_cell(file))
    return frozenset(file for file in (*modules, *cells) if isinstance(file, str))


def depth_of_caller() -> int:
    """How many frames up the stack the caller of this package is."""
    ours = (_PACKAGE, contextlib.__file__)
    frames = itertools.takewhile(
        lambda frame: frame.filename.startswith(ours),
        itertools.islice(inspect.stack(context=0), 1, None),
    )
    return 1 + sum(1 for _ in frames)


def without_folders(text: str) -> str:
    """The text with each absolute path cut to the file's name.

    >>> without_folders('File "/home/ada/model.py", line 12, in forward')
    'File "model.py", line 12, in forward'
    """
    return _without_folders(text) if "/" in text or "\\" in text else text


@lru_cache(maxsize=1024)
def _without_folders(text: str) -> str:
    return _FILE.sub(_file_name, text)


def _file_name(match: re.Match[str]) -> str:
    path = match["file"] or match["quoted"] or match["bare"]
    parts = [part for part in re.split(r"[\\/]+", path) if part]
    return parts[-1] if match["file"] or len(parts) > 1 else match[0]
