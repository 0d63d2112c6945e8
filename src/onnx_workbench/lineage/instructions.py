"""The bytecode of a source line, as CPython compiles it."""

from __future__ import annotations

import ast
import dis
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType

from ..source import Line, Sources

_BOOKKEEPING = ("CACHE", "PRECALL", "PUSH_NULL", "RESUME", "NOP", "EXTENDED_ARG")
"""Instructions that say nothing of the line: 3.11 to 3.14 place them differently."""


def instructions(line: Line, sources: Sources) -> tuple[str, ...]:
    """Each instruction of the line with its argument; none where its source may not be shown.

    >>> instructions(Line("model.py", 1, "forward", "return x.relu()"), Sources())
    ()
    """
    if not (text := "".join(sources.read([line]))):
        return ()
    codes = (
        code
        for code in _codes(text)
        if code.co_name == line.function and code.co_firstlineno <= line.number
    )
    nearest = max(codes, key=lambda code: code.co_firstlineno, default=None)
    return tuple(_of_line(nearest, line.number)) if nearest else ()


def _of_line(code: CodeType, number: int) -> Iterator[str]:
    for one in dis.get_instructions(code):
        at = one.positions.lineno if one.positions else None
        if at == number and one.opname not in _BOOKKEEPING:
            inner = isinstance(one.argval, CodeType)  # whose repr has an address
            yield f"{one.opname} {one.argval.co_name if inner else one.argrepr}".rstrip()


@lru_cache(maxsize=32)
def _codes(text: str) -> tuple[CodeType, ...]:
    """All code objects of a source text."""
    try:
        found = [compile(text, "<source>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, True)]
    except (SyntaxError, ValueError):
        return ()
    for code in found:  # grows while it is walked
        found += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return tuple(found)
