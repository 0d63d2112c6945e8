"""What a bundle takes out of the cells of a notebook, or out of the script that runs."""

from __future__ import annotations

import ast
import builtins
import linecache
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from symtable import SymbolTable, symtable
from types import ModuleType
from typing import Any, NamedTuple

from ..source import is_cell

_REGISTERING = {
    *("Library", "custom_op", "triton_op", "define", "impl", "impl_abstract", "register_fake"),
    *("register_kernel", "register_autograd", "register_autocast", "register_vmap"),
    "register_torch_dispatch",
}
"""What ``torch.library`` calls that by which an operator comes to be: nothing needs it by name."""


class Needed(NamedTuple):
    """A script that binds ``names``, and those of them that are bound but by no statement."""

    text: str
    names: frozenset[str]
    lacking: tuple[str, ...]


def needed(roots: Iterable[str]) -> Needed:
    """The statements without which these names cannot be, in the order in which they first ran.

    A name of plain data becomes its value of now, whatever it was computed from. Of a statement
    that ran again in another wording, the last wording stands, in the place of the first.
    """
    main = vars(sys.modules["__main__"])
    statements = _statements()
    chosen = {key for key, statement in statements.items() if statement.always}
    waiting = set(roots).union(*(statements[key].reads for key in chosen))
    names: set[str] = set()
    plain: list[str] = []
    while waiting:
        name = waiting.pop()
        names.add(name)
        if name in main and _is_plain(main[name]):
            plain.append(f"{name} = {main[name]!r}")
            continue
        found = {key for key, s in statements.items() if s.makes(name, main.get(name))} - chosen
        chosen |= found
        waiting |= set().union(*(statements[key].reads for key in found)) - names
    bound = set().union(*(statements[key].binds for key in chosen))
    stars = any("*" in statements[key].binds for key in chosen)
    known = bound | {line.partition(" ")[0] for line in plain} | set(vars(builtins))
    lacking = tuple(sorted(name for name in names & set(main) - known if not stars))
    texts = [statements[key].text for key in statements if key in chosen]
    texts.sort(key=lambda text: not text.startswith("from __future__"))
    at = sum(text.startswith("from __future__") for text in texts)
    said = [f"print({f'not in this bundle, since no statement binds it: {n}'!r})" for n in lacking]
    parts = [*texts[:at], *said, *sorted(plain), *texts[at:]]
    return Needed("\n\n".join(parts) + "\n", frozenset(names), lacking)


class _Statement(NamedTuple):
    """``binds`` and ``changes`` are names that it makes, or reaches into; ``always`` is True where
    it counts although nobody needs it by name."""

    text: str
    binds: frozenset[str]
    changes: frozenset[str]
    reads: frozenset[str]
    always: bool

    def makes(self, name: str, value: Any) -> bool:
        return name in self.binds or (name in self.changes and not isinstance(value, ModuleType))


def _statements() -> dict[Any, _Statement]:
    """Of all cells, or of the script."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    found: dict[Any, _Statement] = {}
    for file in [file for file in linecache.cache if is_cell(file)] or [script or ""]:
        with suppress(SyntaxError):
            for node in ast.parse("".join(linecache.getlines(file))).body:
                statement = _read(node)
                again = statement.binds and not statement.binds & statement.reads
                key = (statement.binds, _decorators(node)) if again else statement.text
                found[key] = statement
    return found


def _read(node: ast.stmt) -> _Statement:
    text = ast.unparse(node)
    scopes = list(_scopes(symtable(text, "cell", "exec")))
    outer = [symbol for scope, symbol in scopes if scope.get_type() == "module"]
    binds = {symbol.get_name() for symbol in outer if symbol.is_assigned() or symbol.is_imported()}
    reads = {
        symbol.get_name()
        for scope, symbol in scopes
        if symbol.is_referenced() and (scope.get_type() == "module" or symbol.is_global())
    }
    star = isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
    future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
    parts = getattr(node, "decorator_list", [node])
    words = {_word(inner) for part in parts for inner in ast.walk(part)}
    always = star or future or bool(words & _REGISTERING)
    return _Statement(
        text,
        frozenset(binds | {"*"} if star else binds),
        frozenset(_changed(node)),
        frozenset(reads),
        always,
    )


def _scopes(table: SymbolTable) -> Iterator[tuple[SymbolTable, Any]]:
    yield from ((table, symbol) for symbol in table.get_symbols())
    for child in table.get_children():
        yield from _scopes(child)


def _changed(node: ast.stmt) -> Iterator[str]:
    """The name in front of ``name.x = ...``, ``name[i] = ...`` and ``name.method(...)``."""
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        targets = [node.value.func]
    for target in targets:
        deep = target
        while isinstance(deep, (ast.Attribute, ast.Subscript)):
            deep = deep.value
        if deep is not target and isinstance(deep, ast.Name):
            yield deep.id


def _decorators(node: ast.stmt) -> tuple[str, ...]:
    return tuple(ast.unparse(part) for part in getattr(node, "decorator_list", []))


def _word(node: ast.AST) -> str:
    return getattr(node, "attr", "") or getattr(node, "id", "")


def _is_plain(value: Any) -> bool:
    """Whether Python's own spelling of a value is the value: numbers, text, and lists of them."""
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError, TypeError, RuntimeError, MemoryError):
        return False
