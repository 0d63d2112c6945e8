"""The bytecode of one Python frame, before and after Dynamo rewrote it, side by side."""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape
from itertools import groupby, zip_longest
from types import CodeType

from ..text import plural, table

_JUMPS = {*dis.hasjrel, *dis.hasjabs}
_TELLING = ("LOAD_GLOBAL", "LOAD_FAST", "LOAD_ATTR", "LOAD_METHOD", "STORE_FAST", "CALL", "RETURN")
_SCRATCH = ("tmp_", "graph_out_", "___stack")
_FOLDED = 3
"""From this many in a row on, instructions that only move values make one line."""

_TOP = "text-align:left;vertical-align:top"
_GREEN, _RED = "background:rgba(46,160,67,.18)", "background:rgba(248,81,73,.18)"


@dataclass(frozen=True, repr=False)
class Instruction:
    """One instruction. A jump and its target share a label, which stands for the offset.

    ``place`` is the line and column of the source that it was compiled from, None where Dynamo
    wrote it.
    """

    name: str
    argument: str = ""
    label: str = ""
    place: tuple[int, int] | None = None

    @property
    def tells(self) -> bool:
        """Whether it says what happens, and does not only move values about."""
        if self.label or self.place or "JUMP" in self.name:
            return True
        return self.name.startswith(_TELLING) and not self.argument.startswith(_SCRATCH)

    def __repr__(self) -> str:
        label = f"{self.label}: " if self.label else ""
        return f"{label}{self.name} {self.argument}".rstrip()


@dataclass(frozen=True, repr=False)
class Block:
    """A stretch of both codes: kept as it was, or what was taken out beside what was put in."""

    kept: bool
    before: tuple[Instruction, ...]
    after: tuple[Instruction, ...]

    def runs(self) -> Iterator[tuple[Instruction, ...]]:
        """``after`` in the lines that are shown: single instructions, and folded runs."""
        for tells, found in groupby(self.after, key=lambda instruction: instruction.tells):
            run = tuple(found)
            if tells or len(run) < _FOLDED:
                yield from ((instruction,) for instruction in run)
            else:
                yield run


@dataclass(frozen=True, repr=False)
class Bytecode:
    """The instructions of one frame: as Python compiled them, and as Dynamo rewrote them.

    An instruction is kept where Dynamo copied it together with its place in the source. ``after``
    is empty where Dynamo left the frame alone. Each version of Python has its own instructions.

    >>> taken, kept = Instruction("LOAD_FAST", "x"), Instruction("CALL", place=(2, 4))
    >>> written = Instruction("LOAD_GLOBAL", "__compiled_fn_1")
    >>> Bytecode((taken, kept), (written, kept))
       before: 2 instructions  after: 2 instructions
    -  ----------------------  ---------------------------
       LOAD_FAST x             LOAD_GLOBAL __compiled_fn_1
    =  CALL                    CALL
    """

    before: tuple[Instruction, ...]
    after: tuple[Instruction, ...]

    @property
    def blocks(self) -> list[Block]:
        """Both codes from start to end, split where one goes another way."""
        matcher = SequenceMatcher(None, _keys(self.before, 0), _keys(self.after, 1), autojunk=False)
        return [
            Block(tag == "equal", self.before[a:b], self.after[c:d])
            for tag, a, b, c, d in matcher.get_opcodes()
        ]

    def __repr__(self) -> str:
        rows = [
            (
                "=" if block.kept else "",
                before or "",
                _line(run) if run else "",
            )
            for block in self.blocks
            for before, run in zip_longest(block.before, block.runs())
        ]
        return table(rows, ("", *self._heads()))

    def _repr_html_(self) -> str:
        """Green was put in, red was taken out; a folded run opens when it is clicked."""
        heads = "".join(f"<th style='text-align:left'>{head}</th>" for head in self._heads())
        rows = (
            f"<tr>{_cell(before or '', '' if block.kept else _RED)}"
            f"{_after_cell(run or (), '' if block.kept else _GREEN)}</tr>"
            for block in self.blocks
            for before, run in zip_longest(block.before, block.runs())
        )
        return f"<table style='font-family:monospace'><tr>{heads}</tr>{''.join(rows)}</table>"

    def _heads(self) -> tuple[str, str]:
        after = plural(len(self.after), "instruction") if self.after else "left alone"
        return f"before: {plural(len(self.before), 'instruction')}", f"after: {after}"


def read(code: CodeType, named: Callable[[str], str] = str) -> tuple[Instruction, ...]:
    """Disassemble; ``named`` replaces what in an argument differs from run to run.

    >>> read((lambda x: x).__code__)[-1]
    RETURN_VALUE
    """
    found = [raw for raw in dis.get_instructions(code) if raw.opname != "CACHE"]
    targets = sorted({raw.argval for raw in found if raw.opcode in _JUMPS})
    labels = {offset: f"L{number}" for number, offset in enumerate(targets, start=1)}
    return tuple(
        Instruction(
            raw.opname,
            f"to {labels[raw.argval]}" if raw.opcode in _JUMPS else named(raw.argrepr),
            labels.get(raw.offset, ""),
            _place(raw),
        )
        for raw in found
    )


def _place(raw: dis.Instruction) -> tuple[int, int] | None:
    """Dynamo gives what it writes a line, and what it copies a column too."""
    where = raw.positions
    if where is None or where.lineno is None or where.col_offset is None:
        return None
    return where.lineno, where.col_offset


def _keys(code: Sequence[Instruction], side: int) -> list[tuple[object, ...]]:
    """What makes two instructions one: what Dynamo wrote is like nothing before it."""
    return [
        (step.name, *step.place) if step.place else (step.name, side, index)
        for index, step in enumerate(code)
    ]


def _line(run: Sequence[Instruction]) -> str:
    return repr(run[0]) if len(run) == 1 else f"... {len(run)} that move values"


def _cell(content: object, style: str) -> str:
    return f"<td style='{_TOP};{style if content else ''}'>{escape(str(content))}</td>"


def _after_cell(run: Sequence[Instruction], style: str) -> str:
    if len(run) < 2:
        return _cell(run[0] if run else "", style)
    steps = "<br>".join(escape(repr(step)) for step in run)
    folded = f"<details><summary>{_line(run)}</summary>{steps}</details>"
    return f"<td style='{_TOP};{style}'>{folded}</td>"
