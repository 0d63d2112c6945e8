"""Dimensions that do not stay dynamic."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim

from .trap import trap

WORDS = torch.linspace(-1, 1, 2 * 16 * 8).reshape(2, 16, 8)
LENGTH = {"x": {1: "length"}}
AUTO = {"x": {1: Dim.AUTO}}


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(16, 8))


class Computed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.arange(x.shape[1], dtype=x.dtype)[:, None].sin()


FIXED, THREAD = "x.shape[1] is refused by capture", "pytorch/pytorch/issues/140011"


@trap("position table", "contract", FIXED, THREAD, WORDS, dynamic_shapes=LENGTH)
class PositionTable(Positions):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.table  # trap

    class Mended(Computed):
        pass


SILENT, THREAD = "x.shape[1] is static in silence", "pytorch/pytorch/pull/143158"


@trap("AUTO advertises and breaks", "contract", SILENT, THREAD, WORDS, dynamic_shapes=AUTO)
class AutoTable(Positions):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.table  # trap

    class Mended(Computed):
        pass


@trap(
    "loop over a shape",
    "contract",
    FIXED,
    "roboflow/rf-detr/pull/871",
    WORDS,
    dynamic_shapes=LENGTH,
)
class StepByStep(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):  # trap
            state = state + x[:, step]
        return state

    class Mended(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(1)


INT, THREAD = "x.shape[0] is refused by capture", "roboflow/rf-detr/issues/949"


@trap("int() of a shape", "contract", INT, THREAD, WORDS, dynamic_shapes={"x": {0: "batch"}})
class IntBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        rows = int(x.shape[0])  # trap
        return x.reshape(rows, -1)

    class Mended(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(x.shape[0], -1)


BOUND, THREAD = "x.shape[1] is kept within [9, ...]", "pytorch/tutorials/pull/3214"


@trap("branch on a size", "contract", BOUND, THREAD, WORDS, dynamic_shapes=LENGTH)
class BranchOnSize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 8:  # trap
            return x * 2
        return x + 1

    class Mended(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(torch.tensor(x.shape[1]) > 8, x * 2, x + 1)
