"""Every value of a model against PyTorch's, beside torch's own way to do so."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import models
import torch
from side_by_side import Pair, peak_of, quiet, timed
from torch.onnx.verification import verify_onnx_program

import onnx_workbench as ow
from onnx_workbench.divergence import CHUNK
from onnx_workbench.formatting import size
from onnx_workbench.graph import exporter

NODES, WIDTH = 200, 4_000_000
"""A value of the large model takes 16 MB."""

LARGE = f"""
import models, torch, onnx_workbench as ow
model, x = models.Deep({NODES}).eval(), torch.ones({WIDTH})
ow.verify(model, ow.export(model, x), x, values=%s)
"""


def report() -> Iterator[Pair | str]:
    """One model of 200 nodes, both ways in one run; and the memory where the values are large."""
    model, x = models.Deep(NODES).eval(), torch.ones(8)
    found = []
    with quiet():
        graph = ow.capture(model, x)
        file, program = ow.export(graph), exporter.translate(graph.program)
        ours = timed(lambda: found.append(len(ow.verify(model, file, x, values=True).steps)))
    logging.getLogger("torch").setLevel(logging.ERROR)  # it logs each value that differs
    print("torch.onnx.verification, one session a value ...", file=sys.stderr)

    def bare() -> None:
        found.append(len(verify_onnx_program(program, (x,), compare_intermediates=True)))

    yield Pair("verify(values=True) / verify_onnx_program", [ours], [timed(bare)])
    yield f"values compared: {found[0]}, beside {found[1]}"
    with_values, without = (peak_of([sys.executable, "-c", LARGE % way]) for way in (True, False))
    more, values = size(max(0, with_values - without)), size(NODES * WIDTH * 4)
    yield f"values=True adds {more} for more than {values} of values; chunks: 2 x {size(CHUNK)}"
