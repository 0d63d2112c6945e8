"""The bytes of an ``.onnx`` file, read field by field: weights are skipped, never loaded.

Wire format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import onnx

Data = bytes | mmap.mmap

_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW = onnx.TensorProto.RAW_DATA_FIELD_NUMBER
_BYTES = 2  # the wire type of a length-delimited field


NOT_SENT = "not sent to this page"
"""The location of a weight that was skipped; its offset and length are those in the file."""


@dataclass(frozen=True)
class Field:
    """One field of a message: its bytes are ``data[start:end]``, its value begins at ``value``."""

    number: int
    wire: int
    start: int
    value: int
    end: int


def fields(data: Data, at: int, end: int) -> Iterator[Field]:
    """The fields of the message in ``data[at:end]``. The last one may declare too many bytes."""
    while at < end:
        tag, after = varint(data, at)
        wire = tag & 7
        length, value = varint(data, after) if wire in (0, _BYTES) else (0, after)
        stop = value + {0: 0, 1: 8, _BYTES: length, 5: 4}.get(wire, end)
        yield Field(tag >> 3, wire, at, value, stop)
        at = stop


def varint(data: Data, at: int) -> tuple[int, int]:
    """The number that begins at ``at``, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at] if at < len(data) else 0x80  # an endless number runs past the end
        value, at = value | (byte & 0x7F) << shift, at + 1
        if byte < 0x80:
            break
    return value, at


class Weight(Protocol):
    """A tensor that writes itself, such as one of ``onnx_ir``."""

    @property
    def nbytes(self) -> int: ...

    def tofile(self, file: BinaryIO, /) -> object: ...


def write(file: BinaryIO, model: onnx.ModelProto, weights: Mapping[str, Weight]) -> None:
    """Write a model with the values of ``weights`` in place of external data.

    At most one weight is in memory at a time. ``model`` loses its graph.
    """
    heads = []
    for tensor in model.graph.initializer:
        raw, size, weight = b"", 0, weights.get(tensor.name)
        if weight is not None:
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            raw, size = encoded(_RAW << 3 | _BYTES) + encoded(weight.nbytes), weight.nbytes
        message = tensor.SerializeToString() + raw
        length = encoded(len(message) + size)
        heads.append((encoded(_INITIALIZER << 3 | _BYTES) + length + message, weight, size))
    del model.graph.initializer[:]
    rest = model.graph.SerializeToString()
    model.ClearField("graph")
    total = len(rest) + sum(len(head) + size for head, _, size in heads)
    file.write(model.SerializeToString() + encoded(_GRAPH << 3 | _BYTES) + encoded(total) + rest)
    for head, weight, _ in heads:
        file.write(head)
        if weight is not None:
            weight.tofile(file)


def without_values(data: Data, largest: int) -> bytes:
    """The same model, in which larger weights have a name, a type and a shape, but no values."""
    return b"".join(_thin(data, largest))


def _thin(data: Data, largest: int) -> Iterator[bytes]:
    for field in fields(data, 0, len(data)):
        if (field.number, field.wire) == (_GRAPH, _BYTES):
            yield _tagged(_GRAPH, b"".join(_thin_graph(data, field, largest)))
        else:
            yield data[field.start : field.end]


def _thin_graph(data: Data, graph: Field, largest: int) -> Iterator[bytes]:
    """Small fields are copied in runs: a graph has many more of them than weights."""
    start = graph.value
    for field in fields(data, start, graph.end):
        if field.number == _INITIALIZER and field.end - field.value > largest:
            parts = list(fields(data, field.value, field.end))
            raw = next((part for part in parts if part.number == _RAW), None)
            if raw is None or raw.end - raw.value <= largest:
                continue
            kept = b"".join(data[part.start : part.end] for part in parts if part is not raw)
            yield data[start : field.start]
            yield _tagged(_INITIALIZER, kept + _skipped(raw).SerializeToString())
            start = field.end
    yield data[start : graph.end]


def _skipped(raw: Field) -> onnx.TensorProto:
    """The fields that replace a tensor's values."""
    place = {"location": NOT_SENT, "offset": raw.value, "length": raw.end - raw.value}
    tensor = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _tagged(number: int, message: bytes) -> bytes:
    return encoded(number << 3 | _BYTES) + encoded(len(message)) + message


def encoded(value: int) -> bytes:
    """The bytes of a number, as :func:`varint` reads them."""
    head = b""
    while value > 0x7F:
        head, value = head + bytes([value & 0x7F | 0x80]), value >> 7
    return head + bytes([value])
