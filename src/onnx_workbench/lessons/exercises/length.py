"""06: mend a model that is frozen at the length of its example."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...artifact import Artifact, export
from ...capturing.signature import parameters
from ...divergence import verify
from ...errors import CaptureError, InputError, WorkbenchError
from ...shapes.contract import probe
from ..task import Exercise

LONGEST, WIDTH, EXAMPLE = 64, 8, 16


class Positions(nn.Module):
    """Adds its row of a table to each word: ``float32[batch, words, 8]`` -> the same shape."""

    def __init__(self) -> None:
        super().__init__()
        noise = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(LONGEST, WIDTH, generator=noise))
        self.words = EXAMPLE

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table[: self.words]


@cache
def given() -> Positions:
    return Positions().eval().requires_grad_(False)


def wanted(x: torch.Tensor) -> torch.Tensor:
    """What a mended model returns."""
    return x + given().table[: x.shape[1]]


def example(words: int) -> torch.Tensor:
    return torch.rand(2, words, WIDTH, generator=torch.Generator().manual_seed(words))


def judge(answer: Any) -> str | None:
    if not isinstance(answer, nn.Module):
        return _not_a_model(answer)
    return _numbers(answer) or _exported(answer)


def _not_a_model(answer: Any) -> str:
    if isinstance(answer, type) and issubclass(answer, nn.Module):
        return "That is the class. Answer with a model: call the class, and `.eval()` it."
    if isinstance(answer, Artifact):
        return (
            "That is the exported file. Answer with the model; it is exported when it is checked."
        )
    return f"That is a {type(answer).__name__}. Answer with a torch.nn.Module."


def _numbers(answer: nn.Module) -> str | None:
    for words in range(1, LONGEST + 1):
        try:
            leaf = verify(wanted, answer, example(words)).worst
        except InputError as error:
            cause = error.__cause__ or error
            return (
                f"With {words} words your model itself raises {type(cause).__name__}: "
                f"{str(cause).splitlines()[0]}\nTake as many rows of the table as there are words: "
                "their number is x.shape[1]."
            )
        if leaf.reason and leaf.worst is None and words == 1:
            return (
                f"With 1 word it is wrong, and nothing is raised: {leaf.reason}, where b is yours. "
                "One word and many rows broadcast. Take x.shape[1] rows of the table."
            )
        if leaf.reason:
            return (
                f"With {words} words your model's own numbers are wrong: {leaf.reason}. "
                "Word i gets row i of the table, counted from the first, as in `exercise.given`."
            )
    return None


def _exported(answer: nn.Module) -> str | None:
    name = next(iter(parameters(answer).parameters))
    dynamic = {name: {1: "words"}}
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            file = export(
                answer, example(EXAMPLE), Path(folder, "answer.onnx"), dynamic_shapes=dynamic
            )
            wrong = next((n for n in range(1, LONGEST + 1) if not _agrees(file, n)), None)
    except CaptureError as error:
        return f"PyTorch's own numbers are right, and the length is still frozen.\n{error}"
    if wrong is None:
        return None
    contract = probe(answer, example(EXAMPLE), dynamic_shapes=dynamic)
    return f"It was exported, and ONNX Runtime is wrong with {wrong} words.\n{contract!r}"


def _agrees(file: Artifact, words: int) -> bool:
    try:
        return bool(verify(wanted, file, example(words)))
    except WorkbenchError:
        return False


EXERCISE = Exercise(
    number="06",
    title="Any length",
    text=(
        "`model = exercise.given` adds to each word the row of a table that stands for its place. "
        f"Its table has {LONGEST} rows, and it works with {EXAMPLE} words alone:\n\n"
        "    def forward(self, x):\n"
        "        return x + self.table[: self.words]\n\n"
        f"**Mend it for 1 to {LONGEST} words, and keep its table.** Answer with a model; it is "
        f"exported with {EXAMPLE} words and run by ONNX Runtime with every other number of them."
    ),
    start=(
        "Begin with a class derived from type(exercise.given) that has a `forward(self, x)` of its "
        "own. How many rows of self.table does x need?"
    ),
    judge=judge,
    material=given,
    source="""
        import onnx_workbench as ow

        class Mended(type(ow.lessons.exercise("06").given)):
            def forward(self, x):
                return x + self.table[: x.shape[1]]

        answer = Mended().eval()
        """,
)
