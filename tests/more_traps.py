"""Traps that the lessons do not teach: the audit names these too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onnx_workbench.lessons import traps as taught
from onnx_workbench.lessons.traps import FOUR, IMAGE, LENGTH, REJECTED, VALUE, WORDS, Trap

UNTAUGHT: list[Trap] = []
trap = partial(taught.trap, traps=UNTAUGHT)


def twin(forward: Callable[..., Any]) -> type[nn.Module]:
    """A module with this function as its ``forward``."""
    return type("Fixed", (nn.Module,), {"forward": forward})


# Data


@trap("item()", "OW101", VALUE, "pytorch/pytorch/issues/116336", FOUR, torch.tensor(3))
class Repeat(nn.Module):
    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        for _ in range(int(times.item())):  # trap
            x = x * 2
        return x

    Fixed = twin(lambda self, x, times: x * torch.pow(2.0, times))


@trap("nonzero() counted", "OW101", VALUE, "pytorch/pytorch/issues/157355", FOUR)
class CountFound(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        found = torch.nonzero(x > 0)[:, 0]
        if len(found) == 0:  # trap
            return x.new_zeros(())
        return x[found].sum()

    Fixed = twin(lambda self, x: x[torch.nonzero(x > 0)[:, 0]].sum())


NUMPY = "The model leaves torch for NumPy"


@trap("NumPy inside", "OW104", NUMPY, "pytorch/pytorch/issues/132559", FOUR)
class ByNumpy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.interp(x.numpy(), (0, 1), (0, 2))).float()  # trap

    Fixed = twin(lambda self, x: x * 2)


# Shapes

FIXED, THREAD = "x.shape[1] is refused by capture", "roboflow/rf-detr/pull/871"


@trap("loop over a shape", "OW301", FIXED, THREAD, WORDS, dynamic_shapes=LENGTH)
class StepByStep(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):  # trap
            state = state + x[:, step]
        return state

    Fixed = twin(lambda self, x: x.sum(1))


# Numbers

RANDOM, DIFFERS = "The model is random", "result differs"
THREE, INDEX = torch.tensor([4.0, 2.0, 6.0]), torch.tensor([0, 1, 1])


@trap(
    *("noise drawn inside", "OW402", RANDOM, "pytorch/pytorch/issues/156811", IMAGE),
    fixed=(IMAGE, torch.zeros(9, 9)),
)
class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)  # trap

    Fixed = twin(lambda self, x, noise: x + noise)


@trap("antialiased bicubic", "OW401", DIFFERS, "pytorch/pytorch/issues/157220", IMAGE)
class Bicubic(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=1.7, mode="bicubic", antialias=True)  # trap

    Fixed = twin(lambda self, x: F.interpolate(x, scale_factor=1.7, mode="bicubic"))


@trap("scattered mean", "OW401", DIFFERS, "pytorch/pytorch/issues/147617", THREE, INDEX)
class ScatteredMean(nn.Module):
    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return torch.ones(2).scatter_reduce(0, index, x, "mean", include_self=False)  # trap

    class Fixed(nn.Module):
        def forward(self, x: Tensor, index: Tensor) -> Tensor:
            total = x.new_zeros(2).scatter_add(0, index, x)
            return total / x.new_zeros(2).scatter_add(0, index, torch.ones_like(x))


@trap("bfloat16 without a kernel", "OW204", REJECTED, "microsoft/onnxruntime/issues/26311", IMAGE)
class Brain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.bfloat16()
        x = x @ x  # trap
        return x.float()

    Fixed = twin(lambda self, x: x @ x)


# Results

STATE, THREAD = "The model keeps state in its buffer 'seen'", "pytorch/pytorch/issues/60828"


@trap("state in a buffer", "OW111", STATE, THREAD, FOUR, fixed=(FOUR, torch.zeros(1)))
class KeepsState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(1)  # trap
        return x + self.seen

    Fixed = twin(lambda self, x, seen: (x + seen + 1, seen + 1))


UNUSED, THREAD = "The input 'mask' is unused", "pytorch/pytorch/issues/64480"


@trap("unused input", "OW112", UNUSED, THREAD, FOUR, torch.ones(4))
class Unused(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # trap
        return x * 2

    Fixed = twin(lambda self, x, mask: x * 2 * mask)


LOST = "The file leaves out what is no tensor in the result: None, 7"


@trap("None in the result", "OW114", LOST, "pytorch/pytorch/issues/160150", FOUR)
class Nested(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Any]:  # trap
        return {"double": x * 2, "rest": [x + 1, None, 7]}

    Fixed = twin(lambda self, x: (x * 2, x + 1))


@dataclass
class Result:
    double: Tensor


APART = "An argument or a result is of a class that torch cannot flatten"


@trap("dataclass as the result", "OW105", APART, "pytorch/pytorch/issues/98251", FOUR)
class ByDataclass(nn.Module):
    def forward(self, x: Tensor) -> Result:  # trap
        return Result(x * 2)

    Fixed = twin(lambda self, x: {"double": x * 2})


SHAPED = "result differs: a is complex64[4], b is float32[4, 2]"


@trap("complex result", "OW401", SHAPED, "pytorch/pytorch/issues/126972", FOUR)
class Complex(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.polar(x.abs(), x)  # trap

    Fixed = twin(lambda self, x: torch.view_as_real(torch.polar(x.abs(), x)))
