"""A kernel of the optimized graph -> the exported nodes that it runs, by rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..proto import NodeRef, consumers, producers
from ..runs.profiler import Kernel

NAME = "name"
VALUE = "value"
LAYOUT = "layout"
FUSED = "fused name"
INLINED = "inlined"
NEIGHBOR = "neighbor"
UNKNOWN = "unattributed"

RULES = {
    NAME: "the kernel has the name of an exported node",
    VALUE: "it makes a value that the exported graph also makes",
    LAYOUT: "its name is that of an exported node or value, and _nchwc",
    FUSED: "its name begins with that of an exported node, before /, _new_reshape or _token_",
    INLINED: "it or its value is part of a function, and leads to a result of that function's call",
    NEIGHBOR: "the optimizer put it in: the line of its consumer, else of its producer",
    UNKNOWN: "none of these",
}
"""In this order; the first that fits counts."""

_NAMES = {
    LAYOUT: re.compile(r"(.+)_nchwc(_token_\d+)?"),
    FUSED: re.compile(r"(.+?)(/.*|_new_reshape.*|_token_\d+)"),
}
_INLINED = "_inlfunc_"


@dataclass(frozen=True)
class Match:
    """``nodes`` are the exported nodes that a kernel runs; ``rule`` found the first."""

    rule: str
    nodes: tuple[str, ...] = ()


def matches(kernels: Sequence[Kernel], exported: Sequence[NodeRef]) -> dict[str, Match]:
    """Each kernel -> the rule and the exported nodes.

    Besides the node that a rule finds, a kernel runs the nodes that the optimizer fused into it:
    those before its result whose values the optimized graph no longer has, as long as the kernel
    reads their inputs. A node that reads more was fused into the kernel before it.
    """
    return _Join(kernels, exported).matches()


class _Join:
    """``owner`` has the kernel of each exported node that is known so far."""

    def __init__(self, kernels: Sequence[Kernel], exported: Sequence[NodeRef]) -> None:
        self.kernels = kernels
        self.functions = {ref.function for ref in exported}
        outside = [ref for ref in exported if not ref.function]  # what is inside gets new names
        self.refs = {ref.name: ref for ref in outside}
        self.made = producers(outside)
        self.fixed: set[str] = set()  # depends only on constants, takes no time in a run
        for ref in outside:
            if self.fixed.issuperset(ref.inputs):
                self.fixed.update(ref.outputs)
        self.alive = self.fixed.union(*(kernel.outputs for kernel in kernels))
        self.owner: dict[str, str] = {}

    def matches(self) -> dict[str, Match]:
        anchors = {kernel.name: self._anchor(kernel) for kernel in self.kernels}
        members = {name: [node] for name, (_, node) in anchors.items() if node}
        self.owner = {node: name for name, (node, *_) in members.items()}
        for kernel in self.kernels:
            if kernel.name in members:
                for node, owner in self._fused(kernel, members[kernel.name][0]):
                    members[owner].append(node)
        found = {
            name: Match(anchors[name][0], tuple(dict.fromkeys(nodes)))
            for name, nodes in members.items()
        }
        self._neighbors(found)
        return {kernel.name: found.get(kernel.name, Match(UNKNOWN)) for kernel in self.kernels}

    def _anchor(self, kernel: Kernel) -> tuple[str, str]:
        """The rule and the exported node that a kernel is found by."""
        if kernel.name in self.refs:
            return NAME, kernel.name
        for value in kernel.outputs:
            if value in self.made:
                return VALUE, self.made[value].name
        for rule, pattern in _NAMES.items():
            word = found[1] if (found := pattern.fullmatch(kernel.name)) else ""
            if word in self.refs:
                return rule, word
            if word in self.made:
                return rule, self.made[word].name
        return UNKNOWN, ""

    def _fused(self, kernel: Kernel, anchor: str) -> Iterator[tuple[str, str]]:
        """Yield (exported node, kernel) for the fused nodes before the kernel's result."""
        ends = [self.made[value].name for value in kernel.outputs if value in self.made]
        waiting = list(dict.fromkeys([*ends, anchor]))
        for node in waiting:
            if self.owner.setdefault(node, kernel.name) == kernel.name and node != anchor:
                yield node, kernel.name
        reads = self._reads(waiting)
        while waiting:
            for value in self.refs[waiting.pop()].inputs:
                before = self.made.get(value)
                if before is None or value in self.alive or before.name in self.owner:
                    continue
                wider = (reads | self._reads([before.name])) - {value}
                if len(wider) <= max(len(kernel.inputs), 1):
                    reads = wider
                    owner = kernel.name
                    waiting.append(before.name)
                elif not (owner := self._owner_before(before)):
                    continue
                self.owner[before.name] = owner
                yield before.name, owner

    def _reads(self, nodes: Sequence[str]) -> set[str]:
        """The computed values that these nodes read from others."""
        refs = [self.refs[node] for node in nodes]
        read = {v for ref in refs for v in ref.inputs if v in self.made and v not in self.fixed}
        return read.difference(*(ref.outputs for ref in refs))

    def _owner_before(self, ref: NodeRef) -> str:
        """The kernel that runs what this node reads and that ends in a value of another name."""
        gone = (value for value in ref.inputs if value in self.made and value not in self.alive)
        return next((self.owner.get(self.made[value].name, "") for value in gone), "")

    def _neighbors(self, found: dict[str, Match]) -> None:
        """Place the kernels that the optimizer added: by their consumers, else their producers."""
        used, made = consumers(self.kernels), producers(self.kernels)

        def near(kernel: Kernel, neighbors: Iterable[Kernel]) -> None:
            known = (found[one.name].nodes[:1] for one in neighbors if one.name in found)
            if kernel.name not in found and (nodes := next(known, None)):
                found[kernel.name] = Match(NEIGHBOR, nodes)

        for kernel in reversed(self.kernels):
            readers = [one for value in kernel.outputs for one in used.get(value, ())]
            self._inlined(found, kernel, readers)
            near(kernel, readers)
        for kernel in self.kernels:
            near(kernel, [made[value] for value in kernel.inputs if value in made])

    def _inlined(self, found: dict[str, Match], kernel: Kernel, readers: Sequence[Kernel]) -> None:
        """Nothing inside a function has the name of an exported value. The first known node behind
        it is the call, or has fused it."""
        tags = [word for word in (kernel.name, *kernel.outputs) if word.startswith(_INLINED)]
        for match in [found[one.name] for one in readers if one.name in found]:
            inside = match.rule == INLINED
            calls = [node for node in match.nodes if inside or self._calls(node, tags)]
            if tags and calls and kernel.name not in found:
                found[kernel.name] = Match(INLINED, (calls[0],))

    def _calls(self, node: str, tags: Sequence[str]) -> bool:
        operator = self.refs[node].node.op_type
        own = f"{_INLINED}{operator}_"  # of a function that defines the operator
        return operator in self.functions or any(tag.startswith(own) for tag in tags)
