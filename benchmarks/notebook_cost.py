"""The time of each lesson, and its memory: a Binder machine has 2 GB for all open lessons."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import nbformat
from side_by_side import Pair, peak_of

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
BARE = "import torch, onnxruntime"


def report() -> Iterator[Pair]:
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
    """Seconds, and the peak of bytes of the kernel and its children, with shared pages counted for
    each process."""
    command = [sys.executable, "-m", "nbconvert", "--to=notebook", "--execute", "--stdout"]
    options = ["--ExecutePreprocessor.kernel_name=python3", "--log-level=ERROR", str(notebook)]
    settings = {"TQDM_DISABLE": "1", "ONNX_WORKBENCH_HOME": str(notebook.parent / "home")}
    start = perf_counter()
    peak = peak_of([*command, *options], {**os.environ, **settings}, parent=False)
    return perf_counter() - start, peak
