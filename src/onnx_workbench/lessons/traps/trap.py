"""One trap: a call that goes wrong, what must be said about it, and its twin that goes right."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

MARK = "# trap"
"""Ends the line that the audit must name."""


class Call(NamedTuple):
    """A model and how it is called: ``audit(call.model, call.args, dynamic_shapes=...)``."""

    model: Any
    args: tuple
    dynamic_shapes: Mapping[str, Any] | None = None
    opset_version: int | None = None


@dataclass(frozen=True, repr=False)
class Trap:
    """``broken`` and ``mended`` make a fresh call each; ``stage`` and ``sentence`` are where the
    audit must find the trap and how its sentence begins; ``thread`` is where it was met."""

    name: str
    broken: Callable[[], Call]
    mended: Callable[[], Call]
    stage: str
    sentence: str
    thread: str
    place: str | None

    def __repr__(self) -> str:
        return f"{self.name}: {self.sentence} ({self.place or 'no line is to blame'})"


TRAPS: list[Trap] = []


def trap(
    name: str, stage: str, says: str, met: str, *args: Any, mended: tuple | None = None, **call: Any
) -> Callable[[type], type]:
    """Puts a class into the zoo; its twin is the class ``Mended`` inside it.

    ``args``, ``dynamic_shapes`` and ``opset_version`` are those of the call; ``mended`` are the
    twin's own arguments, where they are others; it asks for no opset. ``met`` ends an
    address at github.com.
    """

    def put(cls: Any) -> Any:
        TRAPS.append(
            Trap(
                name,
                lambda: Call(_made(cls), args, **call),
                lambda: Call(_made(cls.Mended), mended or args, call.get("dynamic_shapes")),
                stage,
                says,
                f"https://github.com/{met}",
                _place(cls),
            )
        )
        return cls

    return put


def _made(cls: type) -> Any:
    model = cls()
    evaluated = isinstance(model, nn.Module) and not hasattr(model, "left_training")
    return model.eval() if evaluated else model


def _place(cls: type) -> str | None:
    """The line of the class that ends in the mark: ``shapes.py:42``."""
    lines, first = inspect.getsourcelines(cls)
    marked = [first + i for i, line in enumerate(lines) if line.rstrip().endswith(MARK)]
    return f"{Path(inspect.getfile(cls)).name}:{marked[0]}" if marked else None
