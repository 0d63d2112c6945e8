"""From a line of Python to the kernel that runs it, with its time, its memory and its values."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from .artifact import Artifact
from .calls import normalize_call
from .divergence import summaries
from .errors import WorkbenchError
from .hotspots import measured
from .lineage.stopped import Stopped, stopped
from .lineage.table import Lineage, join


@normalize_call
def trace(
    artifact: Artifact | WorkbenchError,
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    source: str | os.PathLike[str] | None = None,
    depth: int | None = None,
    level: str = "all",
    threads: int = 1,
    seconds: float = 1.0,
) -> Lineage | Stopped:
    """Join every floor of a model: source line, bytecode, FX node, decomposed FX node, ONNX node,
    optimized ONNX node, kernel.

    Without a call the floors up to the ONNX node are joined; nothing runs. With ``args``, the model
    runs once in PyTorch beside ONNX Runtime, which gives each value and its error, and then under
    ONNX Runtime's profiler, which gives each kernel and its time.

    Of an error that ``export`` or ``capture`` raised, the floors up to the line that stopped the
    model are shown, with the reason.

    Below a line that calls a model of a library are the library's own lines, each with its modules.

    Args:
        args, kwargs: a call of the model, as for the model itself; without both nothing runs.
        depth: how many calls below your line the library's lines are; None is the innermost, 0
            shows none.
        source: a folder with the model's ``.py`` files. Around the lines that the file quotes, the
            source is shown if this process exported the model, else from the folder of the model,
            the working folder and this one, without hidden folders.
        level, threads, seconds: of the profile, as for :func:`~onnx_workbench.profile`.

    Raises:
        InputError: ``artifact`` is no Artifact, ``source`` no folder, ``depth`` no number, or the
            call does not fit the model.
        LoadError: ONNX Runtime cannot load the model at this level.

    >>> from onnx_workbench import export, lessons
    >>> encoder = lessons.encoder()
    >>> path = getfixture("tmp_path") / "encoder.onnx"
    >>> lineage = trace(export(encoder.model, encoder.inputs, path))
    >>> scores = lineage.line_of("node_matmul")
    >>> scores.text
    'scores = query @ key.transpose(-2, -1)'
    >>> sorted({node.operator for node in lineage.at(scores)})
    ['MatMul', 'Transpose']
    """
    if isinstance(artifact, WorkbenchError):
        return stopped(artifact)
    lineage = join(artifact, source=source, depth=depth)
    if len(args) == 1 and args[0] is None:  # no tuple, so it was wrapped
        if not kwargs:
            return lineage
        args = ()
    kwargs = kwargs or {}
    values = {} if artifact.isolated else summaries(lineage, args, kwargs)
    spots = measured(lineage, args, kwargs, level, threads, seconds)
    flame = {by: spots.flame(by).tree() for by in ("stack", "module")}
    return replace(lineage, call=replace(spots.call, values=values, flame=flame))
