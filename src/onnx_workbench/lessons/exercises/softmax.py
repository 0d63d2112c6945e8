"""07: find the wrong translation in the encoder, and fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from onnxscript import opset20 as op
from torch import nn

from ...agreement import verify
from ...artifact import export
from ...divergence import Divergence
from ...errors import ExportError
from ...formatting import kind_of
from ..transformer import encoder
from . import names

Table = dict[Any, Callable[..., Any]]
SOFTMAX = torch.ops.aten.softmax.int
RELU = torch.ops.aten.relu.default


def given() -> Table:
    """Two translations, one of them wrong."""
    return {
        RELU: lambda x: op.Relu(x),
        SOFTMAX: lambda x, dim, dtype=None: op.Softmax(x, axis=1),
    }


@cache
def wrong() -> Divergence:
    """The encoder with the wrong translation."""
    return compared(given())


def compared(translations: Table, seed: int = 0) -> Divergence:
    """The encoder with these translations, on words that the learner has not seen."""
    small = encoder()
    words = torch.randint(0, 64, (2, 12), generator=torch.Generator().manual_seed(seed))
    file = export(small.model, small.inputs, custom_translation_table=translations)
    return verify(small.model, file, words, values=True)


def judge(answer: Any) -> Iterator[str]:
    if not isinstance(answer, tuple) or len(answer) != 2:
        yield (
            "Answer with a pair (line, function): the line of the first wrong value, and a correct "
            f"translation; this is {kind_of(answer)}."
        )
    found, asked, function = wrong(), getattr(answer[0], "line", answer[0]), answer[1]
    here = [step for step in found.steps if step.line and names(asked, step.line)]
    if not here:
        yield (
            f"The first wrong value does not come from {asked!r}. Export the encoder with "
            "custom_translation_table=exercise.given, and see `.first.line` of verify(..., "
            "values=True)."
        )
    if found.first not in here:
        if found.largest in here:
            yield (
                f"{asked} has the largest error of all. It computes correctly from wrong inputs. "
                "Look for the first value that is wrong while its inputs agree: `.first`."
            )
        if any(step.wrong for step in here):
            yield (
                f"{asked} makes wrong values from wrong inputs. Go back to the first value that is "
                "wrong while its inputs agree: `.first`."
            )
        yield f"All that {asked} makes agrees with PyTorch. Look at what is computed after it."
    yield from mistranslated(function)


def mistranslated(function: Any) -> Iterator[str]:
    if not callable(function):
        yield f"The line is right. The second must be a function; this is {kind_of(function)}."
    try:
        if first := compared({SOFTMAX: function}, seed=1).first:
            yield (
                "The line is right, and with your translation the first wrong value is still at "
                f"{first!r}\nThe operator was called with `dim`, which ONNX's Softmax calls `axis`."
            )
        for dim in (0, 1):
            model, x = nn.Softmax(dim).eval(), torch.linspace(-1, 2, 6).reshape(2, 3)
            file = export(model, x, custom_translation_table={SOFTMAX: function})
            if not verify(model, file, x):
                yield (
                    "The line is right, and so is the encoder with your translation. But it "
                    f"translates every softmax, and over dim={dim} it is wrong: pass on `dim`."
                )
    except ExportError as error:
        yield f"The line is right, and your translation stops the exporter: {error}"
