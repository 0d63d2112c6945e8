"""03: export the digit reader for any batch size, at a given opset, in one file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...agreement import verify
from ...artifact import Artifact
from ...errors import WorkbenchError
from ...formatting import kind_of
from ..reader import digits

OPSET = 18
SIZES = (1, 7, 64)


def judge(answer: Any) -> Iterator[str]:
    if not isinstance(answer, Artifact):
        yield (
            f"That is {kind_of(answer)}. Answer with the Artifact that ow.export() returned, or "
            "with ow.load(path)."
        )
    read = digits()
    for size in SIZES:
        try:
            answer(read.test_images[:size])
        except WorkbenchError as error:
            yield (
                f"It does not run with batch {size}: {error}\nThe batch is the first dimension of "
                "`images`. Name it when you export: dynamic_shapes={'images': {0: 'batch'}}."
            )
    if answer.opset != OPSET:
        yield f"Its opset is {answer.opset}, and {OPSET} is asked for: opset_version={OPSET}."
    if len(answer.files) != 1:
        yield (
            f"It is {len(answer.files)} files: {' and '.join(file.name for file in answer.files)}. "
            "ow.export() writes one; torch.onnx.export does with external_data=False."
        )
    for size in SIZES:
        leaf = verify(read.model, answer, read.test_images[:size]).worst
        if leaf.reason:
            yield (
                f"It runs, and differs from `digits.model`: {leaf.reason}, where b is yours. "
                "Export the trained `digits.model` as it is."
            )
