"""Where a file goes wrong at one size that no guard of torch.export speaks of."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from ..source import Line

_FAKE = (
    "Let the function under torch.library.register_fake return the shape that the operator makes, "
    "from the shapes of its inputs: torch.empty_like(x), or x.new_empty(x.shape[0], 3)."
)
_OTHER_WAY = (
    "The model goes another way at this size, which no guard of torch.export tells: look for a "
    "number that it takes from an input outside of torch."
)


@dataclass(frozen=True)
class Fault:
    """``reason`` says what goes wrong at ``line``, ``repair`` what usually helps."""

    line: Line | None
    reason: str
    repair: str


def located(
    graph: Graph, artifact: Artifact, result: Any, args: tuple, kwargs: Mapping[str, Any]
) -> Fault | None:
    """The first step that goes wrong on the way from the captured graph to the file, for a call
    that the model answers with ``result``."""
    call = graph.signature.flatten(args, dict(kwargs))
    try:
        ours = _Watched(graph.program).along(call)
        if ours.lies:
            return ours.lies
        if artifact.translated is not None:
            theirs = _Watched(artifact.translated).along(call)
            example = graph.signature.flatten(*graph.program.example_inputs)
            usual = _parted(
                _Watched(graph.program).along(example),
                _Watched(artifact.translated).along(example),
            )
            for key, fault in _parted(ours, theirs).items():
                if key not in usual:
                    return fault
            inside = verify(lambda *_, **__: result, artifact, args, dict(kwargs), values=True)
            if inside.first:
                return Fault(inside.first.line, inside.first.reason, inside.first.repair)
            if not inside.captured:
                return Fault(None, "the captured graph is not the model", _OTHER_WAY)
    except RunError as error:
        return Fault(error.line, error.reason, error.hint)
    except WorkbenchError:
        pass
    return None


class _Watched:
    """Runs a graph, and compares the shapes that it makes with those that torch.export noted.

    ``made`` has the last tensor of each line and module.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.sizes: dict[Any, int] = {}
        self.made: dict[CallSite, tuple[fx.Node, torch.Tensor]] = {}
        self.lies: Fault | None = None

    def along(self, leaves: Sequence[torch.Tensor]) -> _Watched:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for node, value in ProgramRun(self.program).steps(leaves):
                self._look(node, value)
        return self

    def _look(self, node: fx.Node, value: Any) -> None:
        if isinstance(value, torch.Tensor) and isinstance(node.meta.get("val"), torch.Tensor):
            if node.op == "placeholder":
                self._bind(node, value)
            else:
                self.made[call_site(node)] = node, value
                self.lies = self.lies or self._lie(node, value)

    def _bind(self, node: fx.Node, tensor: torch.Tensor) -> None:
        for size, actual in zip(node.meta["val"].shape, tensor.shape, strict=False):
            if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
                self.sizes[size.node.expr] = actual

    def _lie(self, node: fx.Node, tensor: torch.Tensor) -> Fault | None:
        declared = [self._size(size) for size in node.meta["val"].shape]
        pairs = zip(declared, tensor.shape, strict=False)
        if len(declared) == tensor.dim() and all(want in (None, got) for want, got in pairs):
            return None
        want, got = (shaped(tensor.dtype, shape) for shape in (declared, tensor.shape))
        maker = node.args[0].target if node.target is operator.getitem else node.target  # type: ignore
        name = getattr(maker, "name", lambda: str(maker))()
        own = getattr(maker, "namespace", "") not in ("aten", "prims")
        return Fault(
            call_site(node).line,
            f"the fake implementation of {name} says {want}, and the operator makes {got}",
            _FAKE if own else ANY_SIZE,
        )

    def _size(self, size: Any) -> int | None:
        if not isinstance(size, torch.SymInt):
            return int(size)
        known = sympy.sympify(size.node.expr).subs(self.sizes)
        return int(known) if known.is_Integer else None


def _parted(ours: _Watched, theirs: _Watched) -> dict[CallSite, Fault]:
    """The lines at which the decomposed graph makes something else than the captured one."""
    found = {}
    for key, (node, tensor) in ours.made.items():
        other = theirs.made.get(key, (node, tensor))[1]
        if not key.trace or other.dtype != tensor.dtype or compare(tensor, other):
            continue
        want, got = (shaped(t.dtype, t.shape) for t in (tensor, other))
        said = f"makes {got} instead of {want}" if want != got else "gives other numbers"
        reason = f"{node.target} is decomposed for the example's sizes alone: here it {said}"
        found[key] = Fault(key.line, reason, ANY_SIZE)
    return found
