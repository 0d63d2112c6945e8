"""Set-up from nothing: `workbench.py` beside the `pip install` that one would type instead."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from urllib.request import urlopen

from side_by_side import Pair

ROOT = Path(__file__).parents[1]
INDEX = "https://download.pytorch.org/whl/cpu"
LEFT_OUT = shutil.ignore_patterns(".*", "build", "__pycache__", "*.egg-info")


def measure() -> Iterator[Pair]:
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(ROOT, Path(folder, "ours"), ignore=LEFT_OUT)
        bare = Path(folder, "bare")
        beside = timed(lambda: by_hand(bare))
        start = [sys.executable, str(copy / "workbench.py"), "test", "--version"]  # of pytest
        ours = timed(lambda: run(*start))
        yield Pair("set-up, wall time / pip install of the pins", [ours], [beside])
        sizes = [[disk(copy / ".venv")], [disk(bare)]]
        yield Pair("set-up, disk / same", *sizes, unit="bytes")


def by_hand(folder: Path) -> None:
    run(sys.executable, "-m", "venv", str(folder))
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    index = ["--extra-index-url", INDEX] if answers() else []
    pins = ["-r", str(ROOT / "constraints.txt")]
    run(str(python), "-m", "pip", "install", "--quiet", *pins, *index)


def answers() -> bool:
    with suppress(OSError):
        return urlopen(f"{INDEX}/torch/", timeout=10).status == 200
    return False


def run(*command: str) -> None:
    """Without pip's cache: who comes second must not find what the first one fetched."""
    subprocess.run(command, check=True, env={**os.environ, "PIP_NO_CACHE_DIR": "1"})


def timed(way) -> float:
    start = perf_counter()
    way()
    return perf_counter() - start


def disk(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())
