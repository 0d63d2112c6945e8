"""A pad to draw a digit on with mouse, finger or keys, while a model reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import traitlets

from ..errors import InputError
from ..formatting import kind_of
from ..viewer.live import Live
from ..viewer.still import SCRIPT
from .reader import digits, svg

_HERE = Path(__file__).parent


def draw_digit(reader: Callable[[torch.Tensor], Any]) -> Pad:
    """A pad to draw a digit on, while ``reader`` reads it.

    Args:
        reader: a callable from images ``float32[1, 1, 8, 8]`` in [0, 1] to logits
            ``float32[1, 10]``: an Artifact, a model, a function.

    Raises:
        InputError: ``reader`` cannot be called.

    >>> draw_digit(digits().model)
    A pad to draw a digit on. It shows a 6; the reader says 6.
    """
    if not callable(reader):
        raise InputError(
            f"draw_digit() expects a callable from images to logits, got {kind_of(reader)}.",
            "Pass an Artifact, a model or a function.",
        )
    return Pad(reader)


class Pad(Live):
    """The widget of :func:`draw_digit`.

    ``pixels`` are the reader's input, 64 gray values in [0, 1], row by row; ``probabilities`` are
    its ten outputs, empty if it failed, and ``error`` says why. ``samples`` are real digits for the
    front-end, one of each.
    """

    _esm = f"{SCRIPT}\n{(_HERE / 'pad.js').read_text('utf-8')}"
    _css = _HERE / "pad.css"

    samples: traitlets.List = traitlets.List().tag(sync=True)
    pixels = traitlets.List(traitlets.Float()).tag(sync=True)
    probabilities = traitlets.List(traitlets.Float()).tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)

    def __init__(self, reader: Callable[[torch.Tensor], Any]) -> None:
        read, labels = digits(), digits().test_labels.tolist()
        firsts = sorted(labels.index(digit) for digit in range(10))
        rows = read.test_images[firsts].flatten(1).tolist()
        self._reader, self._label = reader, labels[firsts[0]]
        super().__init__(samples=rows, pixels=rows[0])

    @traitlets.observe("pixels")
    def _read(self, change: object = None) -> None:
        try:
            with torch.no_grad():
                logits = torch.as_tensor(self._reader(self._image()))
            answer, failure = logits.reshape(10).softmax(0).tolist(), ""
        except Exception as error:  # shown in place of the answer, since a pad has no traceback
            answer, failure = [], f"{type(error).__name__}: {error}"
        with self.hold_sync():
            self.probabilities, self.error = answer, failure

    def _image(self) -> torch.Tensor:
        return torch.tensor(self.pixels, dtype=torch.float32).reshape(1, 1, 8, 8)

    @property
    def digit(self) -> int | None:
        """The digit that the reader sees, None if it failed."""
        return max(range(10), key=self.probabilities.__getitem__) if self.probabilities else None

    def __repr__(self) -> str:
        says = self.error or f"the reader says {self.digit}"
        if self.pixels == self.samples[0]:
            says = f"It shows a {self._label}; {says}"
        return f"A pad to draw a digit on. {says[0].upper()}{says[1:]}."

    def _still(self) -> str:
        return svg(self._image(), cell=16)
