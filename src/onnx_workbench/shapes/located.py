"""The step at which a file goes wrong, if no guard of torch.export explains it."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import fx
from torch.export import ExportedProgram

from ..agreement import verify
from ..artifact import Artifact
from ..comparison import compare
from ..errors import RunError, WorkbenchError
from ..exporter_metadata import CallSite, call_site
from ..formatting import shaped
from ..graph import Graph
from ..runs.program import ANY_SIZE, ProgramRun
from .declared import fits
from .trials import Fault

_FAKE = (
    "Let the function under torch.library.register_fake return the operator's real shape, computed "
    "from the shapes of its inputs: torch.empty_like(x), or x.new_empty(x.shape[0], 3)."
)
_OTHER_PATH = (
    "The model takes another path at this size, and no guard of torch.export shows it: look for a "
    "number that it computes from an input outside torch."
)


def located(
    graph: Graph, artifact: Artifact, result: Any, args: tuple, kwargs: Mapping[str, Any]
) -> Fault | None:
    """The first step that goes wrong between the captured graph and the file, for a call with the
    model's ``result``."""
    call = graph.signature.flatten(args, dict(kwargs))
    example = graph.signature.flatten(*graph.example)
    try:
        captured = _Run(graph.program, call)
        if captured.fault or artifact.exported_program is None:
            return captured.fault
        decomposed = _Run(artifact.exported_program, call)
        expected = _differing(
            _Run(graph.program, example), _Run(artifact.exported_program, example)
        )
        faults = _differing(captured, decomposed)
        if new := next((fault for site, fault in faults.items() if site not in expected), None):
            return new
        inside = verify(lambda *_, **__: result, artifact, args, dict(kwargs), values=True)
    except RunError as error:
        return Fault(error.line, error.reason, error.hint)
    except WorkbenchError:
        return None
    if inside.first:
        return Fault(inside.first.line, inside.first.reason, inside.first.repair)
    other_path = Fault(None, "the captured graph does not compute what the model does", _OTHER_PATH)
    return None if inside.captured else other_path


class _Run:
    """One run of a graph. ``results`` has the last node and tensor of each call site, ``fault`` the
    first tensor whose shape differs from the one that torch.export recorded."""

    def __init__(self, program: ExportedProgram, call: Sequence[torch.Tensor]) -> None:
        self.results: dict[CallSite, tuple[fx.Node, torch.Tensor]] = {}
        self.fault: Fault | None = None
        sizes: dict[sympy.Expr, int] = {}  # torch's symbols -> the sizes of this call
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for node, value in ProgramRun(program).values(call):
                recorded = node.meta.get("val")
                if not (isinstance(value, torch.Tensor) and isinstance(recorded, torch.Tensor)):
                    continue
                if node.op == "placeholder":
                    pairs = zip(map(_expression, recorded.shape), value.shape, strict=True)
                    sizes |= {size: actual for size, actual in pairs if size.is_Symbol}
                    continue
                self.results[call_site(node)] = node, value
                declared = [_number(_expression(size).subs(sizes)) for size in recorded.shape]
                if not (self.fault or fits(declared, value.shape)):
                    self.fault = _false_shape(node, declared, value)


def _expression(size: Any) -> sympy.Expr:
    return sympy.sympify(size.node.expr if isinstance(size, torch.SymInt) else size)


def _number(size: sympy.Expr) -> int | None:
    return int(size) if size.is_Integer else None


def _false_shape(node: fx.Node, declared: Sequence[int | None], value: torch.Tensor) -> Fault:
    want, got = (shaped(value.dtype, shape) for shape in (declared, value.shape))
    op = node.args[0].target if node.target is operator.getitem else node.target  # type: ignore
    name = getattr(op, "name", lambda: str(op))()
    of_torch = getattr(op, "namespace", "") in ("aten", "prims")
    return Fault(
        call_site(node).line,
        f"the fake implementation of {name} returns {want}, but the operator returns {got}",
        ANY_SIZE if of_torch else _FAKE,
    )


def _differing(captured: _Run, decomposed: _Run) -> dict[CallSite, Fault]:
    """The call sites at which the results of the decomposed and the captured graph differ."""
    faults = {}
    for site, (node, tensor) in captured.results.items():
        other = decomposed.results.get(site, (node, tensor))[1]
        if not site.trace or other.dtype != tensor.dtype or compare(tensor, other):
            continue
        want, got = (shaped(t.dtype, t.shape) for t in (tensor, other))
        does = f"returns {got} instead of {want}" if want != got else "gives other numbers"
        reason = f"{node.target} is decomposed only for the example's sizes: here it {does}"
        faults[site] = Fault(site.line, reason, ANY_SIZE)
    return faults
