"""How far long work has come, in the terminal and in the notebook."""

from __future__ import annotations

import os
from typing import Any


def bar(*args: Any, **options: Any) -> Any:
    """``tqdm.auto.tqdm(*args, **options)`` that leaves nothing behind when it is done.

    The variable ``TQDM_DISABLE`` silences it everywhere. tqdm itself reads it in the terminal only,
    and its notebook bar ignores it.

    >>> sum(bar([1, 2, 3], desc="adding", disable=True))
    6
    """
    from tqdm.auto import tqdm

    silent = bool(os.environ.get("TQDM_DISABLE"))
    return tqdm(*args, **{"leave": False, "disable": silent, **options})
