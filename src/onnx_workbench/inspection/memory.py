"""What a call leaves behind in the attributes of a model: a file has none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn

from ..source import Line, is_users, method_lines
from .finding import Finding

Held = Mapping[tuple[nn.Module, str], list[Any]]
"""Module and attribute -> its tensors, each with its version, and what else is in it."""

_OWN = frozenset(vars(nn.Module()))
_WRITES = (
    r"^[^=()]*\.{name}\b\s*(?:\[.*\]\s*)?(?:,[^=()]*)?(?:[-+*/@%&|^<>]|//|\*\*|<<|>>)?=(?!=)",
    r"\.{name}\b.*\.(?:\w+_|append|extend|insert|update|setdefault|appendleft|add)\(",
)
"""How a line looks that writes into the attribute ``name``."""


def held(model: nn.Module) -> Held:
    """All that the modules hold beside parameters, buffers and modules, which torch watches."""
    return {
        (module, name): [_marked(leaf) for leaf in pytree.tree_leaves(value)]
        for module in model.modules()
        for name, value in vars(module).items()
        if name not in _OWN
    }


def _marked(leaf: Any) -> Any:
    known = isinstance(leaf, torch.Tensor) and not leaf.is_inference()
    return (leaf, leaf._version) if known else leaf


def written(before: Held, after: Held) -> Iterator[Finding]:
    """The attributes that a call wrote between the two, tensors first.

    One that no method of the user's writes is the work of a hook, such as weight_norm's, which
    computes it in every call.
    """
    changed = [key for key, leaves in after.items() if not _same(before.get(key, []), leaves)]
    for module, name in sorted(changed, key=lambda key: not _tensors(after[key])):
        line = _line(type(module), name)
        tensors = _tensors(after[module, name])
        if line:
            yield Finding(
                "model",
                "risk" if tensors else "ok",
                f"The model stores {'tensors' if tensors else 'a value'} in its attribute {name!r} "
                "in each call, and the file does not",
                line,
                "Return it as an output; where a later call reads it, take it as an input too.",
            )


def _same(before: list[Any], after: list[Any]) -> bool:
    if len(before) != len(after):
        return False
    return all(_alike(a, b) for a, b in zip(before, after, strict=True))


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return a[0] is b[0] and a[1] == b[1]
    plain = (bool, int, float, str, type(None))
    return a is b or (isinstance(a, plain) and isinstance(b, plain) and a == b)


def _tensors(leaves: list[Any]) -> bool:
    return any(isinstance(leaf, tuple) for leaf in leaves)


def _line(kind: type, name: str) -> Line | None:
    """The first line of the user's that writes the attribute after ``__init__``."""
    methods = {key: method for cls in kind.__mro__[::-1] for key, method in vars(cls).items()}
    codes = {key: getattr(method, "__code__", None) for key, method in methods.items()}
    lines = [
        line
        for key, code in codes.items()
        if code and key != "__init__" and is_users(code.co_filename)
        for line in method_lines(methods[key])
    ]
    patterns = [re.compile(text.replace("{name}", re.escape(name))) for text in _WRITES]
    return next((line for p in patterns for line in lines if p.search(line.text)), None)
