"""The stages of an audit, one function each, in the order in which they run."""

from __future__ import annotations

import warnings
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
from ..brief import chained, first_words
from ..comparison import Agreement, Leaf, Tolerance
from ..errors import CaptureError, ExportError, WorkbenchError
from ..formatting import Percent, plural, seconds
from ..graph import Graph, capture
from ..graph.dims import varies
from ..graph.exporter import Translations
from ..hotspots import NO_KERNEL, Hotspots, profile
from ..lineage.table import Lineage, join
from ..opset_table import opsets
from ..shapes.contract import misdeclared, probe
from ..shapes.trials import BAD, BROKEN, FINE, REFUSED, STATIC, TIED, UNTRIED, WITHIN, WRONG, Call
from ..source import Line, is_user_file, node_line, unless_internal, user_line
from ..timing.rounds import race
from ..torch_state import evaluating, trains
from . import facts
from .codes import NOT_TRIED, STOPPED, code_of
from .finding import Finding

QUICK = 0.2
"""Seconds that latency and hot lines may take each; both have a minimum number of runs."""

_OTHER_PATH = (
    "torch.export already gives other numbers, before any translation: the code takes another path "
    "during capture, through torch.compiler.is_exporting() or a layer's fast path. Compute the "
    "same on both paths; torch.backends.mha.set_fastpath_enabled(False) turns off the fast path "
    "of nn.TransformerEncoder and nn.MultiheadAttention."
)
_RANDOM = (
    "Draw no random numbers in eval mode (F.dropout takes training=self.training), or take the "
    "noise as an input. A seed does not reach the file: numbers that never change belong in a "
    "buffer, drawn once in __init__."
)
_COMPLEX = (
    "ONNX has no complex numbers, and the file returns real and imaginary parts. Return "
    "torch.view_as_real(y) from forward(), and join the parts with torch.view_as_complex outside."
)

_STEPS = {"translate": "OW201", "opset": "OW202", "check": "OW203", "load": "OW204"}
"""Step of an ExportError -> code."""
_DIMENSIONS = {
    REFUSED: "OW301",
    STATIC: "OW302",
    WITHIN: "OW303",
    BROKEN: "OW304",
    WRONG: "OW305",
    TIED: "OW306",
    UNTRIED: "OW307",
}
"""Start of the verdict on a dimension that is not kept -> code."""

_NEEDS = {
    "model": "no model: a file does not contain it",
    "graph": "no captured graph",
    "artifact": "no exported file",
    "runs": "no file that runs on this call",
}
"""Attribute of a case -> why a stage cannot run without it."""

OLDEST = 18
"""The opset that torch.onnx's own translations target; lower opsets are converted from it."""

RELEASES = (
    ("1.17", 9, 20),
    ("1.18", 10, 21),
    ("1.21", 10, 22),
    ("1.23", 11, 23),
    ("1.24", 13, 25),
    ("1.27", 13, 26),
)
"""A release of ONNX Runtime, with the highest IR version and opset that it loads. Measured with
one-node models; see also https://onnxruntime.ai/docs/reference/compatibility.html."""


@dataclass
class Case:
    """What is audited, and what the stages know about it so far.

    A stage runs only if no attribute that it needs is None. ``runs`` is None if a loaded
    file fails. ``failing_calls`` are calls of other sizes that went wrong; ``attribute_writes``
    are findings about attributes that a call of the model writes. ``error`` stopped the model on
    its way to a file; ``spots`` has the time of each line, ``lineage`` what each became.
    """

    subject: nn.Module | Artifact
    args: tuple
    kwargs: dict[str, Any]
    dynamic_shapes: Any
    opset_version: int | None
    translations: Translations | None
    tolerance: Tolerance | None
    folder: Path
    graph: Graph = None  # type: ignore[assignment]
    artifact: Artifact = None  # type: ignore[assignment]
    failing_calls: tuple[Call | None, ...] = ()
    attribute_writes: tuple[Finding, ...] = ()
    is_random: bool = False
    runs: bool | None = True
    error: CaptureError | ExportError | None = None
    spots: Hotspots | None = None
    lineage: Lineage | None = None

    def __post_init__(self) -> None:
        if isinstance(self.subject, Artifact):
            loaded = self.subject.graph is None
            self.artifact = replace(self.subject, isolated=True) if loaded else self.subject

    @property
    def call(self) -> Call:
        return self.args, self.kwargs

    @property
    def name(self) -> str:
        if isinstance(self.subject, Artifact):
            return self.subject.path.name
        return type(self.subject).__name__

    @property
    def model(self) -> nn.Module:
        """None if the audit is of a file."""
        return self.subject if isinstance(self.subject, nn.Module) else None  # type: ignore

    def close(self) -> None:
        """Keep what a page shows of the file, and let go of the file itself."""
        with suppress(WorkbenchError):  # a file that cannot be read
            if self.spots:
                self.lineage = self.spots.lineage
            elif self.artifact:
                self.lineage = join(replace(self.artifact))  # without its session
        self.artifact = None  # type: ignore[assignment]


class Stage(NamedTuple):
    """One stage. It runs only if the case has the attributes that it ``needs``.

    The stages that ``count`` check together that a file exists and does what the model does. An
    audit is true only if they ran.
    """

    name: str
    run: Callable[[Case], Iterator[Finding]]
    needs: tuple[str, ...] = ()
    counts: bool = False

    def __call__(self, case: Case) -> Iterator[Finding]:
        missing = [name for name in self.needs if getattr(case, name) is None]
        if missing:
            yield Finding(code_of(self.name, NOT_TRIED), _NEEDS[missing[0]])
            return
        finding = None
        try:
            for finding in self.run(case):
                yield finding
        except WorkbenchError as error:
            yield _broken(self.name, error)
        except (Exception, SystemExit) as error:  # a stage that fails must not hide the others
            line = user_line(error.__traceback__)
            line = line if line and is_user_file(line.file) else None
            if self.counts and case.model is not None:
                line = line or facts.forward_line(case.model)
            last = STOPPED if self.counts else NOT_TRIED
            yield Finding(code_of(self.name, last), _root(error), line)
        else:
            if finding is None:
                yield Finding(code_of(self.name, NOT_TRIED), "it found nothing to look at")


def _broken(stage: str, error: WorkbenchError, code: str = "") -> Finding:
    return Finding(code or code_of(stage, STOPPED), error.reason, error.line, error.hint)


def _root(error: BaseException) -> str:
    """The first words of the root cause."""
    return first_words([*chained(error)][-1])


def _file(case: Case) -> Iterator[Finding]:
    """Run the file before any other stage does; a loaded file runs in its own process."""
    artifact = case.artifact
    try:
        result = artifact(*case.args, **case.kwargs)
    except WorkbenchError as error:
        case.runs = None
        yield _broken("model", error, "OW005")
        return
    outputs = plural(len(pytree.tree_leaves(result)), "output")
    where = f" in its own process, within {artifact.timeout:g} s"
    yield Finding("OW000", f"runs{where if artifact.isolated else ''}; {outputs}")


def _model(case: Case) -> Iterator[Finding]:
    if case.model is None:
        yield from _file(case)
        return
    model = case.model
    if trains(model):
        yield Finding(
            "OW001",
            "The model is in training mode, and torch.onnx.export would keep dropout and batch "
            "statistics; the audit runs it in eval mode",
            repair="Call model.eval() before every export.",
        )
    try:
        with evaluating(model), torch.no_grad():
            for _ in range(2):  # the first call may fill a cache, which the second leaves alone
                before = facts.snapshot(model)
                call = pytree.tree_map_only(torch.Tensor, torch.clone, case.call)
                result = model(*call[0], **call[1])
    except (Exception, SystemExit) as error:
        yield Finding(
            "OW002",
            f"The model itself fails on this call: {_root(error)}",
            unless_internal(user_line(error.__traceback__)),
            "Fix the call or the model first; until then the other stages mean nothing.",
        )
        return
    case.attribute_writes = tuple(facts.attribute_writes(before, facts.snapshot(model)))
    yield from case.attribute_writes
    if case.attribute_writes:  # until audit() ends: the warnings of an export say the same
        warnings.filterwarnings("ignore", r"The tensor attribute|forward\(\) assigns tensors to")
    outputs = sum(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(result))
    returns = f", and returns {plural(outputs, 'tensor')}" if outputs else ""
    yield Finding("OW000", f"runs{returns}")


def _capture(case: Case) -> Iterator[Finding]:
    findings = []
    try:
        case.graph = capture(case.model, *case.call, dynamic_shapes=case.dynamic_shapes)
    except CaptureError as error:
        if case.dynamic_shapes:
            with suppress(CaptureError):  # with fixed sizes, for the stages that follow
                case.graph = capture(case.model, *case.call)
        case.error = error
        finding = _broken("capture", error, error.code)
        line = finding.line or (None if case.graph else facts.forward_line(case.model))
        findings = [replace(finding, line=line)]
    if case.graph:
        findings += facts.side_effects(case.graph, case.model)
    yield from findings
    if not findings:
        count = case.graph.operations.total()
        clean = "" if case.attribute_writes else ", no side effects, nothing baked in"
        sentence = f"{plural(count, 'operation')}{clean}"
        yield Finding("OW100", sentence, numbers={"operations": count})


def _export(case: Case) -> Iterator[Finding]:
    def write(opset: int | None) -> Artifact:
        path, table = case.folder / "model.onnx", case.translations
        return export(case.graph, f=path, opset_version=opset, custom_translation_table=table)

    try:
        case.artifact = write(case.opset_version)
    except ExportError as error:
        case.error = error
        yield _broken("export", error, _STEPS.get(error.step, ""))
        if case.opset_version is not None:
            case.artifact = write(None)
        return
    count = case.artifact.operations.total()
    fixed = ", with fixed sizes" * bool(case.error)
    sentence = f"{plural(count, 'node')}{fixed}, checked by onnx, loaded by ONNX Runtime"
    yield Finding("OW200", sentence, numbers={"nodes": count})


def _contract(case: Case) -> Iterator[Finding]:
    labels = pytree.tree_leaves(case.dynamic_shapes)
    if not any(map(varies, labels)):
        if fault := misdeclared(case.artifact, *case.call):
            yield Finding("OW309", fault.reason, fault.line, fault.repair)
        else:
            yield Finding("OW300", "no dimension was asked to stay dynamic")
        return
    # a model that could not be exported as asked is exported as far as it goes
    subject = case.model if case.error else case.artifact
    options: Any = {"dynamic_shapes": case.dynamic_shapes, "tolerance": case.tolerance}
    if case.error:
        options["custom_translation_table"] = case.translations
    contract = probe(subject, *case.call, **options)
    for dimension in contract.dimensions:
        verdict = dimension.verdict
        codes = (code for start, code in _DIMENSIONS.items() if verdict.startswith(start))
        code = "OW300" if dimension else next(codes, "OW304")
        sentence = f"{dimension.place} is {dimension.verdict}"
        if first := dimension.first_bad:
            sentence += f"; at size {first.size} {first.outcome}: {first.reason}"
            case.failing_calls += (first.call,)
        if dimension.fault:
            sentence += f": {dimension.fault.reason}"
        sizes = {"agree": FINE, "fail": BAD}
        yield Finding(
            code,
            sentence,
            dimension.line,
            dimension.repair,
            about=dimension.place,
            numbers={
                f"sizes_that_{how}": [t.size for t in dimension.trials if t.outcome in outcomes]
                for how, outcomes in sizes.items()
            },
        )
    for clash in contract.clashes:
        case.failing_calls += (clash.call,)
        yield Finding(
            "OW308",
            f"Moved together, {clash}",
            about=", ".join(clash.dimensions),
            numbers=dict(zip(clash.dimensions, clash.sizes, strict=True)),
        )


def _numbers(case: Case) -> Iterator[Finding]:
    if not verify(case.model, case.model, *case.call):
        case.is_random = True
        yield _unsteady(case)
        return
    agreement = verify(case.model, case.artifact, *case.call, tolerance=case.tolerance)
    line, why, repair = _first_line(case) if not agreement else (None, "", "")
    for index, leaf in enumerate(agreement.leaves):
        if leaf.reason:
            at = line or facts.output_line(case.artifact, index)
            sentence = f"{leaf.path} differs: {leaf.summary}{why}"
            yield Finding("OW401", sentence, at, repair, leaf.path, _errors(leaf))
    if agreement and not any(leaf.finite for leaf in agreement.leaves):
        empty = all(leaf.worst is None for leaf in agreement.leaves)
        sentence = (
            f"The result {'is empty' if empty else 'has no finite number'}: nothing is compared"
        )
        repair = "Pass an example for which the model returns finite numbers."
        yield Finding("OW404", sentence, repair=repair)
    elif agreement:
        yield Finding("OW400", _agreeing(agreement), numbers=_errors(agreement.worst))


def _errors(leaf: Leaf) -> dict[str, float]:
    if leaf.worst is None:
        return {}
    measured = {"error": leaf.worst, "relative_error": leaf.relative}
    return {**measured, "tolerance": leaf.tolerance[0]}


def _agreeing(agreement: Agreement) -> str:
    """How many outputs agree, and how many of them only up to rounding."""
    rounded = [leaf.relative for leaf in agreement.leaves if leaf.note]
    if not rounded:
        return agreement.count
    beyond = f"{len(rounded)} with rounding beyond tolerance, relative {max(rounded):.1e}"
    return f"{agreement.count}: {beyond}"


def _unsteady(case: Case) -> Finding:
    """Why two runs of the model differ: it keeps state, or it draws random numbers."""
    written = next(chain(facts.mutations(case.graph), case.attribute_writes), None)
    if written and not any(facts.draws(case.graph)):
        sentence = "The model keeps state: two runs on the same inputs differ"
        return Finding("OW403", sentence, written.line, written.repair)
    drawing = next(facts.draws(case.graph), None)
    sentence = "The model is random: two runs on the same inputs differ"
    if drawing:
        return Finding("OW402", sentence, node_line(drawing), _RANDOM)
    sentence = (
        "Two runs of the model on the same inputs differ, and no operator draws random numbers: "
        "it keeps state, or draws them in Python"
    )
    repair = "Take the state, or the numbers, as an input, and return the new state."
    return Finding("OW402", sentence, facts.forward_line(case.model), repair)


def _first_line(case: Case) -> tuple[Line | None, str, str]:
    """Where the values first differ, why, and what usually helps."""
    if case.artifact.exported_program is None:
        return None, "", "This line makes the output; the fault may be earlier."
    model, artifact, bounds = case.model, case.artifact, case.tolerance
    inside = verify(model, artifact, *case.call, values=True, tolerance=bounds)
    if first := inside.first:
        name = first.node or first.name
        return first.line, f". {name} is the first wrong node: {first.reason}", first.repair
    if inside.random:
        operator, line = next(iter(inside.random.items()))
        return line, f". {operator} draws random numbers, and the file draws its own", _RANDOM
    if not inside.captured:
        return None, "", _OTHER_PATH
    if any(leaf.value.startswith("complex") for leaf in inside.outputs.leaves):
        return None, "", _COMPLEX
    return None, "", "Every comparable value agrees: look at the values that are not comparable."


def _opsets(case: Case) -> Iterator[Finding]:
    ours = case.artifact.opset
    asked = sorted({OLDEST, ours + 1} - {ours})
    options: Any = {"custom_translation_table": case.translations, "tolerance": case.tolerance}
    results = opsets(case.graph, asked=asked, **options).results
    for result in results:
        if result.differs and not case.is_random:
            sentence = f"opset {result.asked} gives other numbers: {result.reason}"
            yield Finding("OW501", sentence, about=f"opset {result.asked}")
    tried = (f"opset {r.asked} {'is refused' if r.refused else 'also loads'}" for r in results)
    written = f"opset {ours} written; {', '.join(tried)}"
    yield Finding("OW500", written, numbers={"opset": ours})


def _portability(case: Case) -> Iterator[Finding]:
    artifact = case.artifact
    first, *others = artifact.files
    if others:
        names = ", ".join(file.name for file in others)
        yield Finding(
            "OW601",
            f"{first.name} cannot be loaded without {names}",
            repair="Keep the files in one folder and move that, or write one file: "
            "onnx_workbench.export() does up to 2 GB, torch.onnx.export with external_data=False.",
        )
    opset, ir = artifact.opset, artifact.proto.ir_version
    old = next((r for r, most, highest in RELEASES if ir <= most and opset <= highest), None)
    since = f"loads in ONNX Runtime {old} and newer" if old else "newer than every release we know"
    files = "one file" if not others else plural(1 + len(others), "file")
    sentence = f"opset {opset}, IR {ir}: {since}; {files}"
    yield Finding("OW600", sentence, numbers={"opset": opset, "ir_version": ir})
    if isinstance(case.subject, Artifact) and (revealed := facts.private(artifact.proto)):
        leave_out = "save(path, metadata=False) leaves them out"
        yield Finding("OW602", f"{revealed}; {leave_out}")


def _size(case: Case) -> Iterator[Finding]:
    yield facts.weights(case.artifact, case.model)


def _latency(case: Case) -> Iterator[Finding]:
    if case.model is None:
        whole = profile(case.artifact, *case.call, seconds=QUICK).whole
        sentence = f"ONNX Runtime: {seconds(whole)} a call at 1 thread"
        yield Finding("OW800", sentence, numbers={"seconds": whole})
        return
    targets: dict[str, Any] = {"PyTorch": case.model, "ONNX Runtime": case.artifact}
    result = race(targets, *case.call, quick=True, seconds=QUICK)
    if result.conditions.interrupted:
        raise KeyboardInterrupt
    if not (ratio := result.ratio("ONNX Runtime")):
        failed = next(one for one in result.results if one.error)
        reason = f"{failed.name} could not be timed: {failed.error}"
        yield Finding(code_of("latency", NOT_TRIED), reason)
        return
    doubt = "" if ratio.verdict in ("faster", "slower") else f" ({ratio.verdict})"
    speed = f"ONNX Runtime: {ratio.value:.2f}x as fast as {result.baseline}{doubt}"
    sentence = f"{speed}; race() measures with more care"
    yield Finding("OW800", sentence, numbers={"times_as_fast": ratio.value})


def _hot(case: Case) -> Iterator[Finding]:
    case.artifact = replace(case.artifact)  # without its session, since profile opens two
    spots = case.spots = profile(case.artifact, *case.call, seconds=QUICK)
    if not spots.recording.kernels:
        yield Finding("OW901", NO_KERNEL)
        return
    if spots.too_short:
        yield Finding("OW902", f"{spots.too_short}; race() times the whole call")
        return
    hottest, total = spots.hottest, spots.total
    share = f"{Percent(hottest.seconds / total)} of kernel time"
    inner = max(hottest.below, key=lambda spot: spot.seconds, default=None)
    most = f"; {Percent(inner.seconds / total)} in {inner.name} ({inner.module})" if inner else ""
    spent = {"seconds": hottest.seconds, "seconds_of_all": spots.total}
    yield Finding("OW900", f"{share} in {hottest.name}{most}", hottest.line, numbers=spent)


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
