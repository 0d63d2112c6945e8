"""What a call, a lesson and the set-up cost beside the bare way: time, memory, what has no line.

Each public function is a figure of `python benchmarks`.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import models
import nbformat
import onnx
import torch
from side_by_side import Pair, peak_of, quiet, run, take_turns, timed
from torch import nn
from torch.onnx.verification import verify_onnx_program

import onnx_workbench as ow
import workbench
from onnx_workbench.divergence import CHUNK
from onnx_workbench.formatting import seconds, size, table
from onnx_workbench.graph import exporter
from onnx_workbench.lineage.kernels import BY_NEIGHBOR


def imports() -> Iterator[Pair]:
    ours, bare = (partial(run, sys.executable, "-c", c) for c in ("import onnx_workbench", ""))
    yield take_turns("import onnx_workbench / bare python", ours, bare, turns=15)


def export() -> Iterator[Pair]:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    small = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)).eval()
    cases = {"small CNN": models.Case(small, (torch.ones(1, 1, 8, 8),), {})}
    cases |= {name: models.case(name) for name in ("residual CNN", "BERT-like")}
    for name, (model, inputs, _) in cases.items():
        with tempfile.TemporaryDirectory() as folder, quiet():
            ours, bare = Path(folder) / "ours.onnx", Path(folder) / "bare.onnx"
            pair = take_turns(
                f"capture + export / torch.onnx.export, {name}",
                lambda model=model, x=inputs, f=ours: ow.export(ow.capture(model, x), f=f),
                partial(torch.onnx.export, model, inputs, bare, dynamo=True),
                turns=5,
            )
        yield pair  # quiet() would swallow the row


def lines() -> Iterator[str]:
    header = "model|nodes|kernels|with a line|joined, no neighbor|kernels / run"
    header += "|as the profiler counts|unprofiled run|profile() beyond its runs"
    cases = {name: models.case(name) for name in models.MAKERS}
    cases["500 nodes"] = models.Case(models.Deep(500).eval(), (torch.ones(8),), {})
    rows = [_joined(name, case) for name, case in cases.items()]
    yield table(rows, header.split("|"), right=range(1, 9))


def _joined(name: str, case: models.Case, budget: float = 2.0) -> tuple[str, ...]:
    found = []
    with quiet():
        artifact = ow.export(case.model, case.inputs, dynamic_shapes=case.dynamic or None)
        spent = timed(lambda: found.append(ow.profile(artifact, case.inputs, seconds=budget)))
    spots = found[0]
    unexplained = sum(not origin.why for origin in spots.lineage.without)
    return (
        name,
        f"{len(spots.lineage.origins)}{f' ({unexplained} unexplained)' if unexplained else ''}",
        str(len(spots.recording.kernels)),
        f"{1 - spots.unattributed:.1%}",
        f"{1 - spots.rules[BY_NEIGHBOR] - spots.rules['unattributed']:.1%}",
        f"{spots.covered:.1%}",
        f"{spots.counted:.1%}",
        seconds(spots.whole),
        seconds(spent - budget) if spent > budget else "none",
    )


def trace(turns: int = 3) -> Iterator[Pair]:
    for count in (1_000, 5_000, 20_000):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "deep.onnx"
            onnx.save(models.chain(count), file)
            fresh = [ow.load(file) for _ in range(1 + turns)]
            name, bare = f"trace of {count:,} nodes / onnx.load", partial(onnx.load, file)
            yield take_turns(name, lambda fresh=fresh: ow.trace(fresh.pop()), bare, turns)


def audit() -> Iterator[str]:
    warnings.simplefilter("ignore")
    sound = {name: models.case(name) for name in models.MAKERS}
    layers = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 10)).eval()
    sound["MLP"] = models.Case(layers, (torch.randn(4, 64),), {"input": {0: "batch"}})
    up = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 2, 2, 2)).eval()
    sound["upsampling"] = models.Case(up, (torch.randn(2, 3, 32, 32),), {"input": {0: "batch"}})
    wrong, timed_only = 0, {"latency", "hot lines"}
    for name, (model, x, dynamic) in sound.items():
        faults = ow.audit(model, x, dynamic_shapes=dynamic or None, skip=timed_only).faults
        said = "; ".join(f"{f.stage}: {f.sentence} {f.line or ''}" for f in faults)
        wrong += bool(said)
        yield f"sound {name}: {said or 'nothing to fix'}"
    yield f"sound models accused: {wrong} of {len(sound)}"
    audits = []
    spent = timed(lambda: audits.append(ow.audit(models.Deep(500).eval(), torch.ones(8))))
    with tempfile.TemporaryDirectory() as folder:
        page = audits[0].save(Path(folder) / "report.html").stat().st_size
    yield f"audit of 500 nodes, every stage: {seconds(spent)}, a page of {size(page)}"


NODES, WIDTH = 200, 4_000_000
"""A value of the large model takes 16 MB."""
LARGE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import models, torch, onnx_workbench as ow
model, x = models.Deep({NODES}, growing=True).eval(), torch.ones({WIDTH})
ow.verify(model, ow.export(model, x), x, values=%s)
"""


def values() -> Iterator[Pair | str]:
    model, x = models.Deep(NODES, growing=True).eval(), torch.ones(8)
    found = []
    with quiet():
        graph = ow.capture(model, x)
        file, program = ow.export(graph), exporter.translate(graph.program)
        ours = timed(lambda: found.append(len(ow.verify(model, file, x, values=True).steps)))
    logging.getLogger("torch").setLevel(logging.ERROR)  # it logs each value that differs
    print("torch.onnx.verification, one session a value ...", file=sys.stderr)
    bare = partial(verify_onnx_program, program, (x,), compare_intermediates=True)
    beside = timed(lambda: found.append(len(bare())))
    yield Pair("verify(values=True) / verify_onnx_program", [ours], [beside])
    yield f"values compared: {found[0]}, beside {found[1]}"
    with_values, without = (peak_of([sys.executable, "-c", LARGE % way]) for way in (True, False))
    more, every = size(max(0, with_values - without)), size(NODES * WIDTH * 4)
    yield f"values=True adds {more} for more than {every} of values; chunks: 2 x {size(CHUNK)}"


LAYERS, BREADTH = 28, 3072
WEIGHTS = LAYERS * (BREADTH + 1) * BREADTH * 4
"""Bytes: 1.06 GB."""
HEAVY = f"""
import tempfile, torch
from torch import nn
import onnx_workbench as ow
import onnxruntime, torch.onnx
model = nn.Sequential(*[nn.Linear({BREADTH}, {BREADTH}) for _ in range({LAYERS})]).eval()
x = torch.randn(2, {BREADTH})
folder = tempfile.TemporaryDirectory()
path = folder.name + "/model.onnx"
"""
BARE = "torch.onnx.export(model, (x,), path, dynamo=True"
DOORS = {
    "torch.onnx.export": f"{BARE})",
    "torch.onnx.export, one file": f"{BARE}, external_data=False)",
    "export": "ow.export(model, x, path)",
    "verify(values=True)": "ow.verify(model, ow.export(model, x, path), x, values=True)",
    "audit": "ow.audit(model, x)",
}


def memory() -> Iterator[str]:
    """Each peak is without that of the model alone, children included."""
    alone = peak_of([sys.executable, "-c", HEAVY])
    bare = 0.0
    for name, call in DOORS.items():
        ratio = (peak_of([sys.executable, "-c", HEAVY + call]) - alone) / WEIGHTS
        bare = bare or ratio
        yield f"{name:28} {ratio:.2f} x {WEIGHTS / 1e9:.2f} GB of weights, {ratio / bare:.2f}x"


ROOT = Path(__file__).parents[1]


def notebooks() -> Iterator[Pair]:
    """A Binder machine has 2 GB for all open lessons."""
    with tempfile.TemporaryDirectory() as folder:
        lessons = shutil.copytree(ROOT / "notebooks", Path(folder, "notebooks"))
        bare = lessons / "bare.ipynb"
        cells = [nbformat.v4.new_code_cell("import torch, onnxruntime")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), bare)
        _executed(bare)  # fills the caches of the file system
        for lesson in sorted(lessons.glob("[0-9]*.ipynb")):
            (other_wall, other_peak), (wall, peak) = _executed(bare), _executed(lesson)
            yield Pair(f"{lesson.stem}, wall time / bare notebook", [wall], [other_wall])
            yield Pair(f"{lesson.stem}, peak memory / same", [peak], [other_peak], unit="bytes")


def _executed(notebook: Path) -> tuple[float, int]:
    """Seconds, and the peak of bytes of the kernel and its children, with shared pages counted for
    each process."""
    command = [sys.executable, "-m", "nbconvert", "--to=notebook", "--execute", "--stdout"]
    options = ["--ExecutePreprocessor.kernel_name=python3", "--log-level=ERROR", str(notebook)]
    settings = {"TQDM_DISABLE": "1", "ONNX_WORKBENCH_HOME": str(notebook.parent / "home")}
    peaks: list[int] = []
    watched = partial(peak_of, [*command, *options], {**os.environ, **settings}, parent=False)
    return timed(lambda: peaks.append(watched())), peaks[0]


def set_up() -> Iterator[Pair]:
    """Without pip's cache, so that each install downloads as much as the first."""
    left_out = shutil.ignore_patterns(".*", "build", "__pycache__", "*.egg-info")
    with tempfile.TemporaryDirectory() as folder:
        spent = {"pip install of the pins": timed(partial(_by_hand, Path(folder, "bare")))}
        sizes = {"pip install of the pins": _disk(Path(folder, "bare"))}
        for verb in ("test", "lab"):
            copy = shutil.copytree(ROOT, Path(folder, verb), ignore=left_out)
            start = partial(run, sys.executable, str(copy / "workbench.py"), verb, "--version")
            spent[verb], sizes[verb] = timed(start), _disk(copy / ".venv")
    for verb, other in pairwise(("lab", "test", "pip install of the pins")):
        yield Pair(f"set-up of {verb}, wall time / {other}", [spent[verb]], [spent[other]])
        yield Pair(f"set-up of {verb}, disk / {other}", [sizes[verb]], [sizes[other]], "bytes")


def _by_hand(folder: Path) -> None:
    run(sys.executable, "-m", "venv", str(folder))
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pins = ["-r", str(ROOT / "constraints.txt"), "--extra-index-url", f"{workbench.INDEX}/cpu"]
    run(str(python), "-m", "pip", "install", "--quiet", *pins)


def _disk(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())
