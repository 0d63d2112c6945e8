"""Real handwritten digits, and a small CNN that learned to read them a second ago."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from .. import progress
from ..errors import InputError, WorkbenchError
from ..formatting import plural
from .picture import svg

SEED = 0
TEST = 360
EPOCHS = 15
BATCH = 64


class DigitReader(nn.Module):
    """Grey images ``float32[N, 1, 8, 8]`` in [0, 1] -> logits ``float32[N, 10]``."""

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
        expected = (len(self.test_images), 10)
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else None
        if shape != expected:
            given = type(logits).__name__ if shape is None else list(shape)
            raise InputError(
                f"`predict` returned {given} for {expected[0]} images, and logits of shape "
                f"{list(expected)} were expected. Pass a callable that maps images to one tensor "
                "with a logit for each digit."
            )
        return (logits.argmax(dim=1) == self.test_labels).double().mean().item()

    def __repr__(self) -> str:
        weights = sum(p.numel() for p in self.model.parameters())
        return (
            f"Digits: {len(self.images):,} handwritten digits to learn from and "
            f"{len(self.test_images)} to test on, each float32[1, 8, 8] in [0, 1]; "
            f"{type(self.model).__name__} with {plural(weights, 'parameter')}, trained"
        )

    def _repr_html_(self) -> str:
        shown = slice(16)
        return f"<p>{self!r}</p>{svg(self.test_images[shown], self.test_labels[shown].tolist())}"


@cache
def digits() -> Digits:
    """The digits of :func:`sklearn.datasets.load_digits` and a reader trained on them.

    Trained once a process, in seconds, on one thread from a fixed seed: on one machine every run
    gives the same bits, on another processor the same accuracy to a percent. Torch's random state
    and number of threads are left as they were.

    Source of the data: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI
    Machine Learning Repository, 1998.

    Raises:
        WorkbenchError: scikit-learn was installed without the data.

    >>> digits()
    Digits: 1,437 handwritten digits to learn from and 360 to test on, each float32[1, 8, 8] in \
[0, 1]; DigitReader with 6,122 parameters, trained
    """
    images, labels = _load()
    with _reproducible():
        order = torch.randperm(len(images))
        test, rest = order[:TEST], order[TEST:]
        model = _train(DigitReader(), images[rest], labels[rest])
    return Digits(model, images[rest], labels[rest], images[test], labels[test])


def _load() -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.datasets import load_digits

    try:
        data = load_digits()
    except OSError as error:
        raise WorkbenchError(
            "The handwritten digits could not be read; they were expected in the installed "
            f"scikit-learn ({error}). Install it again: "
            "pip install --force-reinstall --no-deps scikit-learn"
        ) from error
    return torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)


def _train(model: DigitReader, images: torch.Tensor, labels: torch.Tensor) -> DigitReader:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in progress.bar(range(EPOCHS), desc="training on digits"):
        for batch in torch.randperm(len(images)).split(BATCH):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


@contextmanager
def _reproducible() -> Iterator[None]:
    """A fixed seed, one thread and gradients for a while, whatever the caller has set."""
    threads = torch.get_num_threads()
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        try:
            torch.set_num_threads(1)
            torch.manual_seed(SEED)
            yield
        finally:
            torch.set_num_threads(threads)
