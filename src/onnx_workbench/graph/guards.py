"""What torch.export assumed about sizes during capture, and on which line.

Each time a model needs a symbolic size as a number, or compares two sizes, torch's shape
environment adds a guard: ``Eq(s27, 16)`` freezes a dimension.
"""

from __future__ import annotations

import dis
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import dropwhile
from traceback import walk_stack
from types import FrameType
from typing import Any

import torch
import torch.utils._pytree as pytree

from ..source import Line, line_at, nearest, unless_internal
from .torch_private import frame_file, guard_events, symbol_sources

_ARGUMENT = re.compile(r"L\['(\w+)'\]")
_RELATION = re.compile(r"^(Eq|Ne)\(((?:[^(),]|\([^()]*\))+), (.+)\)$")
_PATH = re.compile(r"\b[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+\b(?!\()")
_SIGNS = {"Eq": "==", "Ne": "!="}

_REPAIRS = (
    (
        r"\b(for|while|range|zip|enumerate)\b|\.(split|chunk|unbind|tolist)\(",
        "A Python loop over a size is unrolled. Work on the whole dimension at once: sum, cumsum, "
        "torch.vmap, or torch's scan and while_loop.",
    ),
    (
        r"\b(int|float|len)\(|\.item\(",
        "int(), float() and len() turn a size into a number. Use x.shape directly.",
    ),
)
"""Pattern of a line that freezes a size -> what usually helps."""

_UNBINDS = {"unbind", "split", "chunk", "tensor_split"}
_UNROLLED = (
    "This line splits the dimension row by row: it unpacks it, or calls an operator that is a loop "
    "in torch, such as nn.RNN. Use an nn.LSTM or nn.GRU, whose length stays dynamic, pad to one "
    "size and leave the dimension out of `dynamic_shapes`, or try dynamo=False."
)
_DECISION = (
    "A Python decision on a size is made once, at capture. Keep both branches, as in "
    "torch.where(torch.tensor(x.shape[1] > 8), a, b), or state the sizes for which it holds: "
    "torch.export.Dim('n', min=...)."
)
_FIXED_TENSOR = (
    "A tensor of fixed size meets this dimension. Slice it to the input's size, "
    "table[: x.shape[1]], and capture with an example shorter than the table; or make it from "
    "x.shape."
)
_WHOLE = (
    "The example is as long as the table, so torch.export takes the whole table at every size. Use "
    "a shorter example, or take the rows by index: table[torch.arange(x.shape[1])]."
)


@dataclass(frozen=True)
class Guard:
    """One assumption, as an ``expression`` in torch's symbols.

    ``sources`` maps each symbol to the size it stands for: ``{"s27": "x.shape[1]"}``.
    ``locals`` are the tensors and sizes on the line, by name, and the attributes that it reads,
    such as ``self.positions``. ``unrolled`` says that torch split the dimension row by row,
    ``decided`` that Python itself asked, as an ``if`` does, and no operator.
    """

    expression: str
    sources: Mapping[str, str]
    line: Line | None
    locals: Mapping[str, str]
    unrolled: bool = False
    decided: bool = False

    @property
    def freezes(self) -> bool:
        """Whether it leaves a symbol only one value."""
        return self.expression.startswith("Eq(") and len(self.sources) == 1

    @property
    def equates(self) -> bool:
        """Whether it makes two sizes equal."""
        return self.expression.startswith("Eq(") and len(self.sources) == 2

    @property
    def form(self) -> str:
        """The expression with ``s`` for every symbol: each capture has symbols of its own."""
        return re.sub(r"\bs\d+\b", "s", self.expression)

    @property
    def words(self) -> str:
        """The assumption in terms of the inputs: ``x.shape[1] == 16``."""
        words = _in_words(self.expression, self.sources)
        return _RELATION.sub(lambda m: f"{m[2]} {_SIGNS[m[1]]} {m[3]}", words)

    @property
    def repair(self) -> str:
        """What usually helps, according to the text of the line."""
        if self.equates:
            return "These sizes are one: give them one name, or the same Dim."
        if not self.freezes:
            return _DECISION
        if "Min(" in self.expression:  # a slice that reaches the end of a tensor
            return _WHOLE
        text = (self.line.library or self.line).text if self.line else ""
        usual = _UNROLLED if self.unrolled else _DECISION if self.decided else _FIXED_TENSOR
        return next((words for pattern, words in _REPAIRS if re.search(pattern, text)), usual)

    def __str__(self) -> str:
        if self.line is None:
            return self.words
        library = f", in {self.line.library}" if self.line.library else ""
        return f"{self.words}, assumed at {self.line}{library}"


def culprit(guards: Sequence[Guard], size: str) -> Guard | None:
    """The guard that decided a size such as ``x.shape[1]``: the one that froze it, or an
    equal size; else the first that compares it."""
    linked = {size}
    for guard in guards:
        if linked & set(guard.sources.values()):
            linked |= set(guard.sources.values())
    about = [guard for guard in guards if linked & set(guard.sources.values())]
    direct = [guard for guard in about if size in guard.sources.values()]
    ranked = [g for g in (*direct, *about) if g.freezes] + [g for g in direct if not g.freezes]
    return next(iter(ranked), None)


@contextmanager
def recorded_guards() -> Iterator[list[Guard]]:
    """Yield a list that collects the guards that torch.export adds in the block, for a line of the
    model: others are about how the memory of its arguments overlaps."""
    guards: list[Guard] = []

    def add(event: Mapping[str, Any]) -> None:
        sources = event["symbol_to_sources"]
        # "__closure__": from the body of a loop or branch, which torch compiles separately
        if sources and "__closure__" not in str(sources) and (guard := _guard(event)).line:
            guards.append(guard)

    with guard_events(add):
        yield guards


def _guard(event: Mapping[str, Any]) -> Guard:
    # in non-strict mode, the model's frames are among them
    running = [frame for frame, _ in walk_stack(sys._getframe())]
    frames = _with_outer([_line(frame) for frame in event["user_stack"]], running)
    line = unless_internal(nearest(frames))
    values = _values(line and (line.library or line), running)
    stack = event.get("stack", ())
    unrolled = any(frame["name"] in _UNBINDS for frame in stack)
    decided = stack[-1:] == event["user_stack"][-1:]
    sources = _sizes(event["symbol_to_sources"])
    return Guard(event["expr"], sources, line, values, unrolled, decided)


def _with_outer(lines: list[Line], running: Sequence[FrameType]) -> list[Line]:
    """Add the model's outer frames: torch leaves out those of the outermost forward()."""
    outer = dropwhile(lambda frame: frame.f_code.co_name != "forward", reversed(running))
    calls = [(f.f_code.co_filename, f.f_lineno, f.f_code.co_name) for f in outer]
    last = (lines[-1].file, lines[-1].number) if lines else None
    inner = [index for index, call in enumerate(calls) if call[:2] == last]
    return [line_at(*call) for call in calls[: inner[-1] + 1]] if inner else lines


def _values(line: Line | None, running: Sequence[FrameType]) -> dict[str, str]:
    """The local tensors and sizes that the line reads, and the attributes; calls no property.

    torch reports the locals, too (``frame_locals``), but none of them from Python 3.13 on.
    """
    at = (line.file, line.number) if line else None
    frame = next((f for f in running if (f.f_code.co_filename, f.f_lineno) == at), None)
    if line is None or frame is None:
        return {}
    held = frame.f_locals
    values = {name: pytree.tree_leaves(held[name]) for name in _locals_read(frame) if name in held}
    shown = {name: [_shown(v) for v in found if _sized(v)] for name, found in values.items()}
    named = {name: ", ".join(found) for name, found in shown.items() if found}
    for path in _PATH.findall(line.text):
        root, *names = path.split(".")
        value = reduce(_attribute, names, held.get(root))
        if _sized(value) or isinstance(value, (bool, int, float, str)):
            named[path] = _shown(value)
    return named


def _locals_read(frame: FrameType) -> Iterator[str]:
    """The names in the instructions of the statement that a frame is at."""
    first, last, *_ = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    for step in dis.get_instructions(frame.f_code):
        at = step.positions.lineno if step.positions else None
        if at and first and last and first <= at <= last:
            # one instruction of Python 3.13 reads two names
            yield from step.argval if isinstance(step.argval, tuple) else (step.argval,)


def _sized(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool))


def _shown(value: Any) -> str:
    """``Tensor[2, x.shape[1], 8]`` for a tensor, else what ``repr`` shows, with named sizes."""
    if isinstance(value, torch.Tensor):
        return f"Tensor[{', '.join(map(_shown, value.shape))}]"
    return _in_words(repr(value), _sizes(symbol_sources(value))) if _sized(value) else repr(value)


def _attribute(owner: Any, name: str) -> Any:
    """An attribute of an object or module, read without running its code."""
    direct = getattr(owner, "__dict__", {})
    dicts = (direct, *(direct.get(kind, {}) for kind in ("_parameters", "_buffers", "_modules")))
    return next((found[name] for found in dicts if name in found), None)


def _in_words(text: str, sources: Mapping[str, str]) -> str:
    """Replace torch's symbols by the sizes that they stand for."""
    for symbol, source in sources.items():
        text = re.sub(rf"\b{symbol}\b", source, text)
    return text


def _sizes(sources: Mapping[str, str]) -> dict[str, str]:
    """torch's ``L['x'].size()[1]`` as ``x.shape[1]``."""
    return {
        symbol: _ARGUMENT.sub(r"\1", source).replace(".size()[", ".shape[")
        for symbol, source in sources.items()
    }


def _line(frame: Mapping[str, Any]) -> Line:
    return line_at(frame_file(frame["filename"]), frame["line"], frame["name"])
