"""What a learner waits for, and how many open lessons fit into the 2 GB of a Binder machine."""

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

import nbformat
import psutil
from side_by_side import Pair

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
BARE = "import torch, onnxruntime"
POLL = 0.05  # seconds


def measure() -> Iterator[Pair]:
    with tempfile.TemporaryDirectory() as folder:
        lessons = shutil.copytree(NOTEBOOKS, Path(folder, "notebooks"))
        bare = lessons / "bare.ipynb"
        cells = [nbformat.v4.new_code_cell(BARE)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), bare)
        run(bare)  # fills the caches of the file system
        for lesson in sorted(lessons.glob("[0-9]*.ipynb")):
            (other_wall, other_peak), (wall, peak) = run(bare), run(lesson)
            yield Pair(f"{lesson.stem}, wall time / bare notebook", [wall], [other_wall])
            yield Pair(f"{lesson.stem}, peak memory / same", [peak], [other_peak], unit="bytes")


def run(notebook: Path) -> tuple[float, int]:
    """Seconds, and bytes at the peak: resident memory of the kernel and its children, summed.

    Pages that they share are counted for each of them.
    """
    command = [sys.executable, "-m", "nbconvert", "--to=notebook", "--execute", "--stdout"]
    options = ["--ExecutePreprocessor.kernel_name=python3", "--log-level=ERROR", str(notebook)]
    settings = {"TQDM_DISABLE": "1", "ONNX_WORKBENCH_HOME": str(notebook.parent / "home")}
    start, peak = perf_counter(), 0
    with subprocess.Popen(
        [*command, *options], env={**os.environ, **settings}, stdout=subprocess.DEVNULL
    ) as converter:
        while converter.poll() is None:
            peak = max(peak, resident(converter.pid))
            with suppress(subprocess.TimeoutExpired):
                converter.wait(POLL)
    if converter.returncode:
        raise SystemExit(f"{notebook.name} failed: what it said stands above.")
    return perf_counter() - start, peak


def resident(parent: int) -> int:
    """Bytes of everything below a process; one that ends meanwhile counts nothing."""
    total = 0
    try:
        for child in psutil.Process(parent).children(recursive=True):
            total += child.memory_info().rss
    except psutil.NoSuchProcess:
        return total
    return total
