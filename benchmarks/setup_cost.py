"""Set-up from scratch: `workbench.py` beside the `pip install` that does the same by hand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from side_by_side import Pair, timed

import workbench

ROOT = Path(__file__).parents[1]

LEFT_OUT = shutil.ignore_patterns(".*", "build", "__pycache__", "*.egg-info")


def report() -> Iterator[Pair]:
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder, "bare")
        beside = timed(lambda: by_hand(bare))
        spent, sizes = {}, {}
        for verb in ("lab", "test"):
            copy = shutil.copytree(ROOT, Path(folder, verb), ignore=LEFT_OUT)
            start = [sys.executable, str(copy / "workbench.py"), verb, "--version"]
            spent[verb] = timed(lambda start=start: run(*start))
            sizes[verb] = disk(copy / ".venv")
        yield Pair("set-up of test, wall time / pip install of the pins", [spent["test"]], [beside])
        yield Pair("set-up of test, disk / same", [sizes["test"]], [disk(bare)], unit="bytes")
        yield Pair("set-up of lab, wall time / of test", [spent["lab"]], [spent["test"]])
        yield Pair("set-up of lab, disk / of test", [sizes["lab"]], [sizes["test"]], unit="bytes")


def by_hand(folder: Path) -> None:
    run(sys.executable, "-m", "venv", str(folder))
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pins = ["-r", str(ROOT / "constraints.txt"), "--extra-index-url", f"{workbench.INDEX}/cpu"]
    run(str(python), "-m", "pip", "install", "--quiet", *pins)


def run(*command: str) -> None:
    """Run it without pip's cache, so that the second install downloads as much as the first."""
    subprocess.run(command, check=True, env={**os.environ, "PIP_NO_CACHE_DIR": "1"})


def disk(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())
