"""07: find the wrong translation in the encoder, and mend it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from onnxscript import opset20 as op
from torch import nn

from ...artifact import export
from ...divergence import Divergence, Step, verify
from ...errors import ExportError
from ...source import Line
from ..task import Exercise
from ..transformer import encoder

SOFTMAX = torch.ops.aten.softmax.int
RELU = torch.ops.aten.relu.default


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
    if isinstance(given, Step):
        return "The first of the pair is a step, and its line is asked for: write `.first.line`."
    found = _compared(planted())
    here = [step for step in found.steps if step.line and _is(given, step.line)]
    if found.first in here:
        return None
    place = here[0].line.place if here and here[0].line else ""
    if found.largest in here:
        return (
            f"{place} has the largest error of all. It computes rightly with wrong inputs. Look "
            "for the first value that is wrong while its inputs agree: `.first`."
        )
    if any(step.wrong for step in here):
        return (
            f"What {place} makes is wrong, and so is what it was made of: the fault came along. Go "
            "back to the first value that is wrong while its inputs agree: `.first`."
        )
    if here:
        return f"All that {place} makes agrees with PyTorch. Look at what is computed after it."
    return (
        f"The first wrong value does not come from {given!r}. Export the encoder with "
        "custom_translation_table=exercise.given, and see `.first.line` of verify(..., "
        "values=True)."
    )


def _is(given: Any, line: Line) -> bool:
    """A line may be given as it is, by its number or by its place."""
    return given in (line, line.number, line.place)


def _function(given: Any) -> str | None:
    if not callable(given):
        return f"The line is right. The second must be a function, not a {type(given).__name__}."
    try:
        first = _compared({SOFTMAX: given}, seed=1).first
        others = [dim for dim in (0, 1) if first is None and not _over(dim, given)]
    except ExportError as error:
        return f"The line is right, and your translation stops the exporter: {error}"
    if others:
        return (
            "The line is right, and so is the encoder with your translation. But the function "
            f"stands for every softmax, and over dim={others[0]} it is wrong: pass on `dim`."
        )
    if first is None:
        return None
    return (
        f"The line is right, and with your translation the first wrong value is still at {first!r}"
        "\nThe operator was called with `dim`, and ONNX's Softmax takes it as `axis`."
    )


def _over(dim: int, function: Callable[..., Any]) -> bool:
    """Whether a softmax over this dimension comes out right."""
    model, x = nn.Softmax(dim).eval(), torch.linspace(-1, 2, 6).reshape(2, 3)
    with tempfile.TemporaryDirectory() as folder:
        file = export(
            model, x, Path(folder) / "over.onnx", custom_translation_table={SOFTMAX: function}
        )
        return bool(verify(model, file, x))


def _compared(translations: dict[Any, Any], seed: int = 0) -> Divergence:
    """The encoder with these translations, on words that the learner has not seen."""
    small = encoder()
    [tokens] = small.inputs
    fresh = torch.randint(0, 64, tokens.shape, generator=torch.Generator().manual_seed(seed))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        file = export(small.model, small.inputs, path, custom_translation_table=translations)
        return verify(small.model, file, fresh, values=True)


EXERCISE = Exercise(
    number="07",
    title="The wrong translation",
    text=(
        "`exercise.given` is a `custom_translation_table` for `ow.export`: two operators of the "
        "encoder, each with a function that says it in ONNX. One of the two is wrong.\n\n"
        "**Find the line where it shows first, and write a translation that is right.** Answer "
        "with the pair `(line, function)`."
    ),
    start=(
        "Begin with file = ow.export(encoder.model, encoder.inputs, 'wrong.onnx', "
        "custom_translation_table=exercise.given), then ow.verify(encoder.model, file, "
        "encoder.inputs, values=True).first."
    ),
    judge=judge,
    material=planted,
    source="""
        import onnx_workbench as ow
        from onnxscript import opset20 as op

        encoder = ow.lessons.encoder()
        table = ow.lessons.exercise("07").given
        x = encoder.inputs
        file = ow.export(encoder.model, x, "wrong.onnx", custom_translation_table=table)
        first = ow.verify(encoder.model, file, x, values=True).first

        def softmax(x, dim, dtype=None):
            return op.Softmax(x, axis=dim)

        answer = (first.line, softmax)
        """,
)
