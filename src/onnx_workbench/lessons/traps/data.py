"""Python that needs to know what a tensor holds, and operators that ONNX has no word for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .trap import trap

FOUR = torch.tensor([-2.0, 3.0, -1.0, 4.0])
VALUE = "Python needs a value that the graph only has when it runs"


@trap("if on a tensor", "capture", VALUE, "pytorch/pytorch/issues/143192", FOUR)
class IfTensor(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # trap
            return x + 1
        return x - 1

    class Mended(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x.sum() > 0, x + 1, x - 1)


@trap("item()", "capture", VALUE, "pytorch/pytorch/issues/116336", FOUR, torch.tensor(3))
class Repeat(nn.Module):
    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        for _ in range(int(times.item())):  # trap
            x = x * 2
        return x

    class Mended(nn.Module):
        def forward(self, x: Tensor, times: Tensor) -> Tensor:
            return x * torch.pow(2.0, times)


@trap("nonzero() counted", "capture", VALUE, "pytorch/pytorch/issues/157355", FOUR)
class CountFound(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        found = torch.nonzero(x > 0)[:, 0]
        if len(found) == 0:  # trap
            return x.new_zeros(())
        return x[found].sum()

    class Mended(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[torch.nonzero(x > 0)[:, 0]].sum()


NUMPY = "The model leaves torch for NumPy"


@trap("NumPy inside", "capture", NUMPY, "pytorch/pytorch/issues/132559", FOUR)
class ByNumpy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.interp(x.numpy(), (0, 1), (0, 2))).float()  # trap

    class Mended(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2


@torch.library.custom_op("onnx_workbench_zoo::unfaked", mutates_args=())
def unfaked(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


NO_FAKE = "A custom operator does not say what shape and dtype it makes"


@trap("custom op without a fake", "capture", NO_FAKE, "pytorch/pytorch/issues/141545", FOUR)
class Unfaked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.onnx_workbench_zoo.unfaked(x)  # trap

    class Mended(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(x)


NO_WORD = "The operator aten.cummax has no translation into ONNX"


@trap("no translation", "export", NO_WORD, "pytorch/pytorch/issues/113444", FOUR)
class RunningMax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cummax(x, 0).values  # trap

    class Mended(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            later = torch.ones(len(x), len(x)).triu(1) > 0
            return x.expand(len(x), -1).masked_fill(later, -torch.inf).amax(1)
