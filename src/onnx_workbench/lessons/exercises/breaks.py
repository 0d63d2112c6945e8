"""02: rewrite a function so that Dynamo captures it whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from ... import bytecode, graph
from ...agreement import verify
from ...formatting import kind_of


def brighten(image: torch.Tensor) -> torch.Tensor:
    image = image * 2
    if image.mean() > 1:
        return image - 1
    return image + 0.25


def given() -> Callable[[torch.Tensor], torch.Tensor]:
    return brighten


def judge(answer: Any) -> Iterator[str]:
    if not callable(answer):
        yield f"Answer with the function itself, uncalled; this is {kind_of(answer)}."
    noise = torch.rand(1, 5, 5, generator=torch.Generator().manual_seed(0)) / 4
    for branch, image in {"dark": noise, "bright": 0.75 + noise}.items():
        if answer(image.clone()) is None:
            yield "Your function returns None. It needs a `return`."
        leaf = verify(brighten, answer, image).worst
        if leaf.reason:
            yield (
                f"On a {branch} image it differs from brighten(): {leaf.reason}, where b is yours. "
                "Keep the shape, the dtype and both branches."
            )
    for broken in bytecode.watch(answer, image).breaks:
        yield (
            f"The numbers are right, and the graph still breaks at {broken.line}\n{broken.reason}\n"
            "Compute both results and choose between them with an operator: torch.where."
        )

    class Module(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return answer(image)

    graph.capture(Module().eval(), image)
