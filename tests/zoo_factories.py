"""What the terminal command is pointed at."""

import torch
from torch import nn


class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([31337.25, 2.0]))

    def forward(self, x):
        return x * self.weight


class Branching(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x + 1
        return x


def sound():
    return Doubled().eval(), (torch.ones(3, 2),), {"dynamic": {"x": {0: "batch"}}}


def broken():
    return Branching().eval(), (torch.ones(3),)


def odd():
    return "no model"
