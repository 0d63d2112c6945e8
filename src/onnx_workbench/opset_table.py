"""One graph exported at several opsets: what each file contains and whether it agrees."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from torch import nn
from torch.export import ExportedProgram

from . import progress
from .agreement import verify
from .artifact import export
from .calls import normalize_call
from .comparison import Tolerance, checked
from .errors import ExportError, InputError, WorkbenchError
from .formatting import Part, Report, Table
from .graph import Graph, capture, check_module
from .graph.exporter import Translations
from .proto import grouped

FIRST = 13
"""The oldest opset tried by default; torch.onnx itself targets 18."""

_HEADER = ("asked", "got", "checker", "loads", "numbers", "nodes", "against the one above")
_REACHED = {"check": ("no", "-", "-"), "load": ("ok", "no", "-")}


@normalize_call
def opsets(
    model: nn.Module | Graph,
    args: Any = (),
    kwargs: dict[str, Any] | None = None,
    *,
    asked: Iterable[int] | None = None,
    dynamic_shapes: Any = None,
    custom_translation_table: Translations | None = None,
    tolerance: float | tuple[float, float] | None = None,
) -> OpsetTable:
    """Export at each opset and check each file: captured once, translated each time.

    Every file goes through :func:`~onnx_workbench.export`, which refuses a file with another opset
    than asked for, or with operators that its opset lacks. The files it accepts run beside the
    model. No file stays on disk.

    Args:
        model: a Graph, or a module with the ``args``, ``kwargs`` and ``dynamic_shapes`` of
            :func:`~onnx_workbench.capture`.
        asked: the opsets; the default is 13 to the highest that the installed onnx knows.
        custom_translation_table: as for export, the same at each opset.
        tolerance: as for :func:`~onnx_workbench.verify`.

    Raises:
        InputError, CaptureError: as for capture.

    >>> import torch
    >>> opsets(nn.GELU().eval(), torch.ones(2), asked=(18, 20))
    opsets of GELU
    asked  got  checker  loads  numbers  nodes  against the one above
    -----  ---  -------  -----  -------  -----  -----------------------------------
       18   18  ok       ok     same         5
       20   20  ok       ok     same         1  -1 Add -1 Div -1 Erf +1 Gelu -2 Mul
    """
    bounds = checked(tolerance)
    if isinstance(asked, str) or not isinstance(asked, Iterable | None):
        raise InputError(f"`asked` is {asked!r}, but must be a list.", f"Pass asked=[{asked}].")
    if not isinstance(model, (Graph, ExportedProgram)):
        check_module("opsets", model)
    graph = capture(model, args, kwargs, dynamic_shapes=dynamic_shapes)
    wanted = [*(range(FIRST, onnx.defs.onnx_opset_version() + 1) if asked is None else asked)]
    results = []
    with progress.bar("opsets", total=len(wanted)) as step:
        for opset in wanted:
            step(str(opset))
            results.append(_result(graph, opset, custom_translation_table, bounds))
    return OpsetTable(graph.name, tuple(results))


@dataclass(frozen=True)
class OpsetResult:
    """What happened at one opset. ``got`` is the opset of the file, None if none was written.

    ``refused`` is the step at which export gave up (translate, opset, check or load); ``differs``
    is True if the numbers differ; ``compared`` is False if the file does not take the model's
    inputs; ``reason`` explains each of these.
    """

    asked: int
    got: int | None
    operations: Counter[str]
    refused: str = ""
    differs: bool = False
    compared: bool = True
    reason: str = ""

    def __bool__(self) -> bool:
        return not self.refused and not self.differs and self.compared

    def steps(self) -> tuple[str, str, str]:
        """The verdicts of checker, loader and comparison; a dash for a step not reached."""
        if not self.refused:
            numbers = "differ" if self.differs else "same" if self.compared else "-"
            return "ok", "ok", numbers
        return _REACHED.get(self.refused, ("-", "-", "-"))


@dataclass(frozen=True, repr=False)
class OpsetTable(Report):
    """The result of :func:`opsets`, in the order of the opsets asked for."""

    name: str
    results: tuple[OpsetResult, ...]

    @property
    def good(self) -> tuple[int, ...]:
        """The opsets whose file was accepted and gives the model's numbers."""
        return tuple(result.asked for result in self.results if result)

    def changes(self) -> list[Counter[str]]:
        """For each opset, operators gained (above 0) and lost since the last file before it."""
        changes, before = [], None
        for result in self.results:
            now = Counter(result.operations)
            if before is not None and not result.refused:
                now.subtract(before)
            changes.append(Counter({op: n for op, n in now.items() if n and before}))
            before = result.operations if not result.refused else before
        return changes

    def _parts(self) -> Iterator[Part]:
        yield f"opsets of {self.name}"
        yield Table(self._rows(), _HEADER, right=(0, 1, 5))
        # Why a file was refused or differs. Reasons that differ only in the opset appear once.
        bad = (result for result in self.results if not result)
        alike = grouped((one.reason.replace(f" {one.asked} ", " N "), one) for one in bad)
        for results in alike.values():
            asked = ", ".join(str(result.asked) for result in results)
            yield f"{asked}: {results[-1].reason}"

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                str(result.asked),
                str(result.got or "-"),
                *result.steps(),
                str(result.operations.total() or "-"),
                " ".join(f"{count:+d} {op}" for op, count in sorted(change.items())),
            )
            for result, change in zip(self.results, self.changes(), strict=True)
        ]


def _result(
    graph: Graph, opset: int, translations: Translations | None, tolerance: Tolerance | None
) -> OpsetResult:
    """Export once. The folder is removed before the next export, since files may be large."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / f"{opset}.onnx"
        try:
            artifact = export(
                graph, f=path, opset_version=opset, custom_translation_table=translations
            )
        except ExportError as error:
            reason = str(error).splitlines()[0]
            return OpsetResult(opset, error.got, Counter(), error.step, reason=reason)
        result = OpsetResult(opset, artifact.opset, artifact.operations)
        args, kwargs = graph.example
        try:
            agreement = verify(graph.model, artifact, args, kwargs, tolerance=tolerance)
        except WorkbenchError as error:
            unfit = isinstance(error, InputError)  # such as complex numbers, which no file takes
            reason = str(error).splitlines()[0]
            return replace(result, differs=not unfit, compared=not unfit, reason=reason)
        reason = "" if agreement else agreement.worst.summary
        return replace(result, differs=not agreement, reason=reason)
