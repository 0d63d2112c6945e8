"""One graph exported at each of several opsets: the nodes and the numbers of each file."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from . import progress
from .agreement import verify
from .artifact import Artifact, export
from .calls import door
from .comparison import Tolerance, checked
from .errors import ExportError, InputError, WorkbenchError
from .formatting import TableReport
from .graph import Graph, capture
from .graph.exporter import Translations

FIRST = 13
"""The oldest opset that is asked for by default; torch.onnx itself was written for 18."""

_REACHED = {"check": ("no", "-", "-"), "load": ("ok", "no", "-")}


@door
def opsets(
    model: nn.Module | Graph,
    args: Any = (),
    kwargs: dict[str, Any] | None = None,
    *,
    asked: Iterable[int] | None = None,
    dynamic_shapes: Any = None,
    custom_translation_table: Translations | None = None,
    tolerance: float | tuple[float, float] | None = None,
) -> Ladder:
    """Export at each opset and check each file: captured once, translated each time.

    Every file goes through :func:`~onnx_workbench.export`: one that is labeled with another opset
    than asked for, or holds operators that its opset does not have, is refused. What it accepts is
    run beside the model. Nothing is left on disk.

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
    graph = capture(model, args, kwargs, dynamic_shapes=dynamic_shapes)
    wanted = range(FIRST, onnx.defs.onnx_opset_version() + 1) if asked is None else asked
    steps = progress.bar([*wanted], delay=2)
    rungs = (_rung(graph, opset, custom_translation_table, bounds) for opset in steps)
    return Ladder(graph.name, tuple(rungs))


@dataclass(frozen=True)
class Rung:
    """One opset. ``got`` is the opset of the file, None if no file was written.

    ``refused`` is the step at which export gave up (translate, opset, check or load), ``differs``
    how the numbers differ, and ``compared`` is False where the file does not take the
    model's inputs; ``said`` has the reason.
    """

    asked: int
    got: int | None
    operations: Counter[str]
    refused: str = ""
    differs: bool = False
    compared: bool = True
    said: str = ""

    def __bool__(self) -> bool:
        return not self.refused and not self.differs and self.compared

    def steps(self) -> tuple[str, str, str]:
        """The verdicts of checker, loader and comparison; a dash where it was not reached."""
        if not self.refused:
            numbers = "differ" if self.differs else "same" if self.compared else "-"
            return "ok", "ok", numbers
        return _REACHED.get(self.refused, ("-", "-", "-"))


@dataclass(frozen=True, repr=False)
class Ladder(TableReport):
    """The result of :func:`opsets`, in the order asked."""

    _HEADER = ("asked", "got", "checker", "loads", "numbers", "nodes", "against the one above")
    _RIGHT = (0, 1, 5)

    name: str
    rungs: tuple[Rung, ...]

    @property
    def good(self) -> tuple[int, ...]:
        """The opsets whose file was accepted and gives the model's numbers."""
        return tuple(rung.asked for rung in self.rungs if rung)

    def changes(self) -> list[Counter[str]]:
        """For each rung the operators gained (above 0) and lost against the last file before it."""
        found, before = [], None
        for rung in self.rungs:
            now = Counter(rung.operations)
            if before is not None and not rung.refused:
                now.subtract(before)
            found.append(Counter({op: n for op, n in now.items() if n and before}))
            before = rung.operations if not rung.refused else before
        return found

    def _headline(self) -> str:
        return f"opsets of {self.name}"

    def _notes(self) -> Iterable[str]:
        """Why a file was refused or differs; a reason that only names another opset, once."""
        bad = (rung for rung in self.rungs if not rung)
        said = {r.said.replace(f" {r.asked} ", " N "): f"{r.asked}: {r.said}" for r in bad}
        return said.values()

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                str(rung.asked),
                str(rung.got or "-"),
                *rung.steps(),
                str(rung.operations.total() or "-"),
                " ".join(f"{count:+d} {op}" for op, count in sorted(change.items())),
            )
            for rung, change in zip(self.rungs, self.changes(), strict=True)
        ]


def _rung(
    graph: Graph, opset: int, translations: Translations | None, tolerance: Tolerance | None
) -> Rung:
    """One export, in a folder that is gone before the next: the files of a model may be large."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / f"{opset}.onnx"
        try:
            artifact = export(
                graph, f=path, opset_version=opset, custom_translation_table=translations
            )
        except ExportError as error:
            return Rung(opset, error.got, Counter(), error.step, said=str(error).splitlines()[0])
        try:
            said = _difference(graph, artifact, tolerance)
        except InputError as error:  # such as complex numbers, which no file takes
            said = str(error).splitlines()[0]
            return Rung(opset, artifact.opset, artifact.operations, compared=False, said=said)
        return Rung(opset, artifact.opset, artifact.operations, differs=bool(said), said=said)


def _difference(graph: Graph, artifact: Artifact, tolerance: Tolerance | None) -> str:
    args, kwargs = graph.program.example_inputs
    try:
        agreement = verify(graph.model, artifact, args, kwargs, tolerance=tolerance)
    except InputError:
        raise
    except WorkbenchError as error:
        return str(error).splitlines()[0]
    return "" if agreement else agreement.worst.said
