"""``audit``: everything that this package can find out about a model, in one report."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from .. import calls, files, progress
from ..artifact import Artifact
from ..calls import normalize_call
from ..comparison import checked
from ..errors import InputError, TrainingModeWarning, WorkbenchError
from ..formatting import Part, Report, Table, kind_of, plural
from ..graph import Graph, module_and_call
from ..graph.exporter import Translations
from ..lineage.stopped import stopped
from ..machine import versions
from . import bundle, changes, codes, formats, page
from .changes import Changes
from .finding import FAULTS, VERDICTS, Finding, rows
from .stages import STAGES, Case

__all__ = ["Audit", "AuditError", "Changes", "Finding", "audit"]


@normalize_call
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
    """Capture, export, run, compare and time a model: each stage with a verdict and a repair.

    A stage that fails does not end the audit: stages that can still run do, and the others are
    listed with the reason. The stages capture, export, contract and numbers always count: one that
    could not run is a fault, unless ``skip`` names it. The audit leaves no files behind.

    Args:
        model: a module in any mode, or an Artifact. A file does not contain its model: half of
            the stages cannot run, and the report counts those that did.
        args, kwargs: the call, as for the model itself.
        dynamic_shapes: the dimensions that stay dynamic, as for :func:`~onnx_workbench.export`.
        opset_version: the opset to export; None is the exporter's default.
        custom_translation_table: for custom operators, as for export.
        skip: stages to leave out, such as ``{"latency", "hot lines"}``.
        tolerance: for all comparisons, as for :func:`~onnx_workbench.verify`.

    Returns:
        an Audit; it is true if nothing is broken, wrong or at risk and the stages that count ran.

    Raises:
        InputError: ``model`` is no module or Artifact, an option of the export was given with an
            Artifact, ``skip`` has a name that is no stage, or ``tolerance`` is not valid.

    >>> import torch
    >>> report = audit(nn.ReLU().eval(), torch.ones(2, 3), skip={"latency", "hot lines"})
    >>> bool(report), report.findings[-1].stage
    (True, 'size')
    """
    model, args, kwargs, dynamic_shapes = module_and_call(model, args, kwargs or {}, dynamic_shapes)
    if not isinstance(model, (nn.Module, Artifact)):
        raise InputError(
            f"audit() takes a torch.nn.Module or an Artifact, and was given {kind_of(model)}.",
            "Pass the model itself, or the .onnx file through load().",
        )
    if isinstance(model, nn.Module):
        calls.check_initialized("audit", model)
    elif opset_version is not None or custom_translation_table is not None:
        raise InputError(
            f"audit() was given {model.path.name} with an option of the export, but the file is "
            "exported already.",
            "Leave out opset_version and custom_translation_table, or audit the model.",
        )
    skip = codes.stages(skip)
    bounds = checked(tolerance)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingModeWarning)  # the audit reports it as a finding
        options = dynamic_shapes, opset_version, custom_translation_table, bounds
        case = Case(model, args, kwargs, *options, Path(folder))
        findings = list(_run(case, skip))
        case.close()  # the file is removed with the folder
    return Audit(case, tuple(sorted(findings, key=lambda one: VERDICTS.index(one.verdict))))


def _run(case: Case, skip: Collection[str]) -> Iterator[Finding]:
    chosen = [stage for stage in STAGES if stage.name not in skip]
    with progress.bar("audit", total=len(chosen)) as step:
        for stage in chosen:
            step(stage.name)
            yield from stage(case)


class AuditError(WorkbenchError):
    """The audit of a model found ``findings``; the message lists them."""

    def __init__(self, name: str, findings: Sequence[Finding]) -> None:
        first, *_ = self.findings = tuple(findings)
        parts = [f"{name}: {plural(len(findings), 'finding')}"]
        for one in findings:
            parts.append(f"{one.code} {one.verdict}: {one.sentence}")
            parts += [f"    at {one.line!r}"] * bool(one.line)
            parts += [f"    What helps: {one.repair}"] * bool(one.repair)
        super().__init__("\n".join(parts))
        self.hint, self.line, self.reason = first.repair, first.line, first.sentence

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, repr=False, eq=False)
class Audit(Report):
    """The result of :func:`audit`. ``findings`` come worst first."""

    _HEADER = ("code", "stage", "verdict", "what was found", "line")

    case: Case
    findings: tuple[Finding, ...]
    when: str = field(default_factory=lambda: f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}")

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What is broken, wrong or at risk, and the stages that count but could not run."""
        counted = {stage.name for stage in STAGES if stage.counts and self.case.model is not None}
        return tuple(
            finding
            for finding in self.findings
            if finding.verdict in FAULTS
            or (finding.verdict == "not tried" and finding.stage in counted)
        )

    def __bool__(self) -> bool:
        return not self.faults

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the report as one self-contained HTML file, and return its path.

        It has each finding with its line and its repair, the graph with the time of each node, and
        the floors of each line. Folders of this machine are left out.
        """
        return files.write(files.writable_page(path), page.document(self))

    def to_dict(self) -> dict[str, Any]:
        """The report as a dict for JSON, with relative paths; ``report.schema.json`` in this
        package describes it."""
        return formats.to_dict(self)

    def compare(self, old: Audit | Mapping[str, Any] | str | PathLike[str]) -> Changes:
        """Which findings are gone and which are new since ``old``: an Audit, its ``to_dict()``, or
        a JSON file of that. The number of a line may have changed, its text may not.

        Raises:
            InputError: ``old`` is none of these.
        """
        return changes.compare(self, old)

    def raise_for_findings(
        self,
        *,
        baseline: Audit | Mapping[str, Any] | str | PathLike[str] | None = None,
        ignore: Collection[str] = (),
    ) -> None:
        """Raise if there are faults: for a test, where a bare ``assert report`` would lose them.

        Args:
            baseline: a report as for :meth:`compare`; its findings do not count.
            ignore: codes that do not count, such as ``{"OW112"}``.

        Raises:
            AuditError: it lists what is left.
            InputError: ``baseline`` is no report, or ``ignore`` has what is no code.
        """
        ignored = codes.ignored(ignore)
        known = [] if baseline is None else changes.faults(baseline)
        counted, _ = changes.gate(self, known, ignored)
        if counted:
            raise AuditError(self.case.name, counted)

    def bundle(self, path: str | PathLike[str]) -> Path:
        """Write what a bug report needs into a new folder or .zip file, without weights.

        Its ``repro.py`` runs by itself. It needs torch, onnxscript, onnxruntime and cloudpickle,
        and the same version of Python if the model is from a notebook. Beside it are the call, the
        source and structure of the model, the versions and this report. The structure contains
        everything in the model but its tensors, such as a configuration: look before you publish.
        A custom operator is included if ``torch.library.custom_op`` or a module made it.

        Raises:
            InputError: ``path`` exists or its folder does not, or the model cannot be pickled.
        """
        return bundle.write(self, path)

    @cached_property
    def sheet(self) -> dict[str, Any] | None:
        """The floors of the model, as :mod:`..lineage.floors` describes them: those of the file,
        else those up to the line that stopped the model. None if there are none."""
        lineage, error = self.case.lineage, self.case.error
        if lineage:
            return lineage.sheet
        return stopped(error).sheet if error and error.partial_graph else None

    @cached_property
    def versions(self) -> dict[str, str]:
        """The machine as ``platform``, and the versions of Python and of the packages."""
        return versions()

    def _repr_html_(self) -> str:
        return page.in_cell(self)

    def _parts(self) -> Iterator[Part]:
        yield self._headline()
        yield Table([*rows(self.findings)], self._HEADER)
        yield from self._notes()

    @property
    def verdict(self) -> str:
        """``2 findings``, ``nothing to fix``, or empty if that is not known."""
        faults = sum(finding.verdict in FAULTS for finding in self.findings)
        sound = {stage.name for stage in STAGES if stage.counts} <= self._stages_ran
        return plural(faults, "finding") if faults else "nothing to fix" * sound

    @property
    def ran(self) -> str:
        """``9 of 10 stages ran``"""
        return f"{len(self._stages_ran)} of {len(STAGES)} stages ran"

    @property
    def _stages_ran(self) -> set[str]:
        return {finding.stage for finding in self.findings if finding.verdict != "not tried"}

    def _headline(self) -> str:
        parts = [self.verdict, self.ran if len(self._stages_ran) < len(STAGES) else ""]
        return f"{self.case.name}: {', '.join(filter(None, parts))}"

    def _notes(self) -> Iterator[str]:
        for finding in self.findings:
            if finding.repair:
                where = f" ({finding.line!r})" if finding.line else ""
                yield f"\n{finding.code}{where}\n    {finding.repair}"
