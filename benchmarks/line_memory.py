"""The peak of activations that profile().memory computes, beside the growth of a process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import models
import torch
from side_by_side import quiet
from torch import Tensor, nn

import onnx_workbench as ow
from onnx_workbench.formatting import size, table

BATCHES = (1, 8, 32)
TURNS = 3
HEADER = ("model", "batch", "computed", "arena", "measured", "off", "arena off", "peak at")

CHILD = """
import ctypes, gc, pathlib, re, sys
import numpy as np
import onnxruntime
from onnx_workbench.ort import Options

model, *shape = sys.argv[1:]

def session():
    return onnxruntime.InferenceSession(
        model, Options().for_session(1), providers=["CPUExecutionProvider"]
    )

def resident(which):
    return int(re.search(which + r":\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])

x = np.random.default_rng(0).standard_normal([int(n) for n in shape], dtype=np.float32)
feeds = {session().get_inputs()[0].name: x}
session().run(None, {name: x[:1] for name in feeds})  # the code of the kernels is in memory now
loaded = session()
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
before = resident("VmRSS")
result = loaded.run(None, feeds)
print(1024 * (resident("VmHWM") - before))
"""


class UNet(nn.Module):
    """Two levels down, two up, with a path across on each."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        wide, wider = 2 * width, 4 * width
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.second = nn.Conv2d(width, wide, 3, padding=1)
        self.deepest = nn.Conv2d(wide, wider, 3, padding=1)
        self.up2, self.up1 = nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2)
        self.merge2 = nn.Conv2d(wider + wide, wide, 3, padding=1)
        self.merge1 = nn.Conv2d(wide + width, width, 3, padding=1)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.first(x))
        second = torch.relu(self.second(nn.functional.max_pool2d(first, 2)))
        deepest = torch.relu(self.deepest(nn.functional.max_pool2d(second, 2)))
        x = torch.cat([self.up2(deepest), second], dim=1)
        x = torch.relu(self.merge2(x))
        x = torch.cat([self.up1(x), first], dim=1)
        x = torch.relu(self.merge1(x))
        return torch.sigmoid(self.head(x))


MODELS = {
    "residual CNN": (lambda: models.ResidualCNN(width=16), (3, 256, 256)),
    "encoder": (lambda: models.Layer(128, 8), (512, 128)),
    "U-Net": (UNet, (3, 256, 256)),
}


def report() -> Iterator[str]:
    """Linux only: other systems do not report the peak memory of a process."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            _row(name, Path(folder) / f"{name}.onnx", batch) for name in MODELS for batch in BATCHES
        ]
    yield table(rows, HEADER, right=range(1, 7))
    yield "arena: what ONNX Runtime's allocator counts at most. Not computed: scratch memory inside"
    yield "kernels, blocks that the allocator uses in part or keeps, outputs copied for NumPy"


def _row(name: str, file: Path, batch: int) -> tuple[str, ...]:
    make, shape = MODELS[name]
    torch.manual_seed(0)
    with quiet():
        if not file.exists():
            model = make().eval().requires_grad_(False)
            batched = ({0: "batch"},)
            ow.export(model, torch.randn(2, *shape), file, dynamic_shapes=batched)
        x = torch.randn(batch, *shape)
        memory = ow.profile(ow.load(file), x, seconds=0.01).memory
    command = [sys.executable, "-c", CHILD, str(file), str(batch), *map(str, shape)]
    grown = [int(subprocess.check_output(command)) for _ in range(TURNS)]
    measured = int(statistics.median(grown))
    arena = memory.footprint.arena
    sizes = (size(n) for n in (memory.peak, arena, measured))
    off = (f"{100 * (known / measured - 1):+.0f} %" for known in (memory.peak, arena))
    return (name, str(batch), *sizes, *off, memory.line.place if memory.line else "no line")
