"""Which values of one run are in memory at the same time, as ONNX Runtime plans it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import onnx

from ..proto import NodeRef, dims_of, item_bytes, outer_reads, weight_bytes

ALIASES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators whose result is their first input under another shape, in the same memory."""

IN_PLACE = {
    "Conv": 3,  # the sum that is fused into it
    "FusedConv": 3,
    **dict.fromkeys(("Cast", "Clip", "LogSoftmax", "ScatterElements", "Softmax", "Trilu"), 0),
    **dict.fromkeys(("Celu", "Elu", "HardSigmoid", "LeakyRelu", "Relu", "Selu", "Shrink"), 0),
    **dict.fromkeys(("Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu"), 0),
}
"""Kernels that write into an input of the same shape if nothing reads it later -> which input.
Found by trying each on ONNX Runtime 1.32; Add, Mul, Gelu and most others make a new buffer."""

_ITERATES = ("Loop", "Scan")

KernelCall = tuple[str, Mapping[str, Any]]
"""The name of a kernel and what the profiler says of one call of it (``args``)."""


class _Made(NamedTuple):
    """A value that a call made. ``declared`` is what is known of its shape before the run, a
    name or "?" for a dimension; None of operators that only ONNX Runtime knows."""

    name: str
    item: int = 0
    shape: tuple[int, ...] = ()
    declared: tuple[str | int, ...] | None = None

    @property
    def size(self) -> int:
        return self.item * math.prod(self.shape)

    def fits(self, other: _Made) -> bool:
        """Whether ONNX Runtime knows before the run that both have one size."""
        known = [one.declared for one in (self, other) if one.declared is not None]
        if known and (known[0] != known[-1] or "?" in known[0]):
            return False
        return (self.item, self.shape) == (other.item, other.shape)


@dataclass(eq=False)
class Buffer:
    """Memory that holds one value after another; ``made`` is the first, ``scope`` the node whose
    body makes it. ``values`` has the step that makes each, and the last that reads it; ``last`` is
    the last of all."""

    made: _Made
    scope: str
    values: list[tuple[int, int]] = field(default_factory=list)
    last: int = 0

    @property
    def first(self) -> int:
        return self.values[0][0]

    def add(self, made: int, last: int) -> None:
        self.values.append((made, last))
        self.last = max(self.last, last)


@dataclass(frozen=True)
class Footprint:
    """The activations of one run. ``kernels`` has one entry a step: a call of a kernel, in the
    order in which they end. ``weights`` are the bytes of the optimized graph's initializers;
    ``missing`` says what ``buffers`` lacks. ``arena`` is the most that ONNX Runtime's own allocator
    counted in this run, 0 where it does not tell: with scratch memory, and what it wastes."""

    kernels: tuple[str, ...] = ()
    buffers: tuple[Buffer, ...] = ()
    weights: int = 0
    missing: tuple[str, ...] = ()
    arena: int = 0

    @cached_property
    def live(self) -> tuple[int, ...]:
        """Bytes in use while each step runs: what it reads, what it makes, and what waits."""
        change = [0] * (len(self.kernels) + 1)
        for buffer in self.buffers:
            change[buffer.first] += buffer.made.size
            change[buffer.last + 1] -= buffer.made.size
        return tuple(accumulate(change[:-1]))

    def held(self, step: int) -> Iterator[tuple[str, int]]:
        """The kernel that made what each buffer holds at a step, and its bytes; "" where it waits
        for its next value."""
        for buffer in self.buffers:
            if buffer.first <= step <= buffer.last:
                alive = [made for made, last in buffer.values if made <= step <= last]
                yield self.kernels[max(alive)] if alive else "", buffer.made.size


EMPTY = Footprint()


def footprint(
    calls: Sequence[KernelCall], refs: Mapping[str, NodeRef], model: onnx.ModelProto
) -> Footprint:
    """Follow the values of one run from the kernel that makes them to the last that reads them.

    ONNX Runtime plans before a run: a kernel writes into an input that it is the last to read, if
    it can; else into a free buffer of the same shape, which is then kept for it; else into a new
    one. The inputs belong to the caller and do not count. The body of an ``If``, ``Loop`` or
    ``Scan`` counts while it runs; results of one iteration last until those of the next.

    Args:
        calls: the calls of the kernels in the order in which they ended.
        refs: name -> node of the optimized graph.
        model: the optimized graph.

    >>> model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["": 20]> '
    ...     'g (float[2] x) => (float[2] y) { [a] h = Sin(x) [b] r = Cos(h) [c] y = Sin(r) }')
    >>> refs = {node.name: NodeRef(node.name, node) for node in model.graph.node}
    >>> args = {"output_type_shape": [{"float": [2]}]}
    >>> footprint([(name, args) for name in "abc"], refs, model).live
    (8, 16, 16)
    """
    graph = onnx.shape_inference.infer_shapes(model).graph
    plan = _Plan(calls, refs, graph)
    for step in range(len(calls)):
        plan.take(step)
    kernels, buffers = tuple(name for name, _ in calls), tuple(plan.buffers)
    return Footprint(kernels, buffers, weight_bytes(graph), tuple(plan.missing()), _arena(calls))


def _arena(calls: Sequence[KernelCall]) -> int:
    """The growth of the arena over its state before the run. Its peak counts from when the session
    was made: if the run did not raise it, the bytes after each kernel are what is known."""
    if not all("mem_in_use_peak" in args for _, args in calls):  # before ONNX Runtime 1.32
        return 0
    used, added, peak = (
        [int(args[f"mem_{name}"]) for _, args in calls]
        for name in ("bytes_in_use", "in_use_delta", "in_use_peak")
    )
    most = max([*used, *peak[-1:]] if peak[-1:] > peak[:1] else used, default=0)
    return most - used[0] + added[0] if used else 0


class _Plan:
    """``holds`` has the buffer of each value, ``free`` the free ones of each graph, the last to
    become free first."""

    def __init__(
        self, calls: Sequence[KernelCall], refs: Mapping[str, NodeRef], graph: onnx.GraphProto
    ) -> None:
        self.calls = calls
        self.nodes = {name: refs[name] for name, _ in calls if name in refs}
        bodies = [body for ref in self.nodes.values() for body in ref.bodies]
        self.results = {value.name for one in (graph, *bodies) for value in one.output}
        infos = (info for one in (graph, *bodies) for info in (*one.value_info, *one.output))
        self.declared = {info.name: _declared(info) for info in infos}
        self.last = self._last_uses(graph)
        self.buffers: list[Buffer] = []
        self.holds: dict[str, tuple[Buffer, _Made]] = {}
        self.free: dict[str, list[Buffer]] = {}

    def take(self, step: int) -> None:
        """Give a buffer to each value that a call makes, then free what it was the last to read."""
        name, args = self.calls[step]
        ref = self.nodes.get(name)
        scope = ref.inside if ref else ""
        for index, made in enumerate(self._values(ref, args)):
            if made.name in self.holds and scope:  # the next iteration, or the body again
                self.free[scope] = []
            if ref and ref.node.op_type in ALIASES and made.name not in self.results:
                if ref.node.input[0] not in self.holds:  # of the caller, or a weight
                    continue
                buffer = self.holds[ref.node.input[0]][0]
            else:
                buffer = self._buffer(ref, index, made, step, scope)
            buffer.add(step, self.last.get((step, made.name), step))
            self.holds[made.name] = buffer, made
        free = self.free.setdefault(scope, [])
        for value in (*_reads(ref), *ref.node.output) if ref else ():
            done = self.holds[value][0] if value in self.holds else None
            if done and done.last == step and done.scope == scope and done not in free:
                free.insert(0, done)

    def _buffer(
        self, ref: NodeRef | None, index: int, made: _Made, step: int, scope: str
    ) -> Buffer:
        if ref and ref.node.op_type == "If":
            branches = [body.output[index].name for body in ref.bodies]
            ran = [self.holds[value][0] for value in branches if value in self.holds]
            if ran:  # the result of the branch that ran last is that of the If
                return max(ran, key=lambda buffer: buffer.values[-1])
        elif ref and made.name not in self.results:
            position = IN_PLACE.get(ref.node.op_type, len(ref.node.input))
            source = ref.node.input[position] if position < len(ref.node.input) else ""
            if source in self.holds:
                buffer, value = self.holds[source]
                if buffer.last == step and value.fits(made):
                    return buffer
            for buffer in self.free.get(scope, ()):
                if made.shape and buffer.made.fits(made):
                    self.free[scope].remove(buffer)
                    return buffer
        self.buffers.append(buffer := Buffer(made, scope))
        return buffer

    def _values(self, ref: NodeRef | None, args: Mapping[str, Any]) -> list[_Made]:
        found = [pair for shape in args.get("output_type_shape") or () for pair in shape.items()]
        names = [name for name in ref.node.output if name] if ref else [""] * len(found)
        if len(names) != len(found):  # some are no tensors
            return [_Made(name, result_bytes(args) if name is names[0] else 0) for name in names]
        return [
            _Made(name, item_bytes(kind), tuple(shape), self.declared.get(name))
            for name, (kind, shape) in zip(names, found, strict=True)
        ]

    def _last_uses(self, graph: onnx.GraphProto) -> dict[tuple[int, str], int]:
        """(step, value that it makes) -> the last step that reads it."""
        reads = {name: _reads(ref) for name, ref in self.nodes.items()}
        owners = [ref for ref in self.nodes.values() if ref.node.op_type in _ITERATES]
        carried = {value for ref in owners for value in _results(ref)}
        last: dict[tuple[int, str], int] = {}
        use = {value.name: len(self.calls) - 1 for value in graph.output}
        for step in range(len(self.calls) - 1, -1, -1):
            name, _ = self.calls[step]
            for value in self.nodes[name].node.output if name in self.nodes else ():
                last[step, value] = use.pop(value, step)
                if value in carried:  # the iteration before reads its own until here
                    use[value] = step
            for value in reads.get(name, ()):
                use.setdefault(value, step)
        return last

    def missing(self) -> Iterator[str]:
        yield "scratch memory inside kernels, what the allocator keeps in reserve"
        if any(ref.node.op_type in _ITERATES for ref in self.nodes.values()):
            yield "what a Loop or Scan collects over its iterations"
        made = ((self.nodes[name], args) for name, args in self.calls if name in self.nodes)
        if any(len(args.get("output_type_shape") or ()) < len(ref.outputs) for ref, args in made):
            yield "values that are no tensors"
        if unknown := len({name for name, _ in self.calls} - self.nodes.keys()):
            yield f"the results of {unknown} kernels without a node, once they have run"


def result_bytes(args: Mapping[str, Any]) -> int:
    """Bytes of all tensors that a call made.

    >>> result_bytes({"output_type_shape": [{"float": [2, 3]}, {"int64": []}]})
    32
    """
    shapes = (pair for shape in args.get("output_type_shape") or () for pair in shape.items())
    return sum(item_bytes(kind) * math.prod(shape) for kind, shape in shapes)


def _declared(info: onnx.ValueInfoProto) -> tuple[str | int, ...]:
    """The shape of a value with "?" for what is not known before the run; shape inference calls
    each such dimension ``unk__1``, which ONNX Runtime does not."""
    dims = dims_of(info)
    if dims is None:
        return ("?",)
    return tuple("?" if str(dim).startswith("unk__") else dim for dim in dims)


def _reads(ref: NodeRef) -> list[str]:
    """What a node reads; one with a body also what the body reads, and what it gives."""
    return [*ref.node.input, *outer_reads(ref.node), *_results(ref)]


def _results(ref: NodeRef) -> list[str]:
    return [value.name for body in ref.bodies for value in body.output]
