"""The one table: what a line of Python became on every floor, one row for each chain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from ..exporter_metadata import call_site, operator_nodes
from ..proto import grouped
from ..source import Line
from .instructions import instructions
from .kernels import BY_NEIGHBOR, INLINED
from .origins import Origin

REMOVED = "removed by ONNX Runtime's optimizer"
INSERTED = "inserted by ONNX Runtime's optimizer"


@dataclass(frozen=True)
class Chain:
    """One row: names of the FX node, the decomposed FX node, the ONNX node and the kernel; a floor
    that the chain does not reach is empty.

    ``rule`` says how the kernel was joined, or else the node's line; ``remark`` what a floor did
    that one would not expect. ``seconds`` a run is this chain's part of the kernel's time, None
    without a kernel.
    """

    line: Line | None = None
    stack: tuple[Line, ...] = field(default=(), repr=False)
    module: str = ""
    fx: str = ""
    decomposed: str = ""
    node: str = ""
    kernel: str = ""
    rule: str = ""
    remark: str = ""
    seconds: float | None = None


def chains(lineage: Any) -> tuple[Chain, ...]:
    """Every chain, in the order of the file; then FX nodes without an ONNX node of their own, and
    kernels without one."""
    return tuple(_Table(lineage).rows())


def records(lineage: Any) -> list[dict[str, Any]]:
    """The chains as flat dicts, which JSON can hold."""
    found = []
    for chain in lineage.chains:
        value = next(iter(lineage.values.get(chain.node, {}).values()), None)
        code = instructions(chain.line, lineage.sources) if chain.line and chain.fx else ()
        found.append(
            {
                "line": chain.line.place if chain.line else None,
                "stack": " > ".join(line.place for line in chain.stack) or None,
                "module": chain.module or None,
                "bytecode": "; ".join(code) or None,
                "fx": chain.fx or None,
                "decomposed": chain.decomposed or None,
                "onnx": chain.node or None,
                "optimized": chain.kernel or None,
                "kernel": lineage.call.kernels[chain.kernel].operator
                if lineage.call and chain.kernel
                else None,
                "rule": chain.rule or None,
                "seconds": chain.seconds,
                "bytes": value.size if value else None,
                "shape": list(value.shape) if value else None,
                "dtype": value.dtype if value else None,
                "error": value.error if value else None,
            }
        )
    return found


class _Table:
    def __init__(self, lineage: Any) -> None:
        self.lineage, self.call = lineage, lineage.call
        self.captured = captured_names(lineage)
        self.decomposed = grouped((fx, name) for name, fx in self.captured.items())
        self.kernels: dict[str, list[str]] = self.call.by_node if self.call else {}
        self.spent = {
            (share.kernel, share.node, share.line, share.stack, share.module): seconds
            for share, seconds in (self.call.spent if self.call else ())
        }

    def rows(self) -> Iterator[Chain]:
        reached: set[str] = set()
        reached_decomposed: set[str] = set()  # apart, since both graphs use the same names
        for origin in self.lineage.origins:
            for row in self._of_node(origin):
                reached.add(row.fx)
                reached_decomposed.add(row.decomposed)
                yield row
        for operation in self.lineage.operations:
            decomposed = self.decomposed.get(operation.fx, [])
            names = [name for name in decomposed if name not in reached_decomposed]
            nodes, why = operation.nodes, operation.why
            if operation.fx in reached:  # it has rows: only decomposed nodes without one follow
                nodes, why = (), ""
            else:
                names = names or [""]
            line, stack, module = operation.line, operation.stack, operation.module
            for name, node in product(names, nodes or ("",)):
                yield Chain(line, stack, module, operation.fx, name, node, remark=why)
        for name, match in self.call.matches.items() if self.call else ():
            if not match.nodes:
                seconds = self.spent.pop((name, "", None, (), ""), None)
                yield Chain(kernel=name, rule=match.rule, remark=INSERTED, seconds=seconds)

    def _of_node(self, origin: Origin) -> Iterator[Chain]:
        fx, decomposed = self.captured.get(origin.fx, ""), origin.fx
        if origin.replaces:
            fx, decomposed = origin.fx, next(iter(self.decomposed.get(origin.fx, ())), "")
        parts = [(origin.line, origin.stack, origin.module, fx, decomposed)]
        parts += [(m.line, m.stack, m.module, m.fx, "") for m in origin.merged if m.line]
        for kernel in self.kernels.get(origin.node, [""]):
            for line, stack, module, fx, decomposed in parts:
                # parts that are equal share their time: the first row has it, so that the sum holds
                yield Chain(
                    line=line,
                    stack=stack,
                    module=module,
                    fx=fx,
                    decomposed=decomposed,
                    node=origin.node,
                    kernel=kernel,
                    rule=self.call.matches[kernel].rule if self.call and kernel else origin.rule,
                    remark=self._remark(origin, kernel),
                    seconds=self.spent.pop((kernel, origin.node, line, stack, module), 0.0)
                    if self.call and kernel
                    else None,
                )

    def _remark(self, origin: Origin, kernel: str) -> str:
        if not self.call:
            return origin.why
        if not kernel:
            return REMOVED if not origin.inside else origin.why
        return INSERTED if self._inserted(kernel, origin.operator) else origin.why

    def _inserted(self, kernel: str, operator: str) -> bool:
        """Whether the optimizer added this kernel: only a neighbor matched it; or its operator is
        not that of its only node, which another kernel also runs, and which calls no function."""
        match, kernels = self.call.matches[kernel], self.call.kernels
        running = {other for node in match.nodes for other in self.kernels[node]}
        rules = {self.call.matches[other].rule for other in running}
        differs = kernels[kernel].operator != operator and len(match.nodes) == 1
        return match.rule == BY_NEIGHBOR or (differs and len(running) > 1 and INLINED not in rules)


def captured_names(lineage: Any) -> dict[str, str]:
    """Each node of the decomposed graph -> the node of the captured graph that it comes from.

    torch keeps the history of a node in ``meta["from_node"]``; where that names no captured node,
    an equal call site decides.
    """
    program = lineage.artifact.exported_program
    if program is None or not lineage.operations:
        return {}
    known = {operation.fx for operation in lineage.operations}
    by_site = {operation.site: operation.fx for operation in reversed(lineage.operations)}
    found: dict[str, str] = {}
    for node in operator_nodes(program.graph):
        names = _history(node.meta.get("from_node"))
        name = next((name for name in names if name in known), "")
        found[node.name] = name or by_site.get(call_site(node), "")
    return {name: captured for name, captured in found.items() if captured}


def _history(sources: object) -> Iterator[str]:
    """The names in a node's history, oldest first."""
    for source in sources if isinstance(sources, list) else []:
        yield from _history(source.from_node)
        yield source.name
