"""The stages of an audit, one function each, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import nn

from ..agreement import verify
from ..artifact import Artifact, export
from ..comparison import Agreement, Tolerance
from ..errors import CaptureError, ExportError, WorkbenchError
from ..formatting import plural, seconds
from ..graph import Graph, capture
from ..graph.exporter import Translations
from ..hotspots import profile
from ..ladder import opsets
from ..shapes.contract import misdeclared, probe
from ..shapes.trials import REFUSED, UNTRIED, Call
from ..source import Line, is_users, told, user_line
from ..timing.rounds import race
from ..torch_state import evaluating, trains
from . import facts
from .finding import Finding

QUICK = 0.2
"""Seconds that the latency and the hot lines may take each; both have a least number of runs."""

_OTHER_PATH = (
    "torch.export already gives other numbers, before any translation: the code takes another path "
    "when it is captured, as by torch.compiler.is_exporting() or a fast path of a layer. Compute "
    "the same on both; torch.backends.mha.set_fastpath_enabled(False) turns off the fast path of "
    "nn.TransformerEncoder and nn.MultiheadAttention."
)
_RANDOM = (
    "Draw nothing in eval mode (F.dropout takes training=self.training), or take the noise as an "
    "input. A seed does not reach the file: numbers that are always the same belong in a buffer, "
    "drawn once in __init__."
)
_COMPLEX = (
    "ONNX has no complex numbers, and the file returns real and imaginary parts. Return "
    "torch.view_as_real(y) from forward(), and join the parts with torch.view_as_complex outside."
)

OLDEST = 18
"""The opset that torch.onnx's own translations are written for: below it, files are converted."""

RELEASES = (
    ("1.17", 9, 20),
    ("1.18", 10, 21),
    ("1.21", 10, 22),
    ("1.23", 11, 23),
    ("1.24", 13, 25),
    ("1.27", 13, 26),
)
"""ONNX Runtime, and the highest IR version and opset that it loads. Measured with one-node models
of each version; see also https://onnxruntime.ai/docs/reference/compatibility.html."""


@dataclass
class Case:
    """What is audited, and what the stages have made of it so far.

    A stage runs only where what it needs is not None. ``runs`` is None for a foreign file that
    fails, ``others`` are calls of other sizes that went wrong, ``stored`` the attributes that a
    call writes.
    """

    subject: nn.Module | Artifact
    args: tuple
    kwargs: dict[str, Any]
    dynamic: Any
    opset: int | None
    translations: Translations | None
    tolerance: Tolerance | None
    folder: Path
    graph: Graph = None  # type: ignore[assignment]
    artifact: Artifact = None  # type: ignore[assignment]
    others: tuple[Call | None, ...] = ()
    stored: tuple[Finding, ...] = ()
    random: bool = False
    runs: bool | None = True

    def __post_init__(self) -> None:
        if isinstance(self.subject, Artifact):
            foreign = self.subject.graph is None
            self.artifact = replace(self.subject, isolated=True) if foreign else self.subject

    @property
    def name(self) -> str:
        if isinstance(self.subject, Artifact):
            return self.subject.path.name
        return type(self.subject).__name__

    @property
    def model(self) -> nn.Module:
        """None where a file is audited."""
        return self.subject if isinstance(self.subject, nn.Module) else None  # type: ignore


class Stage(NamedTuple):
    """``needs`` are the attributes of the case without which it cannot run.

    A stage with ``counts`` checks that there is a file that does what the model does; without
    it, an audit is not sound.
    """

    name: str
    run: Callable[[Case], Iterator[Finding]]
    needs: tuple[str, ...] = ()
    counts: bool = False

    def __call__(self, case: Case) -> Iterator[Finding]:
        missing = [name for name in self.needs if getattr(case, name) is None]
        if missing:
            yield Finding(self.name, "not tried", f"it needs the {missing[0]}, which is missing")
            return
        found = None
        try:
            for found in self.run(case):
                yield found
        except WorkbenchError as error:
            yield _broken(self.name, error)
        except Exception as error:  # a stage that fails must not hide the others
            line = user_line(error.__traceback__)
            line = line if line and is_users(line.file) else None
            if self.counts and case.model is not None:
                line = line or facts.forward_line(case.model)
            verdict = "broken" if self.counts else "not tried"
            yield Finding(self.name, verdict, _first_words(error), line)
        else:
            if found is None:
                yield Finding(self.name, "not tried", "it found nothing to look at")


def _broken(stage: str, error: WorkbenchError) -> Finding:
    return Finding(stage, "broken", error.reason, error.line, error.hint)


def _first_words(error: BaseException) -> str:
    """The class and the first line of the error that led to this one."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"


def _file(case: Case) -> Iterator[Finding]:
    """A foreign file runs once in a process of its own, before anything else runs it."""
    artifact = case.artifact
    try:
        result = artifact(*case.args, **case.kwargs)
    except WorkbenchError as error:
        case.runs = None
        yield _broken("model", error)
        return
    outputs = plural(len(pytree.tree_leaves(result)), "output")
    where = f" in a process of its own, within {artifact.timeout:g} s"
    yield Finding("model", "ok", f"runs{where if artifact.isolated else ''}; {outputs}")


def _model(case: Case) -> Iterator[Finding]:
    if case.model is None:
        yield from _file(case)
        return
    model = case.model
    parts = any(module.training for module in model.modules()) and not model.training
    if trains(model) or parts:
        yield Finding(
            "model",
            "risk",
            "The model is in training mode: torch.onnx.export would keep that, with dropout and "
            "batch statistics; it is audited in eval mode",
            repair="Call model.eval() before every export.",
        )
    try:
        with evaluating(model), torch.no_grad():
            for _ in range(2):  # a table that the first call makes stays the same in the second
                before = facts.snapshot(model)
                call = pytree.tree_map_only(torch.Tensor, torch.clone, (case.args, case.kwargs))
                result = model(*call[0], **call[1])
    except Exception as error:
        yield Finding(
            "model",
            "broken",
            f"The model itself fails on this call: {_first_words(error)}",
            told(user_line(error.__traceback__)),
            "Fix the call or the model first: until then the other stages mean nothing.",
        )
        return
    case.stored = tuple(facts.stored(before, facts.snapshot(model)))
    yield from (stored for stored in case.stored if stored.verdict != "ok")
    outputs = sum(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(result))
    returns = f", and returns {plural(outputs, 'tensor')}" if outputs else ""
    yield Finding("model", "ok", f"runs{returns}")


def _capture(case: Case) -> Iterator[Finding]:
    found = []
    try:
        case.graph = capture(case.model, case.args, case.kwargs, dynamic_shapes=case.dynamic)
    except CaptureError as error:
        if case.dynamic:
            with suppress(CaptureError):  # for fixed sizes, so that the rest can be tried
                case.graph = capture(case.model, case.args, case.kwargs)
        finding = _broken("capture", error)
        line = finding.line or (None if case.graph else facts.forward_line(case.model))
        found = [replace(finding, line=line)]
    if case.graph:
        found += facts.side_effects(case.graph, case.model)
    yield from found
    if not found:
        count = plural(case.graph.operations.total(), "operation")
        yield Finding("capture", "ok", f"{count}, no side effects, nothing baked in")


def _export(case: Case) -> Iterator[Finding]:
    def write(opset: int | None) -> Artifact:
        path, table = case.folder / "model.onnx", case.translations
        return export(case.graph, f=path, opset_version=opset, custom_translation_table=table)

    try:
        case.artifact = write(case.opset)
    except ExportError as error:
        yield _broken("export", error)
        if case.opset is not None:
            case.artifact = write(None)
        return
    nodes = plural(case.artifact.operations.total(), "node")
    yield Finding("export", "ok", f"{nodes}, checked by onnx, loaded by ONNX Runtime")


def _contract(case: Case) -> Iterator[Finding]:
    if not case.dynamic:
        if fault := misdeclared(case.artifact, case.args, case.kwargs):
            yield Finding("contract", "wrong", fault.reason, fault.line, fault.repair)
        else:
            yield Finding("contract", "ok", "no dimension was asked to stay dynamic")
        return
    contract = probe(
        case.model,
        case.args,
        case.kwargs,
        dynamic_shapes=case.dynamic,
        custom_translation_table=case.translations,
        tolerance=case.tolerance,
    )
    verdicts = {REFUSED: "broken", UNTRIED: "risk"}
    for dimension in contract.dimensions:
        verdict = "ok" if dimension else verdicts.get(dimension.verdict, "wrong")
        sentence = f"{dimension.place} is {dimension.verdict}"
        if first := dimension.first_bad:
            sentence += f"; at size {first.size} {first.outcome}: {first.said}"
            case.others += (first.call,)
        if dimension.fault:
            sentence += f": {dimension.fault.reason}"
        yield Finding("contract", verdict, sentence, dimension.line, dimension.repair)
    for clash in contract.clashes:
        case.others += (clash.call,)
        yield Finding("contract", "wrong", f"Moved together, {clash}")


def _numbers(case: Case) -> Iterator[Finding]:
    if not verify(case.model, case.model, case.args, case.kwargs):
        case.random = True
        yield _unsteady(case)
        return
    agreement = verify(case.model, case.artifact, case.args, case.kwargs, tolerance=case.tolerance)
    line, why, repair = _first_line(case) if not agreement else (None, "", "")
    for index, leaf in enumerate(agreement.leaves):
        if leaf.reason:
            at = line or facts.output_line(case.artifact, index)
            said = f"{leaf.path} differs: {leaf.said}{why}"
            yield Finding("numbers", "wrong", said, at, repair)
    if agreement:
        yield Finding("numbers", "ok", _agreeing(agreement))


def _agreeing(agreement: Agreement) -> str:
    """How many outputs agree, and those whose error is rounding alone."""
    count = plural(len(agreement.leaves), "output")
    rounded = [leaf.relative for leaf in agreement.leaves if leaf.note]
    if not rounded:
        return f"{count} within tolerance"
    return (
        f"{count} as near to float64 as PyTorch: {len(rounded)} with rounding beyond tolerance, "
        f"relative {max(rounded):.1e}"
    )


def _unsteady(case: Case) -> Finding:
    """Why two runs of the model differ: it keeps state, or it draws random numbers."""
    written = next(chain(facts.mutations(case.graph), case.stored), None)
    if written and not any(facts.draws(case.graph)):
        said = "The model keeps state: two runs of it on the same inputs differ"
        return Finding("numbers", "wrong", said, written.line, written.repair)
    said = "The model is random: two runs of it on the same inputs differ"
    return Finding("numbers", "wrong", said, facts.random_line(case.graph), _RANDOM)


def _first_line(case: Case) -> tuple[Line | None, str, str]:
    """Where the values first differ, why, and what usually helps."""
    if case.artifact.translated is None:
        return None, "", "The line makes the output; the fault may be earlier."
    model, artifact, bounds = case.model, case.artifact, case.tolerance
    inside = verify(model, artifact, case.args, case.kwargs, values=True, tolerance=bounds)
    if first := inside.first:
        name = first.node or first.name
        return first.line, f". {name} is the first that is wrong: {first.reason}", first.repair
    if inside.random:
        operator, line = next(iter(inside.random.items()))
        return line, f". {operator} draws random numbers, which the file draws anew", _RANDOM
    if not inside.captured:
        return None, "", _OTHER_PATH
    if any(leaf.value.startswith("complex") for leaf in inside.outputs.leaves):
        return None, "", _COMPLEX
    return None, "", "Every value that can be compared agrees: look at what cannot."


def _opsets(case: Case) -> Iterator[Finding]:
    ours = case.artifact.opset
    asked = sorted({OLDEST, ours + 1} - {ours})
    table, bounds = case.translations, case.tolerance
    ladder = opsets(case.graph, asked=asked, custom_translation_table=table, tolerance=bounds)
    for rung in ladder.rungs:
        if rung.differs and not case.random:
            yield Finding("opsets", "wrong", f"opset {rung.asked} gives other numbers: {rung.said}")
    tried = ", ".join(f"{r.asked} {'is refused' if r.refused else 'loads'}" for r in ladder.rungs)
    yield Finding("opsets", "ok", f"opset {ours} written; also tried: {tried}")


def _portability(case: Case) -> Iterator[Finding]:
    artifact = case.artifact
    first, *others = artifact.files
    if others:
        names = ", ".join(file.name for file in others)
        yield Finding(
            "portability",
            "risk",
            f"{first.name} cannot be loaded without {names}",
            repair="Keep the files in one folder and move that, or write one file: "
            "onnx_workbench.export() does up to 2 GB, torch.onnx.export with external_data=False.",
        )
    opset, ir = artifact.opset, artifact.proto.ir_version
    old = next((r for r, most, highest in RELEASES if ir <= most and opset <= highest), None)
    since = f"loads in ONNX Runtime {old} and newer" if old else "newer than the releases we know"
    files = "one file" if not others else plural(1 + len(others), "file")
    yield Finding("portability", "ok", f"opset {opset}, IR {ir}: {since}; {files}")
    if isinstance(case.subject, Artifact) and (held := facts.private(artifact.proto)):
        yield Finding("portability", "ok", f"{held}; save(path, metadata=False) leaves them out")


def _size(case: Case) -> Iterator[Finding]:
    yield facts.weights(case.artifact, case.model)


def _latency(case: Case) -> Iterator[Finding]:
    if case.model is None:
        whole = profile(case.artifact, case.args, case.kwargs, seconds=QUICK).whole
        yield Finding("latency", "ok", f"ONNX Runtime: {seconds(whole)} a call at 1 thread")
        return
    targets: dict[str, Any] = {"PyTorch": case.model, "ONNX Runtime": case.artifact}
    result = race(targets, case.args, case.kwargs, quick=True, seconds=QUICK)
    if result.conditions.interrupted:
        raise KeyboardInterrupt
    ratio = result.ratio("ONNX Runtime")
    against = f"{ratio.value:.2f}x as fast as {result.baseline} ({ratio.verdict})" if ratio else ""
    yield Finding("latency", "ok", f"ONNX Runtime: {against}; race() measures with more care")


def _hot(case: Case) -> Iterator[Finding]:
    case.artifact = replace(case.artifact)  # without its session: two are opened here
    spots = profile(case.artifact, case.args, case.kwargs, seconds=QUICK)
    if not spots.recording.kernels:
        yield Finding("hot lines", "ok", "no kernel runs: the file holds its result")
        return
    hottest, total = spots.hottest, spots.total or 1.0
    share = f"{hottest.seconds / total:.0%} of kernel time"
    inner = max(hottest.below, key=lambda spot: spot.seconds, default=None)
    most = f"; {inner.seconds / total:.0%} in {inner.name} ({inner.module})" if inner else ""
    yield Finding("hot lines", "ok", f"{share} in {hottest.name}{most}", hottest.line)


STAGES = (
    Stage("model", _model),
    Stage("capture", _capture, ("model",), counts=True),
    Stage("export", _export, ("graph",), counts=True),
    Stage("contract", _contract, ("model", "artifact"), counts=True),
    Stage("numbers", _numbers, ("model", "artifact"), counts=True),
    Stage("opsets", _opsets, ("graph", "artifact")),
    Stage("portability", _portability, ("artifact",)),
    Stage("size", _size, ("artifact",)),
    Stage("latency", _latency, ("artifact", "runs")),
    Stage("hot lines", _hot, ("artifact", "runs")),
)
