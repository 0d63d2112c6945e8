"""A kernel of the optimized graph -> the exported nodes that it runs, by rules."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..proto import NodeRef, consumers, producers
from ..runs.profiler import Kernel

NAME = "name"
VALUE = "value"
LAYOUT = "layout"
FUSED = "fused name"
INLINED = "inlined"
BY_NEIGHBOR = "neighbor"
UNKNOWN = "unattributed"

RULES = {
    NAME: "the kernel has the name of an exported node",
    VALUE: "it computes a value that the exported graph also has",
    LAYOUT: "its name is that of an exported node or value, plus _nchwc",
    FUSED: "its name begins with that of an exported node, before /, _new_reshape or _token_",
    INLINED: "it is inside a function, and leads to a result of the function's call",
    BY_NEIGHBOR: "the optimizer added it: it gets the line of its consumer, else of its producer",
    UNKNOWN: "none of these",
}
"""The first rule that fits counts."""

_NAMES = {
    LAYOUT: re.compile(r"(.+)_nchwc(_token_\d+)?"),
    FUSED: re.compile(r"(.+?)(/.*|_new_reshape.*|_token_\d+)"),
}
_INLINED = "_inlfunc_"


@dataclass(frozen=True)
class Match:
    """The exported ``nodes`` that a kernel runs, and the ``rule`` that found the first."""

    rule: str
    nodes: tuple[str, ...] = ()


def matches(
    kernels: Sequence[Kernel], exported: Sequence[NodeRef], constants: Collection[str] = ()
) -> dict[str, Match]:
    """Match each kernel to exported nodes; the optimized graph has ``constants`` as weights.

    A kernel runs the node that a rule finds, and the nodes that the optimizer fused into it: those
    before its result whose values are gone from the optimized graph, as long as the kernel reads
    their inputs. A node that reads more inputs was fused into the kernel before.
    """
    return _Join(kernels, exported, constants).matches()


class _Join:
    """``refs`` are the exported nodes by name, ``makers`` those that compute a value. ``fixed`` are
    the values that take no time in a run, ``alive`` those that the optimized graph still has,
    ``owner`` the kernels of nodes known so far."""

    def __init__(
        self, kernels: Sequence[Kernel], exported: Sequence[NodeRef], constants: Collection[str]
    ) -> None:
        self.kernels = kernels
        self.functions = {ref.function for ref in exported}
        outside = [ref for ref in exported if not ref.function]  # inlining renames those inside
        self.refs = {ref.name: ref for ref in outside}
        self.makers = producers(outside)
        self.fixed: set[str] = set()
        for ref in outside:
            if self.fixed.issuperset(ref.inputs):
                self.fixed.update(ref.outputs)
        self.fixed.update(constants)
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
        matches = {
            name: Match(anchors[name][0], tuple(dict.fromkeys(nodes)))
            for name, nodes in members.items()
        }
        self._neighbors(matches)
        return {kernel.name: matches.get(kernel.name, Match(UNKNOWN)) for kernel in self.kernels}

    def _anchor(self, kernel: Kernel) -> tuple[str, str]:
        """The first rule that matches a kernel, and the exported node that it finds."""
        if kernel.name in self.refs:
            return NAME, kernel.name
        for value in kernel.outputs:
            if value in self.makers:
                return VALUE, self.makers[value].name
        for rule, pattern in _NAMES.items():
            name = match[1] if (match := pattern.fullmatch(kernel.name)) else ""
            if name in self.refs:
                return rule, name
            if name in self.makers:
                return rule, self.makers[name].name
        return UNKNOWN, ""

    def _fused(self, kernel: Kernel, anchor: str) -> Iterator[tuple[str, str]]:
        """Yield (exported node, kernel) for the fused nodes before the kernel's result."""
        ends = [self.makers[value].name for value in kernel.outputs if value in self.makers]
        waiting = list(dict.fromkeys([*ends, anchor]))
        for node in waiting:
            if self.owner.setdefault(node, kernel.name) == kernel.name and node != anchor:
                yield node, kernel.name
        reads = self._reads(waiting)  # of the nodes fused so far: not more than it has inputs
        while waiting:
            for value in self.refs[waiting.pop()].inputs:
                before = self.makers.get(value)
                if before is None or value in self.alive or before.name in self.owner:
                    continue
                wider = (reads | self._reads([before.name])) - {value}
                if len(wider) <= max(len(kernel.inputs), 1):
                    reads, owner = wider, kernel.name
                    waiting.append(before.name)
                else:
                    owner = self._owner_before(before)
                if not owner:
                    continue
                self.owner[before.name] = owner
                yield before.name, owner

    def _reads(self, nodes: Sequence[str]) -> set[str]:
        """The computed values that these nodes read from others."""
        refs = [self.refs[node] for node in nodes]
        read = {v for ref in refs for v in ref.inputs if v in self.makers and v not in self.fixed}
        return read.difference(*(ref.outputs for ref in refs))

    def _owner_before(self, ref: NodeRef) -> str:
        """The kernel that computes what this node reads, under another name."""
        gone = (value for value in ref.inputs if value in self.makers and value not in self.alive)
        return next((self.owner.get(self.makers[value].name, "") for value in gone), "")

    def _neighbors(self, matches: dict[str, Match]) -> None:
        """Match the kernels that the optimizer added: by their consumers, else their producers."""
        readers_of, makers = consumers(self.kernels), producers(self.kernels)

        def near(kernel: Kernel, neighbors: Iterable[Kernel]) -> None:
            known = (matches[other.name].nodes[:1] for other in neighbors if other.name in matches)
            if kernel.name not in matches and (nodes := next(known, None)):
                matches[kernel.name] = Match(BY_NEIGHBOR, nodes)

        for kernel in reversed(self.kernels):
            readers = [reader for value in kernel.outputs for reader in readers_of.get(value, ())]
            self._inlined(matches, kernel, readers)
            near(kernel, readers)
        for kernel in self.kernels:
            near(kernel, [makers[value] for value in kernel.inputs if value in makers])

    def _inlined(
        self, matches: dict[str, Match], kernel: Kernel, readers: Sequence[Kernel]
    ) -> None:
        """Match a kernel inside a function, where no value has an exported name: the first known
        node after it is the call of the function, or was fused with it."""
        tags = [name for name in (kernel.name, *kernel.outputs) if name.startswith(_INLINED)]
        for match in [matches[reader.name] for reader in readers if reader.name in matches]:
            inside = match.rule == INLINED
            calls = [node for node in match.nodes if inside or self._calls(node, tags)]
            if tags and calls and kernel.name not in matches:
                matches[kernel.name] = Match(INLINED, (calls[0],))

    def _calls(self, node: str, tags: Sequence[str]) -> bool:
        operator = self.refs[node].node.op_type
        prefix = f"{_INLINED}{operator}_"  # of a function that defines the operator
        return operator in self.functions or any(tag.startswith(prefix) for tag in tags)
