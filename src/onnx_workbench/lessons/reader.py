"""Real handwritten digits, and a small CNN that has just learned to read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from html import escape
from typing import Any

import torch
from torch import nn

from .. import progress
from ..errors import InputError, WorkbenchError
from ..formatting import kind_of, plural, wrapped
from ..stack import needs

SEED, TEST, EPOCHS, BATCH, RATE = 0, 360, 7, 64, 0.02
LEVELS = 16
"""Gray levels of a pixel."""


class DigitReader(nn.Module):
    """Gray images ``float32[N, 1, 8, 8]`` in [0, 1] -> logits ``float32[N, 10]``."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = nn.Conv2d(1, 16, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.strokes = nn.Conv2d(16, 32, kernel_size=3, padding=1)
        self.digit = nn.Linear(32 * 2 * 2, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        edges = torch.relu(self.norm(self.edges(images)))
        edges = torch.max_pool2d(edges, 2)
        strokes = torch.relu(self.strokes(edges))
        strokes = torch.max_pool2d(strokes, 2)
        return self.digit(strokes.flatten(1))


@dataclass(frozen=True, repr=False, eq=False)
class Digits:
    """The data and the trained reader. Made by :func:`digits`.

    ``images`` are ``float32[N, 1, 8, 8]`` in [0, 1] and ``labels`` ``int64[N]``; ``model`` was
    trained on these and never saw ``test_images`` and ``test_labels``.
    """

    model: DigitReader
    images: torch.Tensor
    labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor

    def accuracy(self, predict: Callable[[torch.Tensor], Any]) -> float:
        """The share of the test images that ``predict`` reads right, from 0 to 1.

        ``predict`` is any callable from images to logits: the model, an Artifact, a function.

        Raises:
            InputError: it does not return one row of ten logits for each image.

        >>> read = digits()
        >>> read.accuracy(read.model) > 0.97
        True
        """
        with torch.no_grad():
            logits = predict(self.test_images)
        shape = list(getattr(logits, "shape", ()))
        if not isinstance(logits, torch.Tensor) or shape != [TEST, 10]:
            raise InputError(
                f"`predict` returned {kind_of(logits)}{f' of shape {shape}' if shape else ''} for "
                f"{TEST} images; a tensor of logits of shape [{TEST}, 10] is expected.",
                "Pass a callable that maps images to one logit per digit.",
            )
        return (logits.argmax(dim=1) == self.test_labels).double().mean().item()

    def __repr__(self) -> str:
        weights = sum(p.numel() for p in self.model.parameters())
        return wrapped(
            f"Digits: {len(self.images):,} handwritten digits to learn from and "
            f"{len(self.test_images)} to test on, each float32[1, 8, 8] in [0, 1]; "
            f"{type(self.model).__name__} with {plural(weights, 'parameter')}, trained"
        )

    def _ipython_display_(self) -> None:
        from IPython.display import display

        from ..viewer.still import picture  # a process that races the reader needs no viewer

        print(self)
        drawn = svg(self.test_images[:16], self.test_labels[:16].tolist())
        data, metadata = picture("The first 16 digits of the test.", drawn)
        display(data, metadata=metadata, raw=True)


@cache
def digits() -> Digits:
    """The digits of :func:`sklearn.datasets.load_digits` and a reader trained on them.

    Trained once a process, in seconds, on one thread from a fixed seed: on one machine every run
    gives the same bits, on another processor the same accuracy within a percent. Torch's random
    state and number of threads stay as they were.

    Source of the data: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI
    Machine Learning Repository, 1998.

    Raises:
        WorkbenchError: scikit-learn was installed without the data.

    >>> digits()
    Digits: 1,437 handwritten digits to learn from and 360 to test on, each float32[1, 8, 8] in \
[0, 1];
    DigitReader with 6,122 parameters, trained
    """
    images, labels = _load()
    with _reproducible():
        order = torch.randperm(len(images))
        test, rest = order[:TEST], order[TEST:]
        model = _train(DigitReader(), images[rest], labels[rest])
    return Digits(model, images[rest], labels[rest], images[test], labels[test])


def svg(images: torch.Tensor, labels: Sequence[object] = (), cell: int = 6) -> str:
    """Images ``float[N, 1, 8, 8]`` in [0, 1] side by side, dark on white.

    >>> svg(torch.eye(8)[None, None]).count("<path")
    1
    """
    parts = ['<rect width="100%" height="100%" fill="#ffffff"/>']
    for left, image in zip(range(0, 9 * len(images), 9), images, strict=True):
        gray = (image[0] * LEVELS).round().int()
        for level in sorted(set(gray.flatten().tolist()) - {0}):
            cells = (gray == level).nonzero().tolist()
            squares = "".join(f"M{left + x} {y}h1v1h-1z" for y, x in cells)
            parts.append(f'<path fill-opacity="{level / LEVELS:.2f}" d="{squares}"/>')
    for left, label in zip(range(4, 9 * len(labels), 9), labels, strict=True):
        parts.append(
            f'<text x="{left}" y="10.5" font-size="2" text-anchor="middle">'
            f"{escape(str(label))}</text>"
        )
    width, height = 9 * len(images) - 1, 11 if labels else 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * cell}" height="{height * cell}" '
        f'viewBox="0 0 {width} {height}" fill="#24292f" font-family="sans-serif" '
        f'style="max-width:100%" role="img" aria-label="handwritten digits">{"".join(parts)}</svg>'
    )


def _load() -> tuple[torch.Tensor, torch.Tensor]:
    with needs("lessons.digits()", "lessons"):
        from sklearn.datasets import load_digits

    try:
        data = load_digits()
    except OSError as error:
        raise WorkbenchError(
            f"The installed scikit-learn has no handwritten digits ({error}).",
            "Install it again: pip install --force-reinstall --no-deps scikit-learn",
        ) from error
    images = torch.tensor(data.images, dtype=torch.float32)[:, None]
    return images / LEVELS, torch.tensor(data.target)


def _train(model: DigitReader, images: torch.Tensor, labels: torch.Tensor) -> DigitReader:
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, epochs=EPOCHS, steps_per_epoch=len(images.split(BATCH))
    )
    with progress.bar("training on digits", total=EPOCHS) as step:
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(images)).split(BATCH):
                loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            step()
    return model.eval().requires_grad_(False)


@contextmanager
def _reproducible() -> Iterator[None]:
    """A fixed seed, one thread and gradients, whatever the caller has set."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        try:
            torch.set_num_threads(1)
            torch.manual_seed(SEED)
            yield
        finally:
            torch.set_num_threads(threads)


class InkReader(DigitReader):
    """A reader that also looks at how much ink there is: a trap for quantizers, see lesson 12."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        edges = torch.relu(self.norm(self.edges(images)))
        edges = torch.max_pool2d(edges, 2)
        strokes = torch.relu(self.strokes(edges))
        strokes = torch.max_pool2d(strokes, 2)
        ink = 255 * images.sum(dim=(1, 2, 3)).unsqueeze(1)
        return self.digit(torch.cat([strokes.flatten(1), ink], dim=1))


def ink_reader() -> InkReader:
    """The trained reader, with a weight of zero for the ink: it reads the same digits.

    >>> read = digits()
    >>> read.accuracy(ink_reader()) == read.accuracy(read.model)
    True
    """
    trained, model = digits().model, InkReader()
    weights = dict(trained.state_dict())
    weights["digit.weight"] = nn.functional.pad(weights["digit.weight"], (0, 1))
    model.digit = nn.Linear(trained.digit.in_features + 1, 10)
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)
