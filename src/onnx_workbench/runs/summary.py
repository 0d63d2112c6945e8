"""A tensor as a few numbers and a small picture, so that the tensor itself can be dropped."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

import torch

SIDE = 64
"""Pixels of a picture at most, in each direction."""


@dataclass(frozen=True)
class Picture:
    """Brightness from the least value (0) to the greatest (255), row by row."""

    width: int
    height: int
    pixels: bytes = field(repr=False)

    def encoded(self) -> dict[str, Any]:
        """For JSON."""
        return {"w": self.width, "h": self.height, "data": base64.b64encode(self.pixels).decode()}


@dataclass(frozen=True)
class Summary:
    """Facts of one value; ``size`` is in bytes.

    ``least``, ``mean`` and ``greatest`` are those of its finite numbers, None where there are none.
    ``error`` is its relative error against PyTorch's value, to be compared with ``tolerance``; None
    where PyTorch has no such value.
    """

    shape: tuple[int, ...]
    dtype: str
    size: int
    least: float | None = None
    mean: float | None = None
    greatest: float | None = None
    picture: Picture | None = None
    error: float | None = None
    tolerance: float | None = None


def summary(value: torch.Tensor, side: int = SIDE) -> Summary:
    """Summarize a tensor.

    The picture shows the last two dimensions, at the first index of the others; a vector is one
    row. A picture larger than ``side`` shows the mean of each part.

    >>> found = summary(torch.arange(6.0).reshape(2, 3))
    >>> found.least, found.mean, found.greatest, found.picture.pixels.hex()
    (0.0, 2.5, 5.0, '00336699ccff')
    """
    dtype, size = str(value.dtype).removeprefix("torch."), value.nbytes
    numbers = value.detach()
    numbers = torch.view_as_real(numbers) if numbers.is_complex() else numbers
    numbers = numbers.float() if numbers.is_floating_point() else numbers.double()
    finite = numbers if bool(numbers.isfinite().all()) else numbers[numbers.isfinite()]
    if not finite.numel():
        return Summary(tuple(value.shape), dtype, size)
    low, high = (float(end) for end in finite.aminmax())
    shown = _picture(numbers, low, side)
    return Summary(tuple(value.shape), dtype, size, low, float(finite.mean()), high, shown)


def _picture(numbers: torch.Tensor, fill: float, side: int) -> Picture:
    """``fill`` stands for numbers that are not finite."""
    matrix = numbers.reshape(-1, *numbers.shape[-2:])[0] if numbers.ndim > 2 else numbers
    matrix = matrix.reshape(-1, matrix.shape[-1] if matrix.ndim else 1)
    matrix = torch.where(matrix.isfinite(), matrix, fill)
    height, width = (min(side, length) for length in matrix.shape)
    if matrix.shape != (height, width):
        pool = torch.nn.functional.adaptive_avg_pool2d
        matrix = pool(matrix[None, None].float(), (height, width))[0, 0]
    low, high = matrix.aminmax()
    scaled = (matrix - low) * (255 / (high - low)) if high > low else torch.zeros_like(matrix)
    return Picture(width, height, bytes(scaled.round().to(torch.uint8).flatten().tolist()))
