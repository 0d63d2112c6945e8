"""Run the lessons and commit what they show: ``python notebooks/render.py [03 05 ...]``.

Each notebook is run from top to bottom in a fresh kernel and written back with its outputs, beside
the old one first. What does not belong into a commit is taken out: widgets (without a kernel they
show an error; their pictures stay), tracebacks with paths of this machine (their last lines stay;
those of a planned error have none), times of single cells. A cell that writes to stderr stops the
rendering. The notebook's metadata keeps the seconds that all cells took, which minutes.py reads.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from onnx_workbench.brief import REST

HERE = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"


def render(path: Path) -> None:
    """Run one notebook in a new folder and put it, with its outputs, where it was."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "models").mkdir()
        begin = time.perf_counter()
        NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
            coalesce_streams=True,
        ).execute()
        seconds = round(time.perf_counter() - begin)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "seconds": seconds,
    }
    for cell in notebook.cells:
        if cell.cell_type == "code":
            committed = (_committed(output, cell) for output in cell.outputs)
            cell.outputs = [output for output in committed if output.get("data") != {}]
    draft = path.with_suffix(".rendering")
    nbformat.write(notebook, draft)
    draft.replace(path)


def _committed(output: NotebookNode, cell: NotebookNode) -> NotebookNode:
    if output.get("name") == "stderr":
        raise SystemExit(f"This cell wrote to stderr:\n{cell.source}\n\n{output.text}")
    if output.output_type == "error" and output.traceback[-1] != REST:
        output.traceback = [f"\x1b[31m{output.ename}\x1b[39m: {output.evalue}"]
    if "data" in output:
        output.data.pop(WIDGET, None)
    return output


def main(names: list[str]) -> None:
    chosen = [p for p in sorted(HERE.glob("*.ipynb")) if not names or p.name[:2] in names]
    with tempfile.TemporaryDirectory() as home:
        # Nobody's progress, and no progress bars: outputs are the same on every run.
        os.environ.update(ONNX_WORKBENCH_HOME=home, TQDM_DISABLE="1")
        for path in chosen:
            print(f"{path.name} ...", flush=True)
            render(path)


if __name__ == "__main__":
    if any(not re.fullmatch(r"\d\d", name) for name in sys.argv[1:]):
        raise SystemExit(__doc__)
    main(sys.argv[1:])
