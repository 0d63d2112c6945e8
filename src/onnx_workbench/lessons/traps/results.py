"""What goes into a model and comes out of it, and is lost or frozen on the way into a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .trap import trap

FOUR = torch.tensor([-2.0, 3.0, -1.0, 4.0])
WRITES = "The model writes into its input 'x'"


@trap("in place on an input", "capture", WRITES, "pytorch/pytorch/issues/112429", FOUR)
class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x += 1  # trap
        return x * 2

    class Mended(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + 1) * 2


STATE, THREAD = "The model keeps state in its buffer 'seen'", "pytorch/pytorch/issues/60828"


@trap("state in a buffer", "capture", STATE, THREAD, FOUR, mended=(FOUR, torch.zeros(1)))
class KeepsState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(1)  # trap
        return x + self.seen

    class Mended(nn.Module):
        def forward(self, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
            return x + seen + 1, seen + 1


UNUSED, THREAD = "Nothing is computed from the input 'mask'", "pytorch/pytorch/issues/64480"


@trap("unused input", "capture", UNUSED, THREAD, FOUR, torch.ones(4))
class Unused(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # trap
        return x * 2

    class Mended(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return x * 2 * mask


BAKED, THREAD = "The argument 'scale' is baked in as 3", "pytorch/pytorch/issues/190199"


@trap("a number as argument", "capture", BAKED, THREAD, FOUR, 3, mended=(FOUR, torch.tensor(3)))
class Scaled(nn.Module):
    def forward(self, x: Tensor, scale: Any) -> Tensor:  # trap
        return x * scale

    class Mended(nn.Module):
        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return x * scale


LOST = "The result holds what is no tensor: None, 7"


@trap("None in the result", "capture", LOST, "pytorch/pytorch/issues/160150", FOUR)
class Nested(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Any]:  # trap
        return {"double": x * 2, "rest": [x + 1, None, 7]}

    class Mended(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x * 2, x + 1


@dataclass
class Result:
    double: Tensor


APART = "An argument or a result is of a class that torch cannot take apart"


@trap("dataclass as the result", "capture", APART, "pytorch/pytorch/issues/98251", FOUR)
class ByDataclass(nn.Module):
    def forward(self, x: Tensor) -> Result:  # trap
        return Result(x * 2)

    class Mended(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"double": x * 2}


SHAPED = "result differs: a is complex64[4], b is float32[4, 2]"


@trap("complex result", "numbers", SHAPED, "pytorch/pytorch/issues/126972", FOUR)
class Complex(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.polar(x.abs(), x)  # trap

    class Mended(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.view_as_real(torch.polar(x.abs(), x))
