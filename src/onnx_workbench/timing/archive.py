"""A result as a JSON file, checked field by field when it is read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .. import files
from ..errors import LoadError

T = TypeVar("T")
_VERSION = "onnx-workbench {} 3"


def save(result: Any, path: str | os.PathLike[str]) -> Path:
    """Write a dataclass as JSON that :func:`load` reads."""
    content = {"format": _VERSION.format(_kind(type(result))), **asdict(result)}
    return files.write(path, json.dumps(content))


def load(kind: type[T], path: str | os.PathLike[str]) -> T:
    """The dataclass that :func:`save` wrote.

    Raises:
        InputError: there is no such file.
        LoadError: the file holds nothing of that kind, or was cut short or changed.
    """
    file = files.existing(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_number)
        if (given := content.pop("format")) != (wanted := _VERSION.format(_kind(kind))):
            raise ValueError(f"its format is {given!r:.80}, and {wanted!r} is expected")
        return build(kind, content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise LoadError(
            f"{file.name} is no {_kind(kind)}: {type(error).__name__}: {error}.",
            f"pass a file that {kind.__name__}.save() wrote.",
        ) from error


def build(kind: Any, value: Any) -> Any:
    """A value of JSON as what a type annotation says.

    >>> build(tuple[int, ...], [1, 2]), build(float | None, 3), build(dict[int, str], {"1": "a"})
    ((1, 2), 3.0, {1: 'a'})
    >>> build(int, -1)
    Traceback (most recent call last):
    ValueError: -1 is no int of 0 or more
    """
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        if value.keys() != hints.keys():
            raise ValueError(f"{_kind(kind)} has the fields {', '.join(hints)}")
        return kind(**{name: build(hint, value[name]) for name, hint in hints.items()})  # type: ignore[operator]
    if origin is tuple and isinstance(value, list):
        return tuple(build(inner[0], item) for item in value)
    if origin in (dict, Mapping) and isinstance(value, dict):
        key = int if inner[0] is int else str
        return {key(name): build(inner[1], item) for name, item in value.items()}
    if origin in (Union, UnionType):
        return None if value is None else build(inner[0], value)
    if origin is Literal and value in inner:
        return value
    if kind is float and type(value) is int:
        value = float(value)
    number = kind in (int, float)
    if origin or type(value) is not kind or (number and not 0 <= value < math.inf):
        name = getattr(kind, "__name__", kind)
        raise ValueError(f"{value!r:.80} is no {name}{' of 0 or more' * number}")
    return value


def _kind(kind: Any) -> str:
    return kind.__name__.lower()


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no measured number")
