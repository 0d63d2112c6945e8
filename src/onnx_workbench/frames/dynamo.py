"""What Dynamo tells while it compiles. All that is private to torch stands in this room alone."""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

import torch
from torch import fx
from torch._dynamo import utils
from torch._dynamo.convert_frame import register_bytecode_hook
from torch._guards import CompileContext

from ..text import shaped

_NUMBERED = re.compile(
    r"\b(__compiled_fn|__resume_at_\d+|__builtins_dict__)_+(\d+)(_[0-9a-f_]{36})?"
)
_ADDRESS = re.compile(r"(, file \"[^\"]*\", line \d+)| at 0x[0-9a-fA-F]+|_\d{9,}_c\d+")


@dataclass(frozen=True)
class Trouble:
    """Why a graph ended or a frame was given up: torch's own words, and the stack trace."""

    words: str
    trace: str


@dataclass
class Record:
    """One compilation of one frame, filled in while Dynamo is at it.

    ``code`` and ``rewritten`` are None where Dynamo gave the frame up, and ``failure`` says why;
    there is none where it had no operation to compile.
    """

    name: str = ""
    file: str = ""
    number: int = 0
    code: CodeType | None = None
    rewritten: CodeType | None = None
    graph: fx.GraphModule | None = None
    shapes: dict[str, torch.Tensor] = field(default_factory=dict)
    guards: tuple[str, ...] = ()
    breaks: tuple[Trouble, ...] = ()
    failure: Trouble | None = None


@dataclass
class Listener:
    """Overhears the compilation of each frame, in the order in which they are compiled."""

    records: dict[str, Record] = field(default_factory=dict)
    heard: int = 0

    def listen(self, f: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> None:
        """Compile ``f`` for one call, make that call, and leave nothing behind in Dynamo.

        Functions that were compiled before are compiled anew at their next call.
        """
        with _silent(), _unmarked(f):
            _reset()
            hook = register_bytecode_hook(self._on_bytecode)
            compiled = torch.compile(
                f, backend=self._on_graph, options={"guard_filter_fn": self._on_guards}
            )
            try:
                compiled(*args, **kwargs)
            finally:
                hook.remove()
                self._on_end()
                _reset()
                _sweep(record.rewritten for record in self.records.values())

    def _record(self) -> Record:
        return self.records.setdefault(str(CompileContext.current_compile_id()), Record())

    def _on_graph(self, graph: fx.GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        self._record().graph = graph
        self._record().shapes = _shapes(graph)
        return graph.forward

    def _on_bytecode(self, code: CodeType, new_code: CodeType) -> None:
        record = self._record()
        record.code, record.rewritten = code, new_code
        told = utils.graph_break_reasons[self.heard :]
        self.heard += len(told)
        record.breaks = tuple(
            Trouble(reason.reason, "".join(traceback.format_list(reason.user_stack)))
            for reason in told
            if reason.user_stack[0].filename == code.co_filename  # else of a frame given up since
        )

    def _on_guards(self, guards: Sequence[Any]) -> list[bool]:
        record = self._record()
        ordered = sorted(guards, key=lambda guard: (not guard.name, guard.guard_type))
        record.guards = tuple(said for guard in ordered for said in _said(guard, record.shapes))
        return [True] * len(guards)

    def _on_end(self) -> None:
        """Dynamo's own book has each frame that it tried, also those that it gave up."""
        overheard, self.records = self.records, {}
        for entry in utils.get_compilation_metrics():
            record = overheard.get(str(entry.compile_id), Record())
            record.name = record.code.co_qualname if record.code else entry.co_name or ""
            record.file, record.number = entry.co_filename or "", entry.co_firstlineno or 0
            if entry.fail_reason:
                record.failure = Trouble(
                    entry.fail_reason,
                    f'File "{entry.fail_user_frame_filename or record.file}", '
                    f"line {entry.fail_user_frame_lineno or record.number}, in {record.name}",
                )
            self.records[str(entry.compile_id)] = record


def _reset() -> None:
    torch.compiler.reset()
    utils.clear_compilation_metrics()


def _sweep(codes: Iterable[CodeType | None]) -> None:
    """Take the names out of the user's modules that rewritten code calls its helpers by.

    Torch does so when the code is destroyed, and never destroys that of a frame with a break.
    """
    manager = utils.CleanupManager.instance
    for code in codes:
        manager.refs.pop(id(code), None)
        for cleanup in manager.values.pop(id(code), ()):
            cleanup()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Torch logs the breaks and errors that are reported here anyway."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _unmarked(f: object) -> Iterator[None]:
    """torch.compile marks the module that it is given, not only the compiled one."""
    marked = hasattr(f, "_is_torch_compile")
    try:
        yield
    finally:
        if not marked and hasattr(f, "_is_torch_compile"):
            del f._is_torch_compile


class Names:
    """Takes out of a text what differs from run to run: counters, unique ids and addresses.

    >>> names = Names()
    >>> names("__compiled_fn_7_92c4bfdc_4964_4e3a_9988_09c94ad1dd99")
    '__compiled_fn_1'
    >>> names("__compiled_fn_9"), names("<code object f at 0x7f1c>")
    ('__compiled_fn_2', '<code object f>')
    """

    def __init__(self) -> None:
        self._known: dict[str, list[str]] = {}

    def __call__(self, text: str) -> str:
        return _ADDRESS.sub("", _NUMBERED.sub(self._renumbered, text))

    def _renumbered(self, match: re.Match[str]) -> str:
        known = self._known.setdefault(match[1], [])
        if match[2] not in known:
            known.append(match[2])
        return f"{match[1]}_{known.index(match[2]) + 1}"


def _shapes(graph: fx.GraphModule) -> dict[str, torch.Tensor]:
    """By the source of each graph input, a tensor that knows which dimensions are dynamic."""
    return {
        _name(node.meta["grapharg"].source): node.meta["example_value"]
        for node in graph.graph.find_nodes(op="placeholder")
        if "grapharg" in node.meta and isinstance(node.meta.get("example_value"), torch.Tensor)
    }


def _name(source: Any) -> str:
    return source.name() if callable(source.name) else source.name  # a method before torch 2.10


def _said(guard: Any, shapes: dict[str, torch.Tensor]) -> Iterator[str]:
    """A guard in words: what must hold for the compiled code to be used again."""
    kind, name = guard.guard_type, guard.name
    if kind == "SHAPE_ENV":
        yield from guard.orig_guard.code_list or ()
    elif kind == "TENSOR_MATCH":
        tensor = shapes.get(_name(guard.orig_guard.originating_source), guard.value)
        yield f"{name} is {shaped(tensor.dtype, tensor.shape)} on {tensor.device}"
    elif kind in ("CONSTANT_MATCH", "EQUALS_MATCH"):
        yield f"{name} == {guard.value!r}"
    elif kind == "TYPE_MATCH":
        yield f"type({name}) is {type(guard.value).__name__}"
    elif kind == "SEQUENCE_LENGTH":
        yield f"len({name}) == {len(guard.value)}"
    else:
        words = kind.lower().replace("_", " ")
        yield f"{name}: {words}" if name else words
