"""Small models, each with one way in which PyTorch -> ONNX goes wrong in practice.

Each trap names a thread in which somebody reported it, what :func:`~onnx_workbench.audit` must say
about it and on which line, and has a fixed twin that must pass. If a torch release fixes one, or
breaks it in another way, ``tests/test_traps.py`` fails. The tests have more traps.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from ..artifact import export
from ..report.codes import CODES


class TrapCall(NamedTuple):
    """A model and how it is called: ``audit(call.model, call.args, dynamic_shapes=...)``."""

    model: Any
    args: tuple
    dynamic_shapes: Mapping[str, Any] | None = None
    opset_version: int | None = None


@dataclass(frozen=True, repr=False)
class Trap:
    """``broken`` and ``fixed`` make a fresh call each.

    The audit's finding about ``broken`` must have this ``code``, a sentence that begins with
    ``sentence``, and a line at ``place``, which is None if no line is to blame. ``thread`` is a
    report of the problem.
    """

    name: str
    code: str
    sentence: str
    thread: str
    broken: Callable[[], TrapCall]
    fixed: Callable[[], TrapCall]
    place: str | None

    @property
    def stage(self) -> str:
        return CODES[self.code].stage

    def __repr__(self) -> str:
        return f"{self.name}: {self.sentence} ({self.place or 'no line is to blame'})"


TRAPS: list[Trap] = []


def trap(
    name: str,
    code: str,
    sentence: str,
    thread: str,
    *args: Any,
    fixed: tuple | None = None,
    traps: list[Trap] = TRAPS,
    **call: Any,
) -> Callable[[type], type]:
    """Add a class to ``traps``; its twin is the class ``Fixed`` inside it.

    The line that the audit must name ends in ``# trap``. ``args`` and ``call`` are the broken call;
    ``fixed`` are the twin's arguments if they differ. The twin uses the default opset.
    """

    def add(cls: Any) -> Any:
        source, first = inspect.getsourcelines(cls)
        marked = [number for number, line in enumerate(source, first) if line.endswith("# trap\n")]
        place = f"{Path(inspect.getfile(cls)).name}:{marked[0]}" if marked else None
        broken = partial(_call, cls, args, **call)
        twin = partial(_call, cls.Fixed, fixed or args, call.get("dynamic_shapes"))
        traps.append(
            Trap(name, code, sentence, f"https://github.com/{thread}", broken, twin, place)
        )
        return cls

    return add


def _call(make: Callable[[], Any], args: tuple, *rest: Any, **call: Any) -> TrapCall:
    model = make()
    if isinstance(model, nn.Module) and not hasattr(model, "left_training"):
        model.eval()
    return TrapCall(model, args, *rest, **call)


FOUR = torch.tensor([-2.0, 3.0, -1.0, 4.0])
WORDS = torch.linspace(-1, 1, 2 * 16 * 8).reshape(2, 16, 8)
IMAGE = torch.linspace(-1, 1, 81).sin().reshape(1, 1, 9, 9)
LENGTH = {"x": {1: "length"}}


# ---------------------------------------------------------------- data: Python needs to know it

VALUE = "Python needs a value that the graph only has when it runs"


@trap("if on a tensor", "OW101", VALUE, "pytorch/pytorch/issues/143192", FOUR)
class IfTensor(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # trap
            return x + 1
        return x - 1

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x.sum() > 0, x + 1, x - 1)


@torch.library.custom_op("onnx_workbench_traps::unfaked", mutates_args=())
def unfaked(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


NO_FAKE = "A custom operator has no fake implementation"


@trap("custom op without a fake", "OW103", NO_FAKE, "pytorch/pytorch/issues/141545", FOUR)
class Unfaked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.onnx_workbench_traps.unfaked(x)  # trap

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(x)


NO_WORD = "The operator aten.cummax has no translation into ONNX"


@trap("no translation", "OW201", NO_WORD, "pytorch/pytorch/issues/113444", FOUR)
class RunningMax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cummax(x, 0).values  # trap

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            later = torch.ones(len(x), len(x)).triu(1) > 0
            return x.expand(len(x), -1).masked_fill(later, -torch.inf).amax(1)


# ---------------------------------------------------------------- shapes that do not stay dynamic


FIXED, SILENT = "x.shape[1] is refused by capture", "x.shape[1] is silently specialized"
INT, BOUND = "x.shape[0] is refused by capture", "x.shape[1] is kept within [9, ...]"
AUTO = {"x": {1: Dim.AUTO}}


@trap(
    *("AUTO advertises and breaks", "OW302", SILENT, "pytorch/pytorch/pull/143158", WORDS),
    dynamic_shapes=AUTO,
)
@trap(
    *("position table", "OW301", FIXED, "pytorch/pytorch/issues/140011", WORDS),
    dynamic_shapes=LENGTH,
)
class PositionTable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table  # trap

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.arange(x.shape[1], dtype=x.dtype)[:, None].sin()


@trap(
    *("int() of a shape", "OW301", INT, "roboflow/rf-detr/issues/949", WORDS),
    dynamic_shapes={"x": {0: "batch"}},
)
class IntBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        rows = int(x.shape[0])  # trap
        return x.reshape(rows, -1)

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(x.shape[0], -1)


@trap(
    *("branch on a size", "OW303", BOUND, "pytorch/tutorials/pull/3214", WORDS),
    dynamic_shapes=LENGTH,
)
class BranchOnSize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 8:  # trap
            return x * 2
        return x + 1

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(torch.tensor(x.shape[1]) > 8, x * 2, x + 1)


# ---------------------------------------------------------------- numbers, and missing kernels

TRAINING, RANDOM = "The model is in training mode", "The model is random"
REJECTED = "ONNX Runtime rejects the exporter's file"


class Drops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training)


@trap("training mode", "OW001", TRAINING, "microsoft/onnxruntime/issues/26584", IMAGE)
class LeftTraining(Drops):
    left_training = True
    Fixed = Drops


@trap("dropout stays on", "OW402", RANDOM, "pytorch/pytorch/issues/103681", IMAGE)
class AlwaysDrops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5)  # trap

    Fixed = Drops


@trap("float64 without a kernel", "OW204", REJECTED, "microsoft/onnxruntime/issues/19710", IMAGE)
class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.double()
        x = torch.erf(x)  # trap
        return x.float()

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.erf(x)


# ---------------------------------------------------------------- results that are lost or frozen

WRITES, BAKED = "The model writes into its input 'x'", "The argument 'scale' is baked in as 3"


@trap("in place on an input", "OW110", WRITES, "pytorch/pytorch/issues/112429", FOUR)
class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x += 1  # trap
        return x * 2

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + 1) * 2


@trap(
    *("a number as argument", "OW113", BAKED, "pytorch/pytorch/issues/190199", FOUR, 3),
    fixed=(FOUR, torch.tensor(3)),
)
class Scaled(nn.Module):
    def forward(self, x: Tensor, scale: Any) -> Tensor:  # trap
        return x * scale

    class Fixed(nn.Module):
        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return x * scale


# ---------------------------------------------------------------- files

TWICE = "The file holds 15.4 kB of weights, the model 7.68 kB"
BESIDE = "Linear.onnx cannot be loaded without Linear.onnx.data"
OPSET = "You asked for opset 26 and the exporter wrote opset 18"


# Larger tables are left alone since onnxscript folds constants up to 8 kB only.
@trap("tied weights", "OW701", TWICE, "huggingface/optimum/pull/1326", torch.tensor([[1, 2, 3]]))
class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(60, 32), nn.Linear(32, 60, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.words(tokens))  # trap

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.ones(60, 32))

        def forward(self, tokens: Tensor) -> Tensor:
            words = F.embedding(tokens.flatten(), self.table)
            return (self.table @ words.T).T.unflatten(0, tokens.shape)


ROW = torch.ones(1, 64)


@trap("missing data file", "OW601", BESIDE, "microsoft/onnxruntime/issues/19739", ROW)
class WeightsBeside:
    def __new__(cls) -> Any:
        return export(nn.Linear(64, 64).eval(), ROW, external_data=True)

    Fixed = partial(export, nn.Linear(64, 64).eval(), ROW)


@trap(
    *("opset out of reach", "OW202", OPSET, "pytorch/pytorch/pull/161056", torch.ones(3)),
    opset_version=26,
)
class Newest(nn.GELU):
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2
