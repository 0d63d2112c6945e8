"""11: a classifier that returns the best five classes, for any batch and any size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ...artifact import Artifact
from ...comparison import compare
from ...errors import WorkbenchError
from ...formatting import kind_of
from ..classifier import photographs
from . import Hint, differs, hint

ANSWER = Artifact


def given() -> nn.Module:
    return photographs().model


def judge(answer: Any) -> Iterator[Hint]:
    if answer.inputs[0].dtype != "uint8":
        yield hint("dtype", dtype=answer.inputs[0].dtype)
    pictures = photographs()
    for photos in (pictures.temple, pictures.crops[:3], pictures.flower[:, 50:, 100:]):
        shape, asked = list(photos.shape), [len(photos), 5]
        try:
            result = answer(photos)
        except WorkbenchError as error:
            yield hint("fails", shape=shape, error=error)
            return
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            yield hint("count", got="one output" if torch.is_tensor(result) else kind_of(result))
        shares, numbers = result
        if list(shares.shape) != asked:
            yield hint("shape", got=list(shares.shape), shape=shape, asked=asked)
        yield from mistaken(shares, numbers, photos)


def mistaken(shares: torch.Tensor, numbers: torch.Tensor, photos: torch.Tensor) -> Iterator[Hint]:
    """What is wrong with two outputs for these photographs."""
    if (shares.dtype, numbers.dtype) == (torch.int64, torch.float32):
        yield hint("swapped")
    if shares.sum() > len(photos) + 1e-3:
        yield hint("scores", sum=f"{shares.sum():.1f}")
    if numbers.dtype != torch.int64:
        yield hint("numbers", dtype=str(numbers.dtype).removeprefix("torch."))
    whole = given()(photos)
    best = whole.topk(5).values
    named = whole.gather(1, numbers.long())  # two classes may be alike
    yield from differs("differs", compare((best, best), (shares, named)))
