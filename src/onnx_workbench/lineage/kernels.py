"""A kernel of the optimized graph -> the exported nodes that it runs, by rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..proto import NodeRef, producers
from ..runs.profiler import Kernel

NAME = "name"
VALUE = "value"
LAYOUT = "layout"
FUSED = "fused name"
INLINED = "inlined"
NEIGHBOUR = "neighbour"
UNKNOWN = "unattributed"

RULES = {
    NAME: "the kernel has the name of an exported node",
    VALUE: "it makes a value that the exported graph also makes",
    LAYOUT: "its name is that of an exported node or value, and _nchwc",
    FUSED: "its name begins with that of an exported node, before /, _new_reshape or _token_",
    INLINED: "it is part of a function, or a value of it is, and leads to what a call of it makes",
    NEIGHBOUR: "the optimizer put it in: the line of its consumer, else of its producer",
    UNKNOWN: "none of these",
}
"""In this order; the first that fits counts."""

_LAYOUT = re.compile(r"(.+)_nchwc(_token_\d+)?")
_FUSED = re.compile(r"(.+?)(/.*|_new_reshape.*|_token_\d+)")
_INLINED = "_inlfunc_"


@dataclass(frozen=True)
class Match:
    """``nodes`` are the exported nodes that one kernel runs, the one it was found by first."""

    rule: str
    nodes: tuple[str, ...] = ()


def matches(kernels: Sequence[Kernel], exported: Sequence[NodeRef]) -> dict[str, Match]:
    """Each kernel -> the rule and the exported nodes.

    Besides the node that a rule names, a kernel runs those that the optimizer fused into it: the
    nodes before its result that the optimized graph no longer makes the value of, as far as their
    inputs are among the kernel's. A node that needs what this kernel does not read was fused into
    the kernel before it.
    """
    return _Join(kernels, exported).matches()


class _Join:
    def __init__(self, kernels: Sequence[Kernel], exported: Sequence[NodeRef]) -> None:
        self.kernels = kernels
        self.functions = {ref.function for ref in exported}
        outside = [ref for ref in exported if not ref.function]  # what is inside gets new names
        self.sites = {ref.name: ref for ref in outside}
        self.made = producers(outside)
        self.fixed: set[str] = set()  # what depends on constants alone, and takes no time in a run
        for ref in outside:
            if self.fixed.issuperset(ref.inputs):
                self.fixed |= {*ref.outputs}
        self.alive = self.fixed | {v for kernel in kernels for v in kernel.outputs}
        self.anchors = {kernel.name: self._anchor(kernel) for kernel in kernels}
        self.owner: dict[str, str] = {
            node: name for name, (_, node) in self.anchors.items() if node
        }

    def matches(self) -> dict[str, Match]:
        members: dict[str, list[str]] = {
            name: [node] for name, (_, node) in self.anchors.items() if node
        }
        for kernel in self.kernels:
            if kernel.name in members:
                for node, owner in self._fused(kernel):
                    members[owner].append(node)
        found = {
            name: Match(self.anchors[name][0], tuple(dict.fromkeys(nodes)))
            for name, nodes in members.items()
        }
        return found | self._neighbours(found)

    def _anchor(self, kernel: Kernel) -> tuple[str, str]:
        if kernel.name in self.sites:
            return NAME, kernel.name
        for value in kernel.outputs:
            if value in self.made:
                return VALUE, self.made[value].name
        for rule, pattern in ((LAYOUT, _LAYOUT), (FUSED, _FUSED)):
            if (found := pattern.fullmatch(kernel.name)) and (node := self._named(found[1])):
                return rule, node
        return UNKNOWN, ""

    def _named(self, word: str) -> str:
        if word in self.sites:
            return word
        return self.made[word].name if word in self.made else ""

    def _fused(self, kernel: Kernel) -> Iterator[tuple[str, str]]:
        """(exported node, kernel) of the nodes that are gone before the kernel's result."""
        ends = [self.made[value].name for value in kernel.outputs if value in self.made]
        anchor = self.anchors[kernel.name][1]
        mine = list(dict.fromkeys([*ends, anchor]))
        for node in mine:
            if self.owner.setdefault(node, kernel.name) == kernel.name and node != anchor:
                yield node, kernel.name
        waiting = list(mine)
        reads = self._reads(waiting)
        while waiting:
            for value in self.sites[waiting.pop()].inputs:
                before = self.made.get(value)
                if before is None or value in self.alive or before.name in self.owner:
                    continue
                wider = self._reads([before.name]) - {value}
                if len((reads - {value}) | wider) > max(len(kernel.inputs), 1):
                    if before_owner := self._owner_before(before):
                        self.owner[before.name] = before_owner
                        yield before.name, before_owner
                    continue
                reads = (reads - {value}) | wider
                self.owner[before.name] = kernel.name
                waiting.append(before.name)
                yield before.name, kernel.name

    def _reads(self, nodes: Sequence[str]) -> set[str]:
        """The computed values that these nodes read, apart from what they make."""
        made = {value for node in nodes for value in self.sites[node].outputs}
        return {v for node in nodes for v in self.sites[node].inputs if self._computed(v)} - made

    def _computed(self, value: str) -> bool:
        return value in self.made and value not in self.fixed

    def _owner_before(self, ref: NodeRef) -> str:
        """The kernel that runs what this node reads and that ends in a value of another name."""
        for value in ref.inputs:
            if value in self.made and value not in self.alive:
                return self.owner.get(self.made[value].name, "")
        return ""

    def _neighbours(self, found: Mapping[str, Match]) -> dict[str, Match]:
        """The kernels that the optimizer put in: consumers first, then producers."""
        used: dict[str, list[str]] = {}
        makes: dict[str, str] = {}
        for kernel in self.kernels:
            makes |= dict.fromkeys(kernel.outputs, kernel.name)
            for value in kernel.inputs:
                used.setdefault(value, []).append(kernel.name)
        near = dict(found)
        for kernel in reversed(self.kernels):
            consumers = [name for value in kernel.outputs for name in used.get(value, ())]
            self._inlined(near, kernel, consumers)
            self._near(near, kernel, consumers)
        for kernel in self.kernels:
            self._near(near, kernel, [makes[value] for value in kernel.inputs if value in makes])
        lost = {kernel.name: Match(UNKNOWN) for kernel in self.kernels}
        return {name: near.get(name, lost[name]) for name in lost if name not in found}

    def _inlined(self, near: dict[str, Match], kernel: Kernel, names: Sequence[str]) -> None:
        """Within a function nothing has the name of an exported value, so that the first node that
        is known down the line is, or has fused, the call."""
        tags = [word for word in (kernel.name, *kernel.outputs) if word.startswith(_INLINED)]
        for match in (near[name] for name in names if name in near and kernel.name not in near):
            calls = [n for n in match.nodes if match.rule == INLINED or self._calls(n, tags)]
            if tags and calls:
                near[kernel.name] = Match(INLINED, (calls[0],))

    def _calls(self, node: str, tags: Sequence[str]) -> bool:
        operator = self.sites[node].node.op_type
        own = f"{_INLINED}{operator}_"  # of a function that the operator's definition is
        return operator in self.functions or any(tag.startswith(own) for tag in tags)

    def _near(self, near: dict[str, Match], kernel: Kernel, names: Sequence[str]) -> None:
        if kernel.name not in near:
            hit = next((name for name in names if name in near), None)
            if hit:
                near[kernel.name] = Match(NEIGHBOUR, near[hit].nodes[:1])
