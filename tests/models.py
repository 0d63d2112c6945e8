"""Small models that the tests share, each with one habit."""

import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from onnx_workbench import load


def relu_file(path, *shape):
    """A ReLU as a file, in less time than an export takes."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[opset]), path)
    return load(path)


class Scores(nn.Module):
    """Several inputs, a keyword argument, a baked number, nested outputs with None and an int."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(144, 10)

    def forward(self, images, scale=2, *, mask=None):
        hidden = self.norm(self.conv(images)).relu()
        hidden = self.drop(hidden).flatten(1)
        logits = self.head(hidden) * scale
        if mask is not None:
            logits = logits + mask
        return {"logits": logits, "rest": (hidden, None, 3)}


class Branch(nn.Module):
    """A decision that depends on data."""

    def forward(self, x):
        if x.sum() > 0:
            return x + 1
        return x - 1


class Cond(nn.Module):
    """The same decision, with both branches kept."""

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))


class Table(nn.Module):
    """A position table that fixes the length of its input."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.ones(16, 8))

    def forward(self, x):
        return x + self.positions


class Folds(nn.Module):
    """Lines that leave no ONNX node behind, each for another reason."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.conv(x)
        x = self.norm(x)
        x = self.drop(x)
        x = x.mean((2, 3))
        scale = torch.arange(4).float() * 2
        left = self.head(x)
        right = self.head(x)
        return left * right + scale


class Helpers(nn.Module):
    """The work is done in functions that are not called forward."""

    def forward(self, x):
        return doubled(self.cut(x))

    def cut(self, x):
        return x.clamp(0, 1)


def doubled(x):
    return x * 2


class Uneven(nn.Module):
    """One line that is slow on purpose, between two that are not."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(512, 512))

    def forward(self, x):
        x = torch.sin(x)
        x = (x @ self.weight) @ self.weight
        return torch.cos(x)


class Twins(nn.Module):
    """Two branches of the same cost."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(256, 256)
        self.b = nn.Linear(256, 256)

    def forward(self, x):
        left = torch.erf(self.a(x))
        right = torch.erf(self.b(x))
        return left + right
