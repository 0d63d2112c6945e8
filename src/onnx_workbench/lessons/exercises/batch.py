"""03: export the digit reader for any batch size, at a given opset, in one file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...agreement import verify
from ...artifact import Artifact
from ...errors import WorkbenchError
from ..reader import digits
from . import Hint, differs, hint

ANSWER = Artifact
OPSET = 18
SIZES = (1, 7, 64)


def judge(answer: Any) -> Iterator[Hint]:
    read = digits()
    for size in SIZES:
        try:
            answer(read.test_images[:size])
        except WorkbenchError as error:
            yield hint("fails", size=size, error=error)
    if answer.opset != OPSET:
        yield hint("opset", opset=answer.opset, asked=OPSET)
    if len(answer.files) != 1:
        names = " and ".join(file.name for file in answer.files)
        yield hint("files", count=len(answer.files), names=names)
    for size in SIZES:
        yield from differs("differs", verify(read.model, answer, read.test_images[:size]))
