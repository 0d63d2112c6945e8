"""``watch``: what Dynamo did to each Python frame: bytecode before and after, FX graph, guards."""

from __future__ import annotations

import contextlib
import dis
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from html import escape
from itertools import chain, groupby, zip_longest
from types import CodeType
from typing import Any

import torch
from torch import fx, nn

# These imports are private to torch; tests/test_bytecode.py fails if a release moves them.
from torch._dynamo import utils  # its lists of graph breaks and of compilations, failed ones too
from torch._dynamo.convert_frame import register_bytecode_hook  # the old and the new bytecode
from torch._guards import CompileContext  # which frame a graph, a guard or bytecode belongs to

from .calls import check_initialized, normalize_call
from .errors import CaptureError, InputError
from .formatting import Code, Fold, Part, Report, Table, details, kind_of, plural, shaped
from .source import Line, line_at, nearest, node_line, unless_internal, user_line
from .torch_state import buffers_restored, silent_log

_JUMPS = {*dis.hasjrel, *dis.hasjabs}
_CALLED = ("__compiled_fn", "__resume_at")  # the names of a graph and of a resume function
_CELL = "text-align:left;vertical-align:top;white-space:nowrap"
_GREEN, _RED = "background:rgba(46,160,67,.18)", "background:rgba(248,81,73,.18)"

_RESUMED = re.compile(r"(.*\.)?torch_dynamo_resume_in_(.+)_at_(\d+)")
_NUMBERED = re.compile(
    r"\b(__compiled_fn|__resume_at_\d+|__builtins_dict__)_+(\d+)(_[0-9a-f_]{36})?"
)
_ADDRESS = re.compile(r"(, file \"[^\"]*\", line \d+)| at 0x[0-9a-fA-F]+|_\d{9,}_c\d+")
_NODES = ("node", "op", "target", "value", "line")
_SUMMARY = ("frame", "place", "instructions", "FX nodes", "guards", "breaks")
_REASONS = {  # replace torch's words if they describe torch's own source code
    r"generic_jump|Data-dependent branching": (
        "data-dependent branch: Python must choose a branch by the values of a tensor, but a graph "
        "has no values yet"
    ),
    r"Tensor\.item\(\)": "a tensor becomes a Python number, but a graph has no values yet",
    r"builtin operator `print`": "print() is not a tensor operation",
}


@normalize_call
def watch(f: Callable[..., Any], args: Any = (), kwargs: dict[str, Any] | None = None) -> Frames:
    """Let Dynamo compile ``f`` for the call ``f(*args, **kwargs)``, and report what it did.

    Dynamo (the front end of `torch.compile`, PEP 523) gets each Python frame before it runs. It
    follows the bytecode, collects the tensor operations in an FX graph, and writes new bytecode
    that calls the graph. If it cannot continue, the graph breaks: the new bytecode runs the rest
    as a resume function, which is another frame.

    ``watch`` makes the call, in the caller's grad mode and with its effects on the arguments.
    Random state and module buffers are restored. Functions that torch.compile has compiled before
    are compiled again at their next call (``torch.compiler.reset``).

    Args:
        f: a Python function, a method, or a ``torch.nn.Module``.
        args, kwargs: the arguments of the call, with at least one tensor.

    Raises:
        InputError: ``f`` cannot be called, or Dynamo found no tensor operation in it.
        CaptureError: the call raised; the error is the ``__cause__``.

    >>> def f(x):
    ...     y = x.relu()
    ...     if y.sum() > 0:
    ...         return y + 1
    ...     return y - 1
    >>> found = watch(f, torch.ones(3))
    >>> [frame.name for frame in found.frames]
    ['f', 'f, resumed at line 3']
    >>> found.breaks[0].line
    cell:3  if y.sum() > 0:
    """
    if isinstance(f, torch.export.ExportedProgram):
        f = f.module()
    if not callable(f) or isinstance(f, type):  # torch.compile would compile all of its instances
        raise InputError(
            f"watch() expects a function or a torch.nn.Module, got {kind_of(f)}.",
            "Pass the function or an instance, then its arguments: watch(f, x).",
        )
    if isinstance(f, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        raise InputError(
            f"watch() got {kind_of(f)} of TorchScript, which has no Python bytecode.",
            "Pass the eager module or function that it was made from.",
        )
    if isinstance(f, nn.Module):
        check_initialized("watch", f)
    name, listener = getattr(f, "__name__", type(f).__name__), _Listener()
    owner = f if isinstance(f, nn.Module) else getattr(f, "__self__", None)
    random = torch.random.fork_rng(devices=range(torch.cuda.device_count()))
    with random, buffers_restored(owner):
        try:
            frames = listener.listen(f, args, kwargs or {})
        except Exception as error:
            raise _explained(name, error) from error
    if not any(frame.graph or frame.breaks for frame in frames):
        raise InputError(
            f"Dynamo found nothing to compile in {name}: none of its frames computes with a tensor "
            "of the arguments.",
            "Pass a function that does; Dynamo also ignores generator functions.",
        )
    return Frames(name, frames)


@dataclass(frozen=True, repr=False)
class Instruction:
    """One instruction. A jump and its target share a label instead of an offset.

    ``place`` is the line and column in the source, None if Dynamo wrote the instruction.
    """

    name: str
    argument: str = ""
    label: str = ""
    place: tuple[int, int] | None = None

    @property
    def moves(self) -> bool:
        """Whether Dynamo wrote it only to pass values to a graph and back."""
        if self.label or self.place or "JUMP" in self.name or self.name.startswith("RETURN"):
            return False
        return not any(name in self.argument for name in _CALLED)

    def __repr__(self) -> str:
        label = f"{self.label}: " if self.label else ""
        return f"{label}{self.name} {self.argument}".rstrip()


Run = tuple[Instruction, ...]


@dataclass(frozen=True, repr=False)
class Bytecode(Report):
    """The instructions of one frame: as Python compiled them, and as Dynamo rewrote them.

    An instruction counts as kept if Dynamo copied it with its place in the source. ``after`` is
    empty if Dynamo left the frame alone. Each version of Python has its own instructions.

    >>> removed, kept = Instruction("LOAD_FAST", "x"), Instruction("CALL", place=(2, 4))
    >>> added = Instruction("LOAD_GLOBAL", "__compiled_fn_1")
    >>> Bytecode((removed, kept), (added, kept))
       before: 2 instructions  after: 2 instructions
    -  ----------------------  ---------------------------
       LOAD_FAST x             LOAD_GLOBAL __compiled_fn_1
    =  CALL                    CALL
    """

    before: Run
    after: Run

    def rows(self) -> Iterator[tuple[bool, Run, Run]]:
        """Both side by side: whether an instruction was kept, the old one, and the new ones.

        New instructions in a row that only pass values share one row.
        """
        matcher = SequenceMatcher(None, _keys(self.before, 0), _keys(self.after, 1), autojunk=False)
        for tag, a, b, c, d in matcher.get_opcodes():
            old, new = zip(self.before[a:b], strict=True), _folded(self.after[c:d])
            for pair in zip_longest(old, new, fillvalue=()):
                yield tag == "equal", *pair

    def _parts(self) -> Iterator[Part]:
        rows = (("=" if kept else "", *map(_text, pair)) for kept, *pair in self.rows())
        yield Table([*rows], ("", *self._heads()))

    def _repr_html_(self) -> str:
        """Green is added, red is removed; a click opens a folded row."""
        heads = "".join(f"<th style='text-align:left'>{head}</th>" for head in self._heads())
        rows = "".join(
            f"<tr>{_html(old, '' if kept else _RED)}{_html(new, '' if kept else _GREEN)}</tr>"
            for kept, old, new in self.rows()
        )
        table = f"<table style='font-family:monospace'><tr>{heads}</tr>{rows}</table>"
        return f'<div style="overflow-x:auto">{table}</div>'

    def _heads(self) -> tuple[str, str]:
        after = plural(len(self.after), "instruction") if self.after else "left alone"
        return f"before: {plural(len(self.before), 'instruction')}", f"after: {after}"


@dataclass(frozen=True, repr=False)
class Break:
    """The line at which a graph ended. ``words`` is torch's own explanation, with its hints."""

    line: Line | None
    words: str

    @property
    def reason(self) -> str:
        """The reason in one sentence."""
        known = (reason for pattern, reason in _REASONS.items() if re.search(pattern, self.words))
        return next(known, self.words.strip().splitlines()[0])

    def __repr__(self) -> str:
        return f"graph break at {self.line}\n    {self.reason}"


@dataclass(frozen=True, repr=False, eq=False)
class Frame(Report):
    """One Python frame that Dynamo got.

    ``graph`` is its FX graph, None if it has no tensor operation; ``guards`` are the conditions
    under which the compiled code is reused; ``breaks`` are the points at which the graph ended
    before the frame did. ``skipped`` means that Dynamo gave up and the frame runs as plain Python.
    """

    name: str
    line: Line | None
    bytecode: Bytecode
    graph: fx.GraphModule | None
    guards: tuple[str, ...]
    breaks: tuple[Break, ...]
    skipped: bool

    @property
    def nodes(self) -> list[tuple[str, str, str, str, str]]:
        """Rows of the FX graph: node, op, target, value (dtype and shape), source line."""
        return [_row(node) for node in self.graph.graph.nodes] if self.graph else []

    def _parts(self) -> Iterator[Part]:
        yield self._headline()
        yield from map(repr, self.breaks)
        yield from self._code()

    def _code(self) -> Iterator[Part]:
        if self.graph:
            yield Table([tuple(map(Code, row)) for row in self.nodes], _NODES)
        if self.bytecode.after:
            yield Fold("bytecode", [self.bytecode], text=False)
        if self.guards:
            guards = Code("\n".join(f"  {guard}" for guard in self.guards))
            yield Fold(plural(len(self.guards), "guard"), ["guards:", guards])

    def _place(self) -> str:
        return self.line.place if self.line else "-"

    def _headline(self) -> str:
        return f"{self.name} ({self._place()})"

    def _summary(self) -> tuple[object, ...]:
        before, after = len(self.bytecode.before), len(self.bytecode.after)
        code = f"{before} -> {after}" if after else "left alone"
        counts = map(len, (self.nodes, self.guards, self.breaks))
        return self.name, self._place(), code, *counts


@dataclass(frozen=True, repr=False, eq=False)
class Frames(Report):
    """What Dynamo did to each Python frame, in the order of compilation: :func:`watch`."""

    name: str
    frames: tuple[Frame, ...]

    @property
    def breaks(self) -> tuple[Break, ...]:
        """Every graph break, in order."""
        return tuple(graph_break for frame in self.frames for graph_break in frame.breaks)

    def _parts(self) -> Iterator[Part]:
        """The report; in HTML, below it each frame to open: its graph, bytecode and guards."""
        graphs = sum(frame.graph is not None for frame in self.frames)
        counts = (len(self.frames), "frame"), (graphs, "graph"), (len(self.breaks), "graph break")
        yield f"{self.name}: {', '.join(plural(*count) for count in counts)}"
        rows = [frame._summary() for frame in self.frames]
        yield Table(rows, _SUMMARY, right=(3, 4, 5))
        for frame in self.frames:
            for stop in frame.breaks:
                yield f"graph break in {frame.name} at {stop.line}\n    {stop.reason}"
        for frame in self.frames:
            yield Fold(frame._headline(), [*frame._code()], text=False)


@dataclass
class _Compilation:
    """What Dynamo reports about one frame while it compiles it.

    ``before`` and ``after`` stay None if Dynamo gave up on the frame. ``tensors`` are the graph's
    inputs by their names in guards, with their dynamic dimensions.
    """

    before: CodeType | None = None
    after: CodeType | None = None
    graph: fx.GraphModule | None = None
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    guards: tuple[str, ...] = ()
    breaks: tuple[Break, ...] = ()


class _Listener:
    def __init__(self) -> None:
        self.compilations: dict[str, _Compilation] = {}
        self.reported = 0

    def listen(self, f: Callable[..., Any], args: tuple, kwargs: dict) -> tuple[Frame, ...]:
        """Compile ``f`` for one call, make that call, and leave nothing behind in Dynamo."""
        options: dict[str, Any] = {"guard_filter_fn": self._on_guards}
        with silent_log(), _clean(f, self.compilations):
            hook = register_bytecode_hook(self._on_bytecode)
            try:
                torch.compile(f, backend=self._on_graph, options=options)(*args, **kwargs)
            finally:
                hook.remove()
            names: dict[str, list[str]] = {}
            return tuple(self._frame(entry, names) for entry in utils.get_compilation_metrics())

    def _current(self) -> _Compilation:
        id = str(CompileContext.current_compile_id())
        return self.compilations.setdefault(id, _Compilation())

    def _on_graph(self, graph: fx.GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        self._current().graph = graph
        self._current().tensors = {
            node.meta["grapharg"].source.name: node.meta["example_value"]
            for node in graph.graph.find_nodes(op="placeholder")
            if "grapharg" in node.meta and isinstance(node.meta["example_value"], torch.Tensor)
        }
        return graph.forward

    def _on_bytecode(self, code: CodeType, new_code: CodeType) -> None:
        current = self._current()
        current.before, current.after = code, new_code
        reasons = utils.graph_break_reasons[self.reported :]
        self.reported += len(reasons)
        current.breaks = tuple(
            Break(nearest([line_at(*frame[:3]) for frame in reason.user_stack]), reason.reason)
            for reason in reasons
            if reason.user_stack[0].filename == code.co_filename  # else from an abandoned frame
        )

    def _on_guards(self, guards: Sequence[Any]) -> list[bool]:
        current = self._current()
        ordered = sorted(guards, key=lambda guard: (not guard.name, guard.guard_type))
        words = (_words(guard, current.tensors) for guard in ordered)
        current.guards = tuple(chain.from_iterable(words))
        return [True] * len(guards)

    def _frame(self, entry: utils.CompilationMetrics, names: dict[str, list[str]]) -> Frame:
        """The frame of an entry in Dynamo's list, which also has the frames it gave up on."""
        compilation = self.compilations.get(str(entry.compile_id), _Compilation())
        before, after = compilation.before, compilation.after
        name = before.co_qualname if before else entry.co_name or ""
        file, number = entry.co_filename or "", entry.co_firstlineno or 0
        breaks = compilation.breaks
        if entry.fail_reason:
            file_of_failure = entry.fail_user_frame_filename or file
            at = line_at(file_of_failure, entry.fail_user_frame_lineno or number, name)
            breaks += (Break(nearest([at]), entry.fail_reason),)
        codes = (disassemble(code, names) if code else () for code in (before, after))
        return Frame(
            name=_RESUMED.sub(r"\1\2, resumed at line \3", name.rpartition("<locals>.")[2]),
            line=nearest([line_at(file, number, name)]),
            bytecode=Bytecode(*codes),
            graph=compilation.graph,
            guards=tuple(_stable(guard, names) for guard in compilation.guards),
            breaks=breaks,
            skipped=after is None,
        )


def disassemble(code: CodeType, names: dict[str, list[str]] | None = None) -> Run:
    """Disassemble code.

    >>> disassemble((lambda x: x).__code__)[-1]
    RETURN_VALUE
    """
    names = {} if names is None else names
    instructions = [raw for raw in dis.get_instructions(code) if raw.opname != "CACHE"]
    targets = sorted({raw.argval for raw in instructions if raw.opcode in _JUMPS})
    labels = {offset: f"L{number}" for number, offset in enumerate(targets, start=1)}
    return tuple(
        Instruction(
            raw.opname,
            f"to {labels[raw.argval]}" if raw.opcode in _JUMPS else _stable(raw.argrepr, names),
            labels.get(raw.offset, ""),
            _place(raw),
        )
        for raw in instructions
    )


def _place(raw: dis.Instruction) -> tuple[int, int] | None:
    """Line and column; None if Dynamo wrote the instruction, which then has no column."""
    where = raw.positions
    if where is None or where.lineno is None or where.col_offset is None:
        return None
    return where.lineno, where.col_offset


def _stable(text: str, names: dict[str, list[str]]) -> str:
    """The text, the same on every run: counters start at 1, ids and addresses are cut.

    >>> names = {}
    >>> _stable("__compiled_fn_7_92c4bfdc_4964_4e3a_9988_09c94ad1dd99", names)
    '__compiled_fn_1'
    >>> _stable("__compiled_fn_9", names), _stable("<code object f at 0x7f1c>", names)
    ('__compiled_fn_2', '<code object f>')
    """

    def renumber(match: re.Match[str]) -> str:
        numbers = names.setdefault(match[1], [])
        if match[2] not in numbers:
            numbers.append(match[2])
        return f"{match[1]}_{numbers.index(match[2]) + 1}"

    return _ADDRESS.sub("", _NUMBERED.sub(renumber, text))


def _keys(code: Run, side: int) -> list[tuple[object, ...]]:
    """A key for each instruction: equal for copies, unique for instructions that Dynamo wrote."""
    return [
        (step.name, *step.place) if step.place else (step.name, side, index)
        for index, step in enumerate(code)
    ]


def _folded(code: Run) -> Iterator[Run]:
    for moves, steps in groupby(code, key=lambda step: step.moves):
        run = tuple(steps)
        yield from [run] if moves else zip(run, strict=True)


def _text(run: Run) -> str:
    return f"... {len(run)} that pass values" if len(run) > 1 else "".join(map(repr, run))


def _html(run: Run, color: str) -> str:
    text = escape(_text(run))
    if len(run) > 1:
        text = details(text, "<br>".join(escape(repr(step)) for step in run))
    return f"<td style='{_CELL};{color if run else ''}'>{text}</td>"


def _row(node: fx.Node) -> tuple[str, str, str, str, str]:
    target = node.target if isinstance(node.target, str) else node.target.__name__
    line = node_line(node)
    value = node.meta.get("example_value")
    if node.op == "output":
        value = f"({', '.join(map(str, node.all_input_nodes))})"
    elif isinstance(value, torch.Tensor):
        value = shaped(value.dtype, value.shape)
    words = "" if value is None else str(value)
    return node.name, node.op, target, words, line.place if line else ""


def _words(guard: Any, tensors: dict[str, torch.Tensor]) -> Iterator[str]:
    """The conditions of a guard under which the compiled code is reused."""
    kind, name, value = guard.guard_type, guard.name, guard.value
    if kind == "SHAPE_ENV":
        yield from guard.orig_guard.code_list or ()
    elif kind == "TENSOR_MATCH":
        tensor = tensors.get(guard.orig_guard.originating_source.name, value)
        yield f"{name} is {shaped(tensor.dtype, tensor.shape)} on {tensor.device}"
    elif kind in ("CONSTANT_MATCH", "EQUALS_MATCH"):
        yield f"{name} == {value!r}"
    elif kind == "TYPE_MATCH":
        yield f"type({name}) is {type(value).__name__}"
    elif kind == "SEQUENCE_LENGTH":
        yield f"len({name}) == {len(value)}"
    else:
        words = kind.lower().replace("_", " ")
        yield f"{name}: {words}" if name else words


def _explained(name: str, error: Exception) -> CaptureError:
    line = unless_internal(user_line(str(error)) or user_line(error.__traceback__))
    reason = re.search(r"Explanation: (.+)", str(error)) or re.search(r"(.+)", str(error))
    return CaptureError(
        f"{name} raised {type(error).__name__} when Dynamo ran it",
        "Call it with these arguments yourself; if that fails too, fix it first.",
        line,
        reason=reason[1] if reason else "it gave no message",
    )


@contextlib.contextmanager
def _clean(f: object, compilations: dict[str, _Compilation]) -> Iterator[None]:
    """Start with an empty Dynamo, and leave nothing in it, in ``f``, or in the user's modules.

    Rewritten code calls its helpers by names in the user's module. Torch removes them when the code
    is destroyed, but never destroys the code of a frame with a break.
    """
    marked = hasattr(f, "_is_torch_compile")  # torch.compile sets it on a module
    torch.compiler.reset()
    utils.clear_compilation_metrics()
    try:
        yield
    finally:
        torch.compiler.reset()
        utils.clear_compilation_metrics()
        manager = utils.CleanupManager.instance
        for compilation in compilations.values():
            manager.refs.pop(id(compilation.after), None)
            for cleanup in manager.values.pop(id(compilation.after), ()):
                cleanup()
        if not marked and hasattr(f, "_is_torch_compile"):
            del f._is_torch_compile
