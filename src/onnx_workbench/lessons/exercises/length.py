"""06: fix a model that is frozen at the length of its example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ...agreement import verify
from ...artifact import Artifact, export
from ...brief import first_words
from ...errors import CaptureError, InputError, WorkbenchError
from ...shapes.contract import probe
from . import Hint, differs, hint

ANSWER = nn.Module
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


def judge(answer: Any) -> Iterator[Hint]:
    for words in LENGTHS:
        try:
            found = verify(expected, answer, example(words))
        except InputError as error:
            yield hint("raises", words=words, raised=first_words(error.__cause__ or error))
        one_of_many = words == 1 and found.worst.worst is None  # its shape differs
        yield from differs("broadcast" if one_of_many else "rows", found, words=words)
    dynamic = ({1: "words"},)
    try:
        file = export(answer, example(EXAMPLE), dynamic_shapes=dynamic)
    except CaptureError as error:
        yield hint("frozen", error=error)
        return
    for words in LENGTHS:
        if not agrees(file, words):
            contract = probe(answer, example(EXAMPLE), dynamic_shapes=dynamic)
            yield hint("exported", words=words, contract=repr(contract))


def agrees(file: Artifact, words: int) -> bool:
    try:
        return bool(verify(expected, file, example(words)))
    except WorkbenchError:
        return False
