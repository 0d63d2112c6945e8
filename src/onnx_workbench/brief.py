"""An error in the few lines that its user needs: the sentence, their own frames, reason, repair."""

from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Iterator
from typing import Any

from .formatting import wrapped
from .source import Line, is_user_file, lines_of

REST = "The whole traceback: %tb"
"""The last line in IPython: what shows the frames of torch and of this package, and the causes."""

_COMPILER = re.compile(r"^.*(?: error: |\bcannot find ).*", re.M)
"""What a compiler or a linker says, below the words of the program that called it."""
_MOST = 5  # frames
_RED, _GREEN, _CYAN, _PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[36m", "\x1b[39m"


def chained(error: BaseException | None) -> Iterator[BaseException]:
    """The error, then its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__


def first_words(error: BaseException) -> str:
    """The class of an error and the first line of its message, or two if the first ends in a colon.

    Behind "compile error" stands the first line that says why.

    >>> first_words(ValueError("two lines\\nof text"))
    'ValueError: two lines'
    >>> first_words(RuntimeError("backend='inductor' raised:\\nCppCompileError: C++ compile error"))
    "RuntimeError: backend='inductor' raised: CppCompileError: C++ compile error"
    >>> first_words(OSError("C++ compile error\\n\\nOutput:\\nld: cannot find -ltorch\\nexit 1"))
    'OSError: C++ compile error: ld: cannot find -ltorch'
    """
    first, *rest = str(error).strip().splitlines() or [""]
    words = " ".join([first, *rest[:1]]) if first.endswith(":") else first
    if words.endswith("compile error") and (why := _COMPILER.search("\n".join(rest))):
        words += f": {why[0].strip()}"
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def brief(error: Any, rest: str = "", colors: bool = False) -> str:
    """The lines that IPython shows for a planned error; ``rest`` is how to see all the others.

    >>> from .errors import InputError
    >>> print(brief(InputError("threads is 0", "Pass 1 or more.")))
    InputError: threads is 0
    <BLANKLINE>
    What helps: Pass 1 or more.
    """
    frames = _frames(error)
    if len(frames) > _MOST:
        frames[1 : 1 - _MOST] = [f"... {len(frames) - _MOST} more of your own frames\n"]
    why = f"Why: {error.reason}" if error.reason != error.message else ""
    helps = f"What helps: {error.hint}" if error.hint else ""
    last = [wrapped(line) for line in (why, helps, rest) if line]
    head = wrapped(f"{type(error).__name__}: {error.message}")
    name, colon, words = head.partition(":")
    text = "\n".join([f"{_RED}{name}{_PLAIN}{colon}{words}", "", *frames, *last]).rstrip()
    if not colors:
        for code in (_RED, _GREEN, _CYAN, _PLAIN):
            text = text.replace(code, "")
    return text


def _frames(error: Any) -> list[str]:
    """The user's frames of the error and of its causes, outermost first; the last is at fault."""
    found = [line for one in chained(error) for line in lines_of(one.__traceback__)]
    frames = dict.fromkeys(line for line in found if is_user_file(line.file))
    texts = {line: _frame(line, linecache.getlines(line.file)) for line in frames}
    if error.line:  # its file may be a name in a model: only a file that ran here is read
        texts[error.line] = texts.pop(error.line, "") or _frame(error.line, [])
        if library := error.line.library:
            texts[library] = _frame(library, [])
    return [*texts.values()]


def _frame(line: Line, source: list[str]) -> str:
    """Where the line is, and the line between its neighbors."""
    shell = _shell()
    cell = shell and shell.compile.format_code_name(line.file)
    where = f"{cell[0]} {cell[1]}, line {line.number}" if cell else f"File {line.place}"
    inside = f", in {line.function}" if line.function != "<module>" else ""
    rows = [f"{_CYAN}{where}{_PLAIN}{inside}"]
    first = max(1, line.number - 1)
    near = dict(enumerate(source[first - 1 : line.number + 1], first))
    for number, text in (near if line.number in near else {line.number: line.text}).items():
        if number == line.number:
            arrow = f"{'-' * max(1, 5 - len(str(number)))}> {number}"
            rows.append(f"{_GREEN}{arrow}{_PLAIN} {text.rstrip()}")
        elif text.strip():
            rows.append(f"{number:>7} {text.rstrip()}")
    return "\n".join([*rows, ""])


def _shell() -> Any:
    """The running IPython, or None."""
    ipython = sys.modules.get("IPython")
    return ipython and ipython.get_ipython()


class Brief:
    """Mixin for an error: IPython shows it in a few lines, and ``%tb`` shows everything.

    IPython asks for both with this method. It handles the error while it shows it the first time;
    with ``%tb`` it shows the last one, which was handled long ago.
    """

    def _render_traceback_(self) -> list[str]:
        shell = _shell()
        if sys.exc_info()[1] is self:
            colors = bool(shell) and shell.colors.lower() != "nocolor"
            return brief(self, REST, colors).split("\n")
        trace = self.__traceback__  # type: ignore[attr-defined]
        return shell.InteractiveTB.structured_traceback(type(self), self, trace)
