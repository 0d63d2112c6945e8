"""Progress bars for long work, in the terminal and in the notebook."""

from __future__ import annotations

import os
import sys
from typing import Any


def bar(*args: Any, **options: Any) -> Any:
    """``tqdm.auto.tqdm(*args, **options)`` that leaves nothing behind when it is done.

    It shows in a notebook or a terminal, not in a log. ``TQDM_DISABLE=1`` silences it everywhere;
    tqdm's own notebook bar ignores that variable.

    >>> sum(bar([1, 2, 3], desc="adding", disable=True))
    6
    """
    from tqdm.auto import tqdm

    silent = bool(os.environ.get("TQDM_DISABLE")) or not (_in_notebook() or sys.stderr.isatty())
    return tqdm(*args, **{"leave": False, "disable": silent, **options})


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel")
