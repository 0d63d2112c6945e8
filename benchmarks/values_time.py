"""Every value of a model against PyTorch's, beside torch's own way to do so."""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import models
import torch
from memory import peak_of
from torch.onnx.verification import verify_onnx_program

import onnx_workbench as ow
from onnx_workbench.divergence import CHUNK
from onnx_workbench.formatting import seconds, size, table
from onnx_workbench.graph import exporter

NODES, WIDTH = 200, 4_000_000
"""A value of the large model takes 16 MB."""


def report() -> Iterator[str]:
    """One model of 200 nodes, both ways in one run, and how many values each compared; and the
    memory that it takes where the values are large."""
    case = models.Case(models.Deep(NODES).eval(), (torch.ones(8),), {})
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        graph = ow.capture(case.model, case.inputs)
        file = ow.export(graph, f=Path(folder) / "model.onnx")
        program = exporter.translate(graph.program)
        start = perf_counter()
        found = ow.verify(case.model, file, case.inputs, values=True)
        ours = perf_counter() - start
        logging.getLogger("torch").setLevel(logging.ERROR)  # it logs each value that differs
        print("torch.onnx.verification, one session a value ...", file=sys.stderr)
        start = perf_counter()
        infos = verify_onnx_program(program, case.inputs, compare_intermediates=True)
        beside = perf_counter() - start
    rows = [
        ("verify(values=True)", str(len(found.steps)), seconds(ours)),
        ("verify_onnx_program(compare_intermediates=True)", str(len(infos)), seconds(beside)),
        ("ratio", f"{len(found.steps) / max(1, len(infos)):.2f}x", f"{beside / ours:.0f}x"),
    ]
    yield table(rows, (f"{NODES} nodes", "values", "time"), right=(1, 2))
    yield from _memory()


def _memory() -> Iterator[str]:
    """Each in a process of its own, since memory that was freed stays with a process."""
    peaks = {}
    for way in ("export", "verify", "values"):
        start = perf_counter()
        peaks[way] = peak_of([sys.executable, __file__, way])
        yield f"{way}: {seconds(perf_counter() - start)}, peak memory {size(peaks[way])}"
    more, values = peaks["values"] - peaks["verify"], size(NODES * WIDTH * 4)
    yield f"values=True adds {size(more)} for more than {values}; chunks: 2 x {size(CHUNK)}"


def _run(way: str) -> None:
    """``values`` also compares what is inside, ``export`` compares nothing."""
    model, x = models.Deep(NODES).eval(), torch.ones(WIDTH)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        file = ow.export(model, x, Path(folder) / "model.onnx")
        if way != "export":
            print(ow.verify(model, file, x, values=way == "values"))


if __name__ == "__main__":
    _run(sys.argv[1])
