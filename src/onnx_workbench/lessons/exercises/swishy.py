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

DTYPES = (torch.float32, torch.float16, torch.float64)
BETAS = (1.0, 2.5)


@torch.library.custom_op("demo::swishy", mutates_args=())
def swishy(x: Tensor, beta: float) -> Tensor:
    """``x * sigmoid(beta * x)``, of any floating dtype and shape."""
    return x * torch.sigmoid(beta * x)


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


def judge(answer: Any) -> Iterator[str]:
    if isinstance(answer, dict):
        yield "Answer with the function alone; the judge puts it into the table."
    if not callable(answer):
        yield f"That is {kind_of(answer)}. Answer with a function of (x, beta)."
    table = {torch.ops.demo.swishy.default: answer}
    for dtype, beta in product(DTYPES, BETAS):
        word = str(dtype).removeprefix("torch.")
        x, model = torch.linspace(-2, 2, 6, dtype=dtype).reshape(2, 3), Swishy(beta).eval()
        try:
            leaf = verify(model, export(model, x, custom_translation_table=table), x).worst
        except WorkbenchError as error:
            yield (
                f"It gives no file for float32: {error}"
                if dtype is torch.float32
                else f"It passes float32 and fails {word}: a number in your function becomes a "
                "float32 constant, and ONNX multiplies equal dtypes only. Give it the dtype of x: "
                "op.CastLike(beta, x)."
            )
        if leaf.reason:
            yield (
                f"It runs, and with beta = {beta} and {word} its numbers are not those of "
                f"x * sigmoid(beta * x): {leaf.reason}. `beta` is the second argument."
            )
