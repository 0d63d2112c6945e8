"""02: rewrite a function so that Dynamo captures it whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from ... import bytecode, graph
from ...agreement import verify
from . import Hint, differs, hint

ANSWER = Callable


def brighten(image: torch.Tensor) -> torch.Tensor:
    image = image * 2
    if image.mean() > 1:
        return image - 1
    return image + 0.25


def given() -> Callable[[torch.Tensor], torch.Tensor]:
    return brighten


def judge(answer: Any) -> Iterator[Hint]:
    noise = torch.rand(1, 5, 5, generator=torch.Generator().manual_seed(0)) / 4
    checks = 0.9 * (torch.arange(25) % 2).reshape(1, 5, 5)  # bright at every other pixel
    images = {"dark": noise, "bright": 0.75 + noise, "half dark": checks, "half bright": 1 - checks}
    for kind, image in images.items():
        if answer(image.clone()) is None:
            yield hint("none")
        found = verify(brighten, answer, image)
        yield from differs("pixels" if "half" in kind else "differs", found, kind=kind)
    for broken in bytecode.watch(answer, image).breaks:
        yield hint("breaks", line=broken.line, reason=broken.reason)

    class Module(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return answer(image)

    graph.capture(Module().eval(), image)
