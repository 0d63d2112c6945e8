"""08: a translation for an operator that torch.onnx has none for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...artifact import export
from ...divergence import verify
from ...errors import WorkbenchError
from ..task import Exercise

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


def judge(answer: Any) -> str | None:
    if isinstance(answer, dict):
        return "Answer with the function alone; the judge puts it into the dict for each dtype."
    if not callable(answer):
        return f"That is a {type(answer).__name__}. Answer with a function of (x, beta)."
    hints = (_tried(answer, dtype, beta) for dtype in DTYPES for beta in BETAS)
    return next((hint for hint in hints if hint), None)


def _tried(answer: Callable, dtype: torch.dtype, beta: float) -> str | None:
    x, model = torch.linspace(-2, 2, 6, dtype=dtype).reshape(2, 3), Swishy(beta).eval()
    word, table = str(dtype).removeprefix("torch."), {torch.ops.demo.swishy.default: answer}
    try:
        with tempfile.TemporaryDirectory() as folder:
            artifact = export(
                model, x, Path(folder) / "swishy.onnx", custom_translation_table=table
            )
            leaf = verify(model, artifact, x).worst
    except WorkbenchError as error:
        if dtype is torch.float32:
            return f"It gives no file for {word}: {error}"
        return (
            f"It passes float32 and fails {word}: a number that you write is a float32 constant, "
            "and ONNX multiplies equal dtypes alone. Give it the dtype of x: op.CastLike(beta, x)."
        )
    if not leaf.reason:
        return None
    return (
        f"It runs, and with beta = {beta} and {word} its numbers are not those of "
        f"x * sigmoid(beta * x): {leaf.reason}. `beta` comes as the second argument."
    )


EXERCISE = Exercise(
    number="08",
    title="Translate demo::swishy",
    text=(
        "The operator `torch.ops.demo.swishy(x, beta)` computes `x * sigmoid(beta * x)`. It has a "
        "fake implementation and no translation into ONNX. **Write the translation**: a function "
        "of `x` and `beta` in onnxscript's operators, right for float32, float16 and float64 and "
        "for every `beta`. Answer with the function; `.given` is a model to try it on."
    ),
    start=(
        "Begin with `from onnxscript import opset20 as op` and a function that returns "
        "op.Sigmoid(x), then build the rest around it."
    ),
    judge=judge,
    material=lambda: Swishy().eval(),
    source="""
        from onnxscript import opset20 as op

        def answer(x, beta):
            beta = op.CastLike(op.Constant(value_float=beta), x)
            return op.Mul(x, op.Sigmoid(op.Mul(x, beta)))
        """,
)
