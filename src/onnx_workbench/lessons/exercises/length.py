"""06: fix a model that is frozen at the length of its example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ...agreement import verify
from ...artifact import Artifact, export
from ...errors import CaptureError, InputError, WorkbenchError
from ...formatting import kind_of
from ...shapes.contract import probe

LONGEST, WIDTH, EXAMPLE = 64, 8, 16
LENGTHS = range(1, LONGEST + 1)


class Positions(nn.Module):
    """Adds its row of a table to each word: ``float32[batch, words, 8]`` -> the same shape."""

    def __init__(self) -> None:
        super().__init__()
        noise = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(LONGEST, WIDTH, generator=noise))
        self.words = EXAMPLE

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table[: self.words]


def given() -> Positions:
    return Positions().eval().requires_grad_(False)


def expected(x: torch.Tensor) -> torch.Tensor:
    return x + given().table[: x.shape[1]]


def example(words: int) -> torch.Tensor:
    return torch.rand(2, words, WIDTH, generator=torch.Generator().manual_seed(words))


def judge(answer: Any) -> Iterator[str]:
    if not isinstance(answer, nn.Module):
        yield (
            f"That is {kind_of(answer)}. Answer with a model, an instance of torch.nn.Module in "
            "eval mode; the judge exports it."
        )
    for words in LENGTHS:
        try:
            leaf = verify(expected, answer, example(words)).worst
        except InputError as error:
            cause = error.__cause__ or error
            yield (
                f"With {words} words your model itself raises {type(cause).__name__}: "
                f"{str(cause).splitlines()[0]}\nTake as many rows of the table as there are words: "
                "x.shape[1]."
            )
        if leaf.reason and leaf.worst is None and words == 1:
            yield (
                f"With 1 word it is wrong, and nothing is raised: {leaf.reason}, where b is yours. "
                "One word and many rows broadcast. Take x.shape[1] rows of the table."
            )
        if leaf.reason:
            yield (
                f"With {words} words your model's own numbers are wrong: {leaf.reason}. "
                "Word i gets row i of the table, counted from the first, as in `exercise.given`."
            )
    dynamic = ({1: "words"},)
    try:
        file = export(answer, example(EXAMPLE), dynamic_shapes=dynamic)
    except CaptureError as error:
        yield f"PyTorch's own numbers are right, and the length is still frozen.\n{error}"
        return
    for words in LENGTHS:
        if not agrees(file, words):
            contract = probe(answer, example(EXAMPLE), dynamic_shapes=dynamic)
            yield f"It was exported, and ONNX Runtime is wrong with {words} words.\n{contract!r}"


def agrees(file: Artifact, words: int) -> bool:
    try:
        return bool(verify(expected, file, example(words)))
    except WorkbenchError:
        return False
