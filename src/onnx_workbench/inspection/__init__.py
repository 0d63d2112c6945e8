"""Everything that this package can find out about a model, in one report: ``audit``."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from .. import calls, files, progress
from ..artifact import Artifact
from ..calls import door
from ..comparison import checked
from ..errors import InputError, TrainingModeWarning
from ..formatting import html_table, kind_of, plural, table
from ..graph import Graph, opened_up
from ..graph.exporter import Translations
from ..viewer.origin import without_folders
from . import bundle, stages
from .finding import FAULTS, VERDICTS, Finding
from .stages import Case

__all__ = ["Audit", "Finding", "audit"]

_HEADER = ("stage", "verdict", "what was found", "line")


@door
def audit(
    model: nn.Module | Artifact | ExportedProgram | Graph,
    args: Any = (),
    kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    opset_version: int | None = None,
    custom_translation_table: Translations | None = None,
    skip: Collection[str] = (),
    tolerance: float | tuple[float, float] | None = None,
) -> Audit:
    """Capture, export, run, compare, time: each stage with its verdict, its line and a repair.

    A stage that fails does not end the audit: what can still be tried is tried, and what cannot is
    listed with the reason. The stages capture, export, contract and numbers always count: one that
    could not run is a fault, unless ``skip`` names it. Nothing is written; the files that it makes
    are gone afterwards.

    Args:
        model: in whatever mode it is; or an Artifact. A file says nothing of the model it came
            from, so that its audit is true only where ``skip`` names the four stages that count.
        args, kwargs: the call, as for the model itself.
        dynamic_shapes: the dimensions that stay dynamic, as for :func:`~onnx_workbench.export`.
        opset_version: the opset that is wanted; None is the exporter's own.
        custom_translation_table: of custom operators, as for export.
        skip: stages to leave out, such as ``{"latency", "hot lines"}``.
        tolerance: of all comparisons, as for :func:`~onnx_workbench.verify`.

    Returns:
        an Audit; it is true where nothing is broken, wrong or at risk, and what counts has run.

    Raises:
        InputError: no module or Artifact, ``skip`` names no stage, or ``tolerance`` is none.

    >>> import torch
    >>> report = audit(nn.ReLU().eval(), torch.ones(2, 3), skip={"latency", "hot lines"})
    >>> bool(report), report.findings[-1].stage
    (True, 'size')
    """
    model, args, kwargs, dynamic_shapes = opened_up(model, args, kwargs or {}, dynamic_shapes)
    if not isinstance(model, (nn.Module, Artifact)):
        raise InputError(
            f"audit() was given {kind_of(model)}, and it takes a torch.nn.Module or an "
            "Artifact. Pass the model itself, or the .onnx file through load()."
        )
    if isinstance(model, nn.Module):
        calls.check_initialized("audit", model)
    names = [stage.name for stage in stages.STAGES]
    if isinstance(skip, str) or not isinstance(skip, Collection):
        raise InputError(f"`skip` is {skip!r:.80}, and it takes a set of names of stages.")
    if unknown := [name for name in skip if name not in names]:
        raise InputError(
            f"`skip` names {', '.join(map(repr, unknown))}, and the stages are {', '.join(names)}."
        )
    case = Case(model, args, kwargs, dynamic_shapes, opset_version, custom_translation_table)
    case.tolerance = checked(tolerance)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingModeWarning)  # a finding of its own
        case.folder = Path(folder)
        found = tuple(_run(case, skip))
        case.artifact = None  # type: ignore[assignment]  # it ends with the folder
    return Audit(case, tuple(sorted(found, key=lambda finding: VERDICTS.index(finding.verdict))))


def _run(case: Case, skip: Collection[str]) -> Iterator[Finding]:
    chosen = [stage for stage in stages.STAGES if stage.name not in skip]
    with progress.bar(total=len(chosen), desc="audit", delay=2) as bar:
        for stage in chosen:
            bar.set_postfix_str(stage.name, refresh=False)
            yield from stage(case)
            bar.update()


@dataclass(frozen=True, repr=False, eq=False)
class Audit:
    """The answer of :func:`audit`. ``findings`` come worst first."""

    case: Case
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What is broken, wrong or at risk, and what counts for a model but could not be tried."""
        model = self.case.model is not None
        counted = {stage.name for stage in stages.STAGES if stage.counts and model}
        return tuple(
            finding
            for finding in self.findings
            if finding.verdict in FAULTS
            or (finding.verdict == "not tried" and finding.stage in counted)
        )

    def __bool__(self) -> bool:
        return not self.faults

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the report as one HTML file that needs nothing else, and return its path.

        No folder of this machine is in it.
        """
        page = bundle.page(f"Audit of {self.case.name}", without_folders(self._repr_html_()))
        return files.write(path, page)

    def bundle(self, path: str | PathLike[str]) -> Path:
        """Write what a bug report needs into a new folder, or into a .zip file, without weights.

        It has ``repro.py``, which runs by itself (torch, onnx and onnxruntime are enough): the
        model's source, its structure with random weights of a fixed seed, the shapes of the call;
        and the versions and this report. What the model itself holds besides tensors, such as a
        configuration, is in the structure: look before you publish.

        Raises:
            InputError: ``path`` exists or its folder does not, or the model cannot be taken apart.
        """
        return bundle.write(self, path)

    def __repr__(self) -> str:
        rows = [finding.row() for finding in self.findings]
        return "\n".join([self._headline(), table(rows, _HEADER), *self._repairs()])

    def _repr_html_(self) -> str:
        rows = [finding.row() for finding in self.findings]
        repairs = escape("\n".join(self._repairs()))
        head = f"<p><b>{escape(self._headline())}</b></p>"
        return f"{head}{html_table(rows, _HEADER)}<pre>{repairs}</pre>"

    def _headline(self) -> str:
        found = sum(finding.verdict in FAULTS for finding in self.findings)
        ran = {finding.stage for finding in self.findings if finding.verdict != "not tried"}
        sound = self.case.model is not None and not self.faults
        said = [plural(found, "finding")] if found else ["nothing to mend"] if sound else []
        if len(ran) < len(stages.STAGES):
            said += [f"{len(ran)} of {len(stages.STAGES)} stages ran"]
        return f"{self.case.name}: {', '.join(said)}"

    def _repairs(self) -> Iterator[str]:
        for finding in self.findings:
            if finding.repair:
                where = f" ({finding.line!r})" if finding.line else ""
                yield f"\n{finding.stage}{where}\n    {finding.repair}"
