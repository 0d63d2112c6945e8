"""What torch.export assumed about sizes while it captured, and on which line it did so.

Each time a model asks a symbolic size for a number, or compares two, torch's shape environment adds
a guard: ``Eq(s27, 16)`` is how a dimension gets frozen. The guards of a capture are written into
torch's structured trace alone (``ShapeEnv._log_guard``, torch 2.13), which is where
``torch.export.draft_export`` reads them too. Listening there costs no second capture, runs no real
tensors and writes no file.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import dropwhile
from types import FrameType
from typing import Any
from unittest.mock import patch

import torch
from torch._logging import _internal, structured

from ..source import Line, line_at, nearest

_EVENT = "guard_added"
_SIZE = re.compile(r"L\['(\w+)'\](.*?)\.size\(\)\[(\d+)\]")
_RELATION = re.compile(r"^(Eq|Ne)\((.+), (.+)\)$")
_PATH = re.compile(r"\b[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+\b(?!\()")
_SIGNS = {"Eq": "==", "Ne": "!="}

_KINDS = (
    (
        r"\b(for|while|range|zip|enumerate)\b|\.(split|chunk|unbind|tolist)\(",
        "A Python loop over a size is unrolled. Work on the whole dimension at once: sum, cumsum, "
        "torch.vmap, or torch's scan and while_loop.",
    ),
    (
        r"\b(int|float|len)\(|\.item\(",
        "int(), float() and len() make a number of a size. Take it as x.shape gives it.",
    ),
)
"""What stands on a line that freezes a size -> what usually helps."""

_PARTING = {"unbind", "split", "chunk", "tensor_split"}
_UNROLLED = (
    "This line takes the dimension apart row by row: it unpacks it, or it calls an operator that "
    "is a loop in torch itself, such as nn.RNN. Take an nn.LSTM or nn.GRU, whose length stays "
    "dynamic, pad to one size and leave the dimension out of `dynamic_shapes`, or try dynamo=False."
)
_DECISION = (
    "A Python decision on a size is taken once, at capture. Keep both branches with torch.cond, or "
    "say where it holds: torch.export.Dim('n', min=...)."
)
_FIXED = (
    "Something of a fixed size meets this dimension. Take as much of it as the input has, "
    "table[: x.shape[1]], or make it from x.shape."
)


@dataclass(frozen=True)
class Guard:
    """One assumption: ``expression`` in torch's symbols, and the inputs that these stand for.

    ``sources`` has for each symbol what it is the size of: ``{"s27": "L['x'].size()[1]"}``.
    ``locals`` are the tensors and sizes that the line works with, by name, as torch saw them, and
    the attributes that it reads, such as ``self.positions``.
    ``unrolled`` says that torch took the dimension apart row by row.
    """

    expression: str
    sources: Mapping[str, str]
    line: Line | None
    locals: Mapping[str, str]
    unrolled: bool = False

    @property
    def freezes(self) -> bool:
        """Whether it leaves a symbol one value alone."""
        return self.expression.startswith("Eq(") and len(self.sources) == 1

    @property
    def equates(self) -> bool:
        """Whether it makes one size of two."""
        return self.expression.startswith("Eq(") and len(self.sources) == 2

    @property
    def words(self) -> str:
        """The assumption in terms of the inputs: ``x.shape[1] == 16``."""
        said = _in_words(self.expression, self.sources)
        return _RELATION.sub(lambda m: f"{m[2]} {_SIGNS[m[1]]} {m[3]}", said)

    @property
    def repair(self) -> str:
        """What usually helps, by what stands on the line."""
        if self.equates:
            return "These sizes are one: give them one name, or the same Dim."
        if not self.freezes:
            return _DECISION
        text = (self.line.library or self.line).text if self.line else ""
        usual = _UNROLLED if self.unrolled else _FIXED
        return next((words for pattern, words in _KINDS if re.search(pattern, text)), usual)

    def __str__(self) -> str:
        if self.line is None:
            return self.words
        library = f", in {self.line.library}" if self.line.library else ""
        return f"{self.words}, assumed at {self.line}{library}"


def culprit(heard: Sequence[Guard], size: str) -> Guard | None:
    """The guard that decided over a size such as ``L['x'].size()[1]``: the one that froze it, or a
    size that it was found equal to; else the first that compares it."""
    linked = {size}
    for guard in heard:
        if linked & set(guard.sources.values()):
            linked |= set(guard.sources.values())
    about = [guard for guard in heard if linked & set(guard.sources.values())]
    direct = [guard for guard in about if size in guard.sources.values()]
    ranked = [g for g in (*direct, *about) if g.freezes] + [g for g in direct if not g.freezes]
    return next(iter(ranked), None)


@contextmanager
def listening() -> Iterator[list[Guard]]:
    """A list that every guard is added to which torch.export adds while this lasts."""
    heard: list[Guard] = []
    handler = _Listener(heard)
    logger = logging.getLogger("torch.__trace")
    logger.addHandler(handler)
    try:
        with patch.object(_internal, "GET_DTRACE_STRUCTURED", True):
            yield heard
    finally:
        logger.removeHandler(handler)


class _Listener(logging.Handler):
    def __init__(self, heard: list[Guard]) -> None:
        super().__init__()
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "metadata", {}).get(_EVENT)
        if not event or "__closure__" in str(event["symbol_to_sources"]):
            return  # of the body of a loop or branch, which torch compiles apart
        if event["symbol_to_sources"]:
            self._heard.append(_guard(event))


def _guard(event: Mapping[str, Any]) -> Guard:
    line = nearest(_whole([_frame(frame) for frame in event["user_stack"]]))
    seen = event["frame_locals"]
    sizes = {**seen["symbols"], **event["symbol_to_sources"]}
    found = {name: [_short(v) for v in known if v] for name, known in seen["locals"].items()}
    found |= {path: [value] for path, value in _attributes(line and (line.library or line))}
    said = {name: _in_words(", ".join(values), sizes) for name, values in found.items() if values}
    apart = any(_frame(frame).function in _PARTING for frame in event.get("stack", ()))
    return Guard(event["expr"], event["symbol_to_sources"], line, said, apart)


def _whole(found: list[Line]) -> list[Line]:
    """With the model's frames around them: torch leaves out those of the outermost forward(). They
    still run (in non-strict mode)."""
    running: list[FrameType] = []
    frame: FrameType | None = sys._getframe()
    while frame:
        running.append(frame)
        frame = frame.f_back
    around = [*dropwhile(lambda frame: frame.f_code.co_name != "forward", reversed(running))]
    calls = [(f.f_code.co_filename, f.f_lineno, f.f_code.co_name) for f in around]
    last = (found[-1].file, found[-1].number) if found else None
    inner = [index for index, call in enumerate(calls) if call[:2] == last]
    return [line_at(*call) for call in calls[: inner[-1] + 1]] if inner else found


def _attributes(line: Line | None) -> Iterator[tuple[str, str]]:
    """What the line reads of an object: torch tells of local variables alone. Its frame still runs
    (in non-strict mode); no property is called."""
    frame: FrameType | None = sys._getframe()
    while frame and line and (frame.f_code.co_filename, frame.f_lineno) != (line.file, line.number):
        frame = frame.f_back
    if not (frame and line):
        return
    for path in dict.fromkeys(_PATH.findall(line.text)):
        root, *names = path.split(".")
        value = reduce(_held, names, frame.f_locals.get(root))
        if isinstance(value, torch.Tensor):
            yield path, f"Tensor[{', '.join(map(str, value.shape))}]"
        elif isinstance(value, (bool, int, float, str, torch.SymInt)):
            yield path, repr(value) if isinstance(value, str) else str(value)


def _held(owner: Any, name: str) -> Any:
    """An attribute that an object or module holds, found without running any code of its own."""
    own = getattr(owner, "__dict__", {})
    places = (own, *(own.get(kind, {}) for kind in ("_parameters", "_buffers", "_modules")))
    return next((place[name] for place in places if name in place), None)


def _in_words(text: str, sources: Mapping[str, str]) -> str:
    """Torch's symbols as what they are the size of."""
    for symbol, source in sources.items():
        text = re.sub(rf"\b{symbol}\b", _SIZE.sub(r"\1\2.shape[\3]", source), text)
    return text


def _frame(frame: Mapping[str, Any]) -> Line:
    """Torch writes a file's name once, and from then on its number."""
    names = {number: name for name, number in structured.INTERN_TABLE.items()}
    return line_at(names.get(frame["filename"], "<unknown>"), frame["line"], frame["name"])


def _short(value: str) -> str:
    """``Tensor(shape: torch.Size([2, s27, 8]), stride: ...)`` -> ``Tensor[2, s27, 8]``."""
    shape = value.removeprefix("Tensor(shape: torch.Size(")
    return value if shape == value else f"Tensor{shape.partition(')')[0]}"
