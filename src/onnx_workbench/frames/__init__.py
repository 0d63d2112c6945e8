"""Python frame -> bytecode and FX graph: what Dynamo did when it compiled a function."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from torch import fx, nn

from .. import checks
from ..calls import door
from ..errors import CaptureError, InputError
from ..source import Line, line_at, lines, nearest, user_line
from ..text import html_table, kind_of, plural, shaped, table
from .bytecode import Bytecode, read
from .dynamo import Listener, Names, Record

_RESUMED = re.compile(r"(.*\.)?torch_dynamo_resume_in_(.+)_at_(\d+)")
_HEADER = ("node", "op", "target", "value", "line")
_SUMMARY = ("frame", "place", "instructions", "FX nodes", "guards", "breaks")
_NUMBERS = (3, 4, 5)
_WORDS = (  # where torch's own words are those of its source code
    (
        r"generic_jump|Data-dependent branching",
        "data-dependent branch: Python must choose a way by what a tensor holds, and a graph has "
        "no values yet",
    ),
    (
        r"Tensor\.item\(\)",
        "a tensor becomes a Python number, and a graph has no values yet",
    ),
    (
        r"builtin operator `print`",
        "print() is no tensor operation",
    ),
)


@door
def watch(f: Callable[..., Any], args: Any = (), kwargs: dict[str, Any] | None = None) -> Frames:
    """Let Dynamo compile ``f`` for the call ``f(*args, **kwargs)``, and report what it did.

    Dynamo (`torch.compile`'s front end, PEP 523) is handed each Python frame before it runs. It
    follows the bytecode, collects the tensor operations into an FX graph, and writes new bytecode
    that calls the graph. Where it cannot go on, the graph breaks: the new bytecode runs the rest
    as a resume function, which is a frame of its own.

    The call is really made, in the grad mode of the caller, and what ``f`` does to its arguments
    is done. Random numbers and the buffers of a module are put back. All that torch.compile has
    compiled so far is compiled anew when it is next called (``torch.compiler.reset``).

    Args:
        f: a Python function, a method, or a ``torch.nn.Module``.
        args, kwargs: what it is called with; at least one tensor among them.

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
    if not callable(f):
        raise InputError(
            f"watch() was given {kind_of(f)}, and it takes a function or a "
            "torch.nn.Module. Pass the function itself and its arguments behind it: watch(f, x)."
        )
    if isinstance(f, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        raise InputError(
            f"watch() was given {kind_of(f)}, which TorchScript runs without Python bytecode. "
            "Pass the eager module or function that it was made from."
        )
    if isinstance(f, nn.Module):
        checks.module("watch", f)
    name, listener = _name(f), Listener()
    with _as_found(f):
        try:
            listener.listen(f, args, kwargs or {})
        except Exception as error:
            raise _explained(name, error) from error
    names = Names()
    frames = tuple(_frame(record, names) for record in listener.records.values())
    if not any(frame.graph or frame.breaks for frame in frames):
        raise InputError(
            f"Dynamo found nothing to compile in {name}: none of its frames computes with a tensor "
            "that was passed. Pass a function that does; a generator function is left alone too."
        )
    return Frames(name, frames)


@dataclass(frozen=True, repr=False)
class Break:
    """Where a graph ended. ``words`` is torch's own explanation, hints included."""

    line: Line | None
    words: str

    @property
    def reason(self) -> str:
        """In one sentence."""
        known = (plain for pattern, plain in _WORDS if re.search(pattern, self.words))
        return next(known, self.words.strip().splitlines()[0])

    def __repr__(self) -> str:
        return f"graph break at {self.line}\n    {self.reason}"


@dataclass(frozen=True, repr=False, eq=False)
class Frame:
    """One Python frame that Dynamo was handed.

    ``graph`` is the FX graph of it, None where it has no tensor operation; ``guards`` are the
    conditions under which the compiled code is used again; ``breaks`` is where the graph ended
    before the frame did. ``skipped``: Dynamo gave up, and the frame runs as plain Python.
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

    def __repr__(self) -> str:
        parts = [self._headline()]
        if self.graph:
            parts.append(table(self.nodes, _HEADER))
        if self.guards:
            parts.append("\n".join(["guards:", *(f"  {guard}" for guard in self.guards)]))
        return "\n\n".join([*parts, *map(repr, self.breaks)])

    def _repr_html_(self) -> str:
        breaks = map(_paragraph, map(repr, self.breaks))
        return "".join([_paragraph(self._headline()), *breaks, self._html_of_code()])

    def _html_of_code(self) -> str:
        parts = [html_table(self.nodes, _HEADER)] if self.graph else []
        if self.bytecode.after:
            parts.append(_folded("bytecode", self.bytecode._repr_html_()))
        if self.guards:
            guards = "<br>".join(map(escape, self.guards))
            parts.append(_folded(plural(len(self.guards), "guard"), guards))
        return "".join(parts)

    def _headline(self) -> str:
        return f"{self.name} ({self.line.place if self.line else '-'})"

    def _summary(self) -> tuple[object, ...]:
        before, after = len(self.bytecode.before), len(self.bytecode.after)
        code = f"{before} -> {after}" if after else "left alone"
        place = self.line.place if self.line else "-"
        return self.name, place, code, len(self.nodes), len(self.guards), len(self.breaks)


@dataclass(frozen=True, repr=False, eq=False)
class Frames:
    """What Dynamo did to each Python frame, in the order in which it got them: :func:`watch`."""

    name: str
    frames: tuple[Frame, ...]

    @property
    def breaks(self) -> tuple[Break, ...]:
        """Every graph break, in order."""
        return tuple(found for frame in self.frames for found in frame.breaks)

    def __repr__(self) -> str:
        rows = table(self._rows(), _SUMMARY, right=_NUMBERS)
        return "\n".join([self._headline(), rows, *self._break_report()])

    def _repr_html_(self) -> str:
        """The report, and below it each frame to open: its graph, bytecode and guards."""
        rows = html_table(self._rows(), _SUMMARY, right=_NUMBERS)
        breaks = map(_paragraph, self._break_report())
        frames = (_folded(frame._headline(), frame._html_of_code()) for frame in self.frames)
        return "".join([_paragraph(self._headline()), rows, *breaks, *frames])

    def _rows(self) -> list[tuple[object, ...]]:
        return [frame._summary() for frame in self.frames]

    def _break_report(self) -> list[str]:
        return [
            f"graph break in {frame.name} at {found.line}\n    {found.reason}"
            for frame in self.frames
            for found in frame.breaks
        ]

    def _headline(self) -> str:
        graphs = sum(frame.graph is not None for frame in self.frames)
        return (
            f"{self.name}: {plural(len(self.frames), 'frame')}, {plural(graphs, 'graph')}, "
            f"{plural(len(self.breaks), 'graph break')}"
        )


def _frame(record: Record, names: Names) -> Frame:
    troubles = (*record.breaks, *([record.failure] if record.failure else []))
    return Frame(
        name=_called(record.name),
        line=nearest([line_at(record.file, record.number, record.name)]),
        bytecode=Bytecode(
            read(record.code, names) if record.code else (),
            read(record.rewritten, names) if record.rewritten else (),
        ),
        graph=record.graph,
        guards=tuple(map(names, record.guards)),
        breaks=tuple(Break(_line(trouble.trace), trouble.words) for trouble in troubles),
        skipped=record.rewritten is None,
    )


def _line(trace: str) -> Line | None:
    """The user's line in a trace of this process, which Dynamo may write without the text."""
    return nearest([line_at(line.file, line.number, line.function) for line in lines(trace)])


def _called(name: str) -> str:
    short = name.rpartition("<locals>.")[2]
    return _RESUMED.sub(r"\1\2, resumed at line \3", short)


def _row(node: fx.Node) -> tuple[str, str, str, str, str]:
    target = node.target if isinstance(node.target, str) else node.target.__name__
    line = user_line(node.meta.get("stack_trace") or "")
    return node.name, node.op, target, _value(node), line.place if line else ""


def _value(node: fx.Node) -> str:
    if node.op == "output":
        return f"({', '.join(map(str, node.all_input_nodes))})"
    value = node.meta.get("example_value")
    if isinstance(value, torch.Tensor):
        return shaped(value.dtype, value.shape)
    return "" if value is None else str(value)


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def _paragraph(text: str) -> str:
    return f"<p style='white-space:pre-wrap'>{escape(text)}</p>"


@contextlib.contextmanager
def _as_found(f: Callable[..., Any]) -> Iterator[None]:
    """Random numbers and the buffers of the module that is called are put back."""
    owner = f if isinstance(f, nn.Module) else getattr(f, "__self__", None)
    modules = list(owner.modules()) if isinstance(owner, nn.Module) else []
    buffers = [(module, dict(module._buffers)) for module in modules]
    values = [(b, b.clone()) for _, own in buffers for b in own.values() if b is not None]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in values:
                    buffer.copy_(value)
            for module, own in buffers:
                module._buffers.update(own)


def _name(f: Callable[..., Any]) -> str:
    return getattr(f, "__name__", type(f).__name__)


def _explained(name: str, error: Exception) -> CaptureError:
    line = user_line(str(error)) or user_line(error.__traceback__)
    told = re.search(r"Explanation: (.+)", str(error)) or re.search(r"(.+)", str(error))
    return CaptureError(
        f"{name} raised {type(error).__name__} when Dynamo ran it",
        "call it with these arguments yourself; if that fails too, mend it first.",
        line,
        reason=told[1] if told else "it gave no message",
    )
