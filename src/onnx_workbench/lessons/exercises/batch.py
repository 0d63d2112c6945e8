"""03: export the digit reader for any batch size, at a given opset, in one file."""

from __future__ import annotations

import os
from typing import Any

from torch import nn

from ...artifact import Artifact
from ...divergence import verify
from ...errors import WorkbenchError
from ..reader import Digits, digits
from ..task import Exercise

OPSET = 18
SIZES = (1, 7, 64)


def judge(answer: Any) -> str | None:
    if not isinstance(answer, Artifact):
        return _not_an_artifact(answer)
    read = digits()
    return _static(answer, read) or _settings(answer) or _numbers(answer, read)


def _not_an_artifact(answer: Any) -> str:
    if isinstance(answer, (str, os.PathLike)):
        return (
            "That is a path. Answer with what ow.export() returned, which can be called; a file "
            "that is there already becomes one with ow.load()."
        )
    if isinstance(answer, nn.Module):
        return "That is the PyTorch model itself. Answer with what ow.export() returned."
    return f"That is a {type(answer).__name__}. Answer with what ow.export() returned, an Artifact."


def _static(file: Artifact, read: Digits) -> str | None:
    for size in SIZES:
        try:
            file(read.test_images[:size])
        except WorkbenchError as error:
            return (
                f"It does not run with batch {size}: {error}\nThe batch is the first dimension of "
                "`images`. Name it when you export: dynamic_shapes={'images': {0: 'batch'}}."
            )
    return None


def _settings(file: Artifact) -> str | None:
    if file.opset != OPSET:
        return f"Its opset is {file.opset}, and {OPSET} is asked for: pass opset_version={OPSET}."
    if len(file.files) != 1:
        names = " and ".join(path.name for path in file.files)
        return (
            f"It is {len(file.files)} files, {names}, and the first is useless without the other. "
            "ow.export() writes one; torch.onnx.export does with external_data=False."
        )
    return None


def _numbers(file: Artifact, read: Digits) -> str | None:
    for size in SIZES:
        leaf = verify(read.model, file, read.test_images[:size]).worst
        if leaf.reason and leaf.worst is None:
            return (
                f"It returns something else than the model: {leaf.reason}, where b is yours. "
                "Export `digits.model` as it is."
            )
        if leaf.reason:
            return (
                f"It runs, and its numbers are not those of `digits.model`: {leaf.reason}. "
                f"It reads {read.accuracy(file):.0%} of the test digits, the model "
                f"{read.accuracy(read.model):.0%}. Export the trained `digits.model`."
            )
    return None


EXERCISE = Exercise(
    number="03",
    title="Any batch, one file",
    text=(
        "Export the trained reader (`digits = lessons.digits()`, its `model` and `images`) so that "
        f"the file runs with **any batch size**, asks for **opset {OPSET}**, and is **one file** "
        "that reads digits as well as the model does. Answer with what `ow.export()` returns."
    ),
    start=(
        "Begin with ow.export(digits.model, digits.images[:2], 'reader.onnx') and add what is "
        "asked for: `dynamic_shapes` and `opset_version`."
    ),
    judge=judge,
    source=f"""
        import onnx_workbench as ow

        digits = ow.lessons.digits()
        batch = {{"images": {{0: "batch"}}}}
        answer = ow.export(
            digits.model,
            digits.images[:2],
            "reader.onnx",
            dynamic_shapes=batch,
            opset_version={OPSET},
        )
        """,
)
