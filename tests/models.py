"""Small models that the tests share, each with one habit."""

import onnx
import torch
from onnx import parser
from onnxscript import opset20 as op
from torch import nn

from onnx_workbench import load


def module(forward, **attributes):
    """A module in eval mode with these attributes, whose ``forward`` is a function of ``self``."""
    names = {"co_name": "forward", "co_qualname": "Model.forward"}  # as the frames of a class have
    forward.__code__ = forward.__code__.replace(**names)
    made = type("Model", (nn.Module,), {"forward": forward})()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made.eval()


def parsed(text, opset=20):
    """A model in ONNX's text format, where this is all but its head."""
    head = f'<ir_version: 10, opset_import: ["": {opset}, "mine": 1]>'
    return parser.parse_model(f"{head} g {text}")


def saved(path, text, opset=20):
    """The same as a file, loaded."""
    onnx.save(parsed(text, opset), path)
    return load(path)


def relu_file(path, *shape):
    """A ReLU as a file, in less time than an export takes."""
    kind = f"float[{', '.join(map(str, shape))}]"
    return saved(path, f"({kind} x) => ({kind} y) {{ y = Relu(x) }}", opset=18)


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


class Cache:
    """State in an object of the user's, as many decoders keep it."""

    def __init__(self):
        self.last, self.all = None, []

    def update(self, x):
        self.all.append(x)
        self.last = x if self.last is None else self.last * 0.9 + x
        return self.last


def caching():
    return module(lambda self, x: self.cache.update(x).relu(), cache=Cache())


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


@torch.library.custom_op("odd::padded", mutates_args=())
def padded(x: torch.Tensor) -> torch.Tensor:
    """Its fake says another shape."""
    return torch.cat([x, x[:1]])


@torch.library.custom_op("odd::checked", mutates_args=())
def checked(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Takes no size that was made up."""
    assert int(rows[0]) == len(x)
    return x * 2


padded.register_fake(torch.empty_like)
checked.register_fake(lambda x, rows: torch.empty_like(x))
ODD = {
    torch.ops.odd.checked.default: lambda x, rows: op.Add(x, x),
    torch.ops.odd.padded.default: lambda x: op.Concat(
        x, op.Slice(x, op.Constant(value_ints=[0]), op.Constant(value_ints=[1])), axis=0
    ),
}
