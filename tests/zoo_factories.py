"""What the terminal command is pointed at."""

import torch
from models import Branch
from onnxscript import opset20 as op
from torch import nn


class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([31337.25, 2.0]))

    def forward(self, x):
        return x * self.weight


@torch.library.custom_op("onnx_workbench_tests::thrice", mutates_args=())
def thrice(x: torch.Tensor) -> torch.Tensor:
    return x * 3


@thrice.register_fake
def _(x):
    return torch.empty_like(x)


def thrice_in_onnx(x):
    return op.Mul(x, op.CastLike(3, x))


class Custom(nn.Module):
    def forward(self, x):
        return torch.ops.onnx_workbench_tests.thrice(x)


class Guesses(nn.Module):
    """Wrong in the file, and once more where x has less than 5 rows; has a table of its own."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.tensor([-torch.inf, 0.0]), persistent=False)

    def forward(self, x, numbers, index):
        if x.shape[0] > 4:
            x = x + 1
        mean = torch.ones(2).scatter_reduce(0, index, numbers, "mean", include_self=False)
        return mean, x, self.mask + 0


def sound():
    """Of a size that takes the profiler's microseconds."""
    return Doubled().eval(), (torch.ones(50_000, 2),), {"dynamic_shapes": {"x": {0: "batch"}}}


def broken():
    print("loading")  # the report on stdout stays JSON
    return Branch().eval(), (torch.ones(3),)


TRANSLATIONS = {torch.ops.onnx_workbench_tests.thrice.default: thrice_in_onnx}


def custom():
    options = {"dynamic_shapes": {"x": {0: "rows"}}, "custom_translation_table": TRANSLATIONS}
    return Custom().eval(), (torch.ones(3, 2),), options


def numbered():
    return Doubled(), (torch.ones(2),), {1: "an option"}


def old():
    return Doubled().eval(), (torch.ones(3, 2),), 18


def odd():
    return "no model"


def ends():
    raise SystemExit(0)


def mistyped():
    return Doubled().eval(), (torch.ones(3, 2),), {"dynamic_shape": {}}


class Masked(nn.Module):
    """Its file has other numbers beside those that are masked."""

    def forward(self, x):
        x = x * 2 if torch.compiler.is_exporting() else x
        return torch.cat([x, torch.full_like(x, -1e9)])


def skips():
    return Doubled().eval(), (torch.ones(3, 2),), {"skip": "latency"}


def stopped():
    raise KeyboardInterrupt


class Coarse(nn.Module):
    """Its float32 result comes from steps in float16."""

    def forward(self, x):
        return (x.half() @ x.half().T).exp().float()


class Doubling(nn.Module):
    """A parametrization."""

    def forward(self, weight):
        return weight * 2


class Normed(nn.Module):
    """Its numbers differ from those of its file: the last step is another one in the export."""

    def __init__(self):
        super().__init__()
        parametrizations = nn.utils.parametrizations
        self.first = parametrizations.weight_norm(nn.Conv1d(2, 4, 1))
        self.second = parametrizations.spectral_norm(nn.Linear(3, 3))
        self.third = self.second
        nn.utils.parametrize.register_parametrization(self.second, "bias", Doubling())
        self.scale = nn.Parameter(torch.ones(3))
        nn.utils.parametrize.register_parametrization(self, "scale", Doubling())

    def forward(self, x):
        return self.scale * self.third(self.first(x)) * (2 if torch.compiler.is_exporting() else 3)
