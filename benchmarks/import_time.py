"""`import onnx_workbench` promises milliseconds: the rooms are opened when they are used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from side_by_side import Pair, take_turns


def report() -> Iterator[Pair]:
    ours, bare = (partial(python, code) for code in ("import onnx_workbench", ""))
    yield take_turns("import onnx_workbench / bare python", ours, bare, turns=15)


def python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)
