"""02: rewrite a function so that Dynamo captures it whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ... import bytecode
from ...capturing import graph
from ...divergence import verify
from ..task import Exercise

SIZE = 5


def brighten(image: torch.Tensor) -> torch.Tensor:
    """The function that is to be rewritten."""
    image = image * 2
    if image.mean() > 1:
        return image - 1
    return image + 0.25


def judge(answer: Any) -> str | None:
    if not callable(answer):
        return (
            f"A function is asked for, and this is a {type(answer).__name__}: pass the function "
            "itself, without calling it."
        )
    return _numbers(answer) or _broken(answer) or _exportable(answer)


def _numbers(answer: Any) -> str | None:
    for branch, image in examples().items():
        if answer(image.clone()) is None:
            return EXERCISE.start
        leaf = verify(brighten, answer, image).worst
        if leaf.reason and leaf.worst is None:
            return (
                f"It returns another kind of value than brighten(): {leaf.reason}, where b is "
                "yours. Keep its shape and dtype."
            )
        if leaf.reason:
            return (
                f"On {branch} image the numbers differ: {leaf.reason}. "
                "brighten() has two branches, and yours must have both."
            )
    return None


def _broken(answer: Any) -> str | None:
    breaks = bytecode.watch(answer, examples()["a bright"]).breaks
    if not breaks:
        return None
    first = breaks[0]
    return (
        f"The numbers are right, and the graph still breaks at {first.line}\n{first.reason}\n"
        "Compute both results and choose between them with an operator: torch.where."
    )


def _exportable(answer: Any) -> str | None:
    graph.capture(_Module(answer).eval(), examples()["a bright"])
    return None


class _Module(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.function(image)


def examples() -> dict[str, torch.Tensor]:
    """One image for each branch, ``float32[1, 5, 5]``."""
    noise = torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) / 4
    return {"a bright": 0.75 + noise, "a dark": noise}


EXERCISE = Exercise(
    number="02",
    title="A function without a break",
    text=(
        "`brighten = exercise.given` breaks into two graphs, at a Python `if` that needs the value "
        "of a tensor:\n\n"
        "    def brighten(image):\n"
        "        image = image * 2\n"
        "        if image.mean() > 1:\n"
        "            return image - 1\n"
        "        return image + 0.25\n\n"
        "**Write a function that returns the same numbers and is captured whole.** Answer with the "
        "function."
    ),
    start=(
        "Begin with `def steady(image):`, compute the results of both branches, and return the one "
        "that applies."
    ),
    judge=judge,
    material=lambda: brighten,
    source="""
        import torch

        def answer(image):
            image = image * 2
            return torch.where(image.mean() > 1, image - 1, image + 0.25)
        """,
)
