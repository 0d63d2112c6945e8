"""Three models whose way to the kernel is not a straight one."""

import torch
from onnxscript import FLOAT
from onnxscript import opset20 as op
from torch import nn


class Chooses(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda y: y.relu(), lambda y: -y, (x,))


class Loops(nn.Module):
    def forward(self, x):
        for _ in range(3):
            x = torch.tanh(x)
        return x


@torch.library.custom_op("tracing::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@twice.register_fake
def _(x):
    return torch.empty_like(x)


class Custom(nn.Module):
    def forward(self, x):
        return torch.ops.tracing.twice(x)


def translated(x: FLOAT) -> FLOAT:
    return op.Add(x, x)
