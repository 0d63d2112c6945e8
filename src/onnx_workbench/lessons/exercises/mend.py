"""07: find the wrong translation in the encoder, and mend it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from onnxscript import opset20 as op

from ...artifact import export
from ...divergence import Divergence, verify
from ...errors import ExportError
from ...source import Line
from ..task import Exercise
from ..transformer import encoder

SOFTMAX = torch.ops.aten.softmax.int
RELU = torch.ops.aten.relu.default
TEXT = "weights = torch.softmax(scores / self.size**0.5, dim=-1)"


def planted() -> dict[Any, Callable[..., Any]]:
    """Two translations, of which one is wrong."""
    return {
        RELU: lambda x: op.Relu(x),
        SOFTMAX: lambda x, dim, dtype=None: op.Softmax(x, axis=1),
    }


def judge(answer: Any) -> str | None:
    if not isinstance(answer, tuple) or len(answer) != 2:
        return (
            f"A pair is asked for, (line, function), and this is a {type(answer).__name__}: the "
            "line where the first value differs, and a translation that is right."
        )
    return _line(answer[0]) or _function(answer[1])


def _line(given: Any) -> str | None:
    found = _compared(planted())
    assert found.first is not None
    right, largest = found.first.line, found.largest
    if isinstance(given, Line) and given.text == TEXT:
        return None
    if right is not None and given in (right.number, right.place):
        return None
    if largest is not None and largest.line and given in (largest.line, largest.line.number):
        return (
            f"{largest.line.place} has the largest error of all. It computes rightly with wrong "
            "inputs. Look for the first value that is wrong while its inputs agree: `.first`."
        )
    return (
        f"The first wrong value does not come from {given!r}. Export the encoder with "
        "translations=exercise.given, and see `.first.line` of verify(..., values=True)."
    )


def _function(given: Any) -> str | None:
    if not callable(given):
        return f"The line is right. The second must be a function, not a {type(given).__name__}."
    try:
        first = _compared({SOFTMAX: given}, seed=1).first
    except ExportError as error:
        return f"The line is right, and your translation stops the exporter: {error}"
    if first is None:
        return None
    return (
        f"The line is right, and with your translation the first wrong value is still at {first!r}"
        "\nThe operator was called with `dim`, and ONNX's Softmax takes it as `axis`."
    )


def _compared(translations: dict[Any, Any], seed: int = 0) -> Divergence:
    """The encoder with these translations, on words that the learner has not seen."""
    small = encoder()
    [tokens] = small.inputs
    fresh = torch.randint(0, 64, tokens.shape, generator=torch.Generator().manual_seed(seed))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        file = export(small.model, path, *small.inputs, translations=translations)
        return verify(small.model, file, fresh, values=True)


EXERCISE = Exercise(
    number="07",
    title="The wrong translation",
    text=(
        "`exercise.given` is a table for `ow.export(..., translations=...)`: two operators of the "
        "encoder, each with a function that says it in ONNX. One of the two is wrong.\n\n"
        "**Find the line where it shows first, and write a translation that is right.** Answer "
        "with the pair `(line, function)`."
    ),
    start=(
        "Begin with file = ow.export(encoder.model, 'wrong.onnx', *encoder.inputs, "
        "translations=exercise.given), then ow.verify(encoder.model, file, *encoder.inputs, "
        "values=True).first."
    ),
    judge=judge,
    material=planted,
    source="""
        import onnx_workbench as ow
        from onnxscript import opset20 as op

        encoder = ow.lessons.encoder()
        table = ow.lessons.exercise("07").given
        file = ow.export(encoder.model, "wrong.onnx", *encoder.inputs, translations=table)
        first = ow.verify(encoder.model, file, *encoder.inputs, values=True).first

        def softmax(x, dim, dtype=None):
            return op.Softmax(x, axis=dim)

        answer = (first.line, softmax)
        """,
)
