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
from ...graph import Graph, capture
from ..transformer import encoder
from . import Hint, hint, is_line

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


@cache
def captured() -> Graph:
    """The graph of the encoder: each translation is tried on the same one."""
    small = encoder()
    return capture(small.model, small.inputs)


def compared(translations: Table, seed: int = 0) -> Divergence:
    """The encoder with these translations, compared on words that the learner has not seen."""
    words = torch.randint(0, 64, (2, 12), generator=torch.Generator().manual_seed(seed))
    file = export(captured(), custom_translation_table=translations)
    return verify(encoder().model, file, words, values=True)


def judge(answer: Any) -> Iterator[Hint]:
    if not isinstance(answer, tuple) or len(answer) != 2:
        yield hint("kind", kind=kind_of(answer))
    divergence, line, function = wrong(), getattr(answer[0], "line", answer[0]), answer[1]
    steps = [step for step in divergence.steps if step.line and is_line(line, step.line)]
    if not steps:
        yield hint("elsewhere", asked=repr(line))
    if divergence.first not in steps:
        if divergence.largest in steps:
            yield hint("largest", asked=line)
        if any(step.wrong for step in steps):
            yield hint("passed on", asked=line)
        yield hint("agrees", asked=line)
    yield from mistranslated(function)


def mistranslated(function: Any) -> Iterator[Hint]:
    if not callable(function):
        yield hint("function", kind=kind_of(function))
    try:
        if first := compared({SOFTMAX: function}, seed=1).first:
            yield hint("still", first=repr(first))
        for dim in (0, 1):
            model, x = nn.Softmax(dim).eval(), torch.linspace(-1, 2, 6).reshape(2, 3)
            file = export(model, x, custom_translation_table={SOFTMAX: function})
            if not verify(model, file, x):
                yield hint("dim", dim=dim)
    except ExportError as error:
        yield hint("stops", error=error)
