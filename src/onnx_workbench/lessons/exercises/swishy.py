"""08: a translation for an operator that torch.onnx cannot translate."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from ...agreement import verify
from ...artifact import export
from ...errors import WorkbenchError
from ...formatting import kind_of
from . import Hint, differs, hint

DTYPES = (torch.float32, torch.float16, torch.float64)
BETAS = (1.0, 2.5)


@torch.library.custom_op("demo::swishy", mutates_args=())
def swishy(x: Tensor, beta: float) -> Tensor:
    """``x * sigmoid(beta * x) + beta``, of any floating dtype and shape."""
    return x * torch.sigmoid(beta * x) + beta


@swishy.register_fake
def _(x: Tensor, beta: float) -> Tensor:
    return torch.empty_like(x)


class Swishy(nn.Module):
    """One call of the operator."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.demo.swishy(x, self.beta)


def given() -> nn.Module:
    return Swishy().eval()


def judge(answer: Any) -> Iterator[Hint]:
    if isinstance(answer, dict):
        yield hint("table")
    if not callable(answer):
        yield hint("kind", kind=kind_of(answer))
    table = {torch.ops.demo.swishy.default: answer}
    for dtype, beta in product(DTYPES, BETAS):
        word = str(dtype).removeprefix("torch.")
        x, model = torch.linspace(-2, 2, 6, dtype=dtype).reshape(2, 3), Swishy(beta).eval()
        try:
            found = verify(model, export(model, x, custom_translation_table=table), x)
        except WorkbenchError as error:
            first = dtype is torch.float32
            yield hint("no file", error=error) if first else hint("dtype", dtype=word)
            return
        yield from differs("differs", found, beta=beta, dtype=word)
