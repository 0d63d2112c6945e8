"""Progress bars for long work, in the terminal and in the notebook: one at a time, then gone."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from threading import Lock, RLock
from typing import Any

_DELAY = 2.0  # seconds of work before a bar shows
_LONGEST = 120  # seconds without a step until a bar in a notebook hides
_NO_TEXT = re.compile(r"[\r\n]|\x1b\[A")  # how tqdm moves the cursor
_shown = Lock()


@contextmanager
def bar(what: str, total: int | None = None, unit: str = "it") -> Iterator[Callable[..., None]]:
    """A bar for the work inside; it yields a function that says which step begins.

    It shows nothing inside another bar, or in a log. ``TQDM_DISABLE=1`` silences it.

    >>> with bar("export", total=2) as step:
    ...     step("capture")
    ...     step("write")
    """
    from tqdm.std import tqdm

    with no_other_bar() as first:
        notebook = _in_notebook()
        silent = not first or bool(os.environ.get("TQDM_DISABLE"))
        look: Any = {"file": _Cell(), "ncols": 80, "position": 0} if notebook else {}
        look["disable"] = silent or not (notebook or sys.stderr.isatty())
        # tqdm's own lock holds a semaphore, which a worker process would leak
        kind: Any = type("bar", (tqdm,), {"_lock": RLock()})
        with kind(desc=what, total=total, unit=unit, delay=_DELAY, leave=False, **look) as shown:

            def step(name: str = "") -> None:
                shown.set_postfix_str(name, refresh=False)
                shown.update()

            yield step


@contextmanager
def no_other_bar() -> Iterator[bool]:
    """No bar shows inside; yields False if that was so before."""
    first = _shown.acquire(blocking=False)
    try:
        yield first
    finally:
        if first:
            _shown.release()


class _Cell:
    """What tqdm writes its line to in a notebook: one output of the cell, empty at the end.

    An output without data takes no room, in a file that is opened later either. A page that loses
    its kernel, or is loaded again while a cell runs, keeps the last line: it hides by itself.
    """

    encoding = "utf-8"

    def __init__(self) -> None:
        self._output: Any = None

    def write(self, text: str) -> None:
        from IPython.display import display

        line = _NO_TEXT.sub("", text).strip()
        if not (line or self._output):
            return
        data = {"text/plain": line, "text/html": _vanishing(line)} if line else {}
        if self._output:
            self._output.update(data, raw=True)
        else:
            self._output = display(data, raw=True, display_id=True)

    def flush(self) -> None:
        """Nothing is buffered."""


def _vanishing(line: str) -> str:
    """The line in a box that closes after a while; a new line opens it again."""
    return (
        "<style>@keyframes ow-progress { from, to { height: 1.5em } }</style>"
        f'<pre class="ow-progress" style="height:0;margin:0;overflow:hidden;'
        f'animation:ow-progress {_LONGEST}s">{escape(line)}</pre>'
    )


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel")
