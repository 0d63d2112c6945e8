"""Files that load, run, and give other numbers, and kernels that are missing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .trap import trap

IMAGE = torch.linspace(-1, 1, 81).sin().reshape(1, 1, 9, 9)
RANDOM, DIFFERS = "The model is random", "result differs"


class Drops(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x)


TRAINING, THREAD = "The model is in training mode", "microsoft/onnxruntime/issues/26584"


@trap("training mode", "model", TRAINING, THREAD, IMAGE)
class LeftTraining(Drops):
    left_training = True

    class Mended(Drops):
        pass


@trap("dropout stays on", "numbers", RANDOM, "pytorch/pytorch/issues/103681", IMAGE)
class AlwaysDrops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5)  # trap

    class Mended(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.5, self.training)


NOISE = torch.zeros(9, 9)


@trap(
    *("noise drawn inside", "numbers", RANDOM, "pytorch/pytorch/issues/156811", IMAGE),
    mended=(IMAGE, NOISE),
)
class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)  # trap

    class Mended(nn.Module):
        def forward(self, x: Tensor, noise: Tensor) -> Tensor:
            return x + noise


@trap("antialiased bicubic", "numbers", DIFFERS, "pytorch/pytorch/issues/157220", IMAGE)
class Bicubic(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=1.7, mode="bicubic", antialias=True)  # trap

    class Mended(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(x, scale_factor=1.7, mode="bicubic")


THREE, INDEX = torch.tensor([4.0, 2.0, 6.0]), torch.tensor([0, 1, 1])


@trap("scattered mean", "numbers", DIFFERS, "pytorch/pytorch/issues/147617", THREE, INDEX)
class ScatteredMean(nn.Module):
    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return torch.ones(2).scatter_reduce(0, index, x, "mean", include_self=False)  # trap

    class Mended(nn.Module):
        def forward(self, x: Tensor, index: Tensor) -> Tensor:
            total = x.new_zeros(2).scatter_add(0, index, x)
            return total / x.new_zeros(2).scatter_add(0, index, torch.ones_like(x))


REJECTED = "ONNX Runtime rejects what the exporter wrote"


@trap("float64 without a kernel", "export", REJECTED, "microsoft/onnxruntime/issues/19710", IMAGE)
class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.double()
        x = torch.erf(x)  # trap
        return x.float()

    class Mended(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.erf(x)


@trap("bfloat16 without a kernel", "export", REJECTED, "microsoft/onnxruntime/issues/26311", IMAGE)
class Brain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.bfloat16()
        x = x @ x  # trap
        return x.float()

    class Mended(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ x
