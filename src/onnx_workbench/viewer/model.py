"""Anything that holds an ONNX model -> its graph without the weights, and a name to show."""

from __future__ import annotations

import ctypes
import gzip
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import onnx
import onnx_ir
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor

from .. import protobuf_reader, reader
from ..errors import InputError, LoadError
from ..proto import node_refs, tensors_of
from ..reader import Checked
from ..source import NOTHING_MORE, Sources
from .origin import Origin, key, origins, scrub

LARGEST_TENSOR = 64 * 1024
"""Bytes of the largest tensor whose values travel to the page unasked."""

ALL_TENSORS = 1024 * 1024
"""Bytes of all tensors whose values travel to the page unasked."""

ASKED_FOR = 256 * 1024 * 1024
"""Bytes of both that travel with ``weights=True``: a page holds each more than once."""

_EXPECTED = (
    "an Artifact, the path of an .onnx file, its bytes, an onnx.ModelProto, an onnx_ir.Model or a "
    "torch.onnx.ONNXProgram"
)


@dataclass(frozen=True)
class Model:
    """What a view keeps of a model.

    ``packed`` is its graph, compressed, without large weights and without folders: parsed, it takes
    five times the bytes of its file. ``external`` names the files that hold the other weights,
    ``cut`` says which metadata was too long, ``sources`` are the files of source that may be shown.
    """

    name: str
    packed: bytes
    origins: Mapping[str, Origin]
    external: tuple[str, ...] = ()
    cut: str = ""
    sources: Sources = NOTHING_MORE

    @property
    def proto(self) -> onnx.ModelProto:
        """Returns a fresh copy; callers may change it."""
        return onnx.ModelProto.FromString(gzip.decompress(self.packed))


def read(
    model: Any,
    door: str = "view",
    weights: bool = False,
    source: str | os.PathLike[str] | None = None,
) -> Model:
    """Read the graph of ``model``, which stays as it is.

    ``door`` is the function that messages name, ``source`` a folder of source code that may be
    shown. With ``weights``, values travel up to ``ASKED_FOR`` bytes, those of external data too;
    without, no file of external data is opened.

    >>> from onnx import parser
    >>> read(parser.parse_model('<ir_version: 10, opset_import: ["": 20]> '
    ...                         'half (float[2] x) => (float[2] y) { y = Relu(x) }')).name
    'half'

    Raises:
        InputError: ``model`` is none of the things that hold a model.
        LoadError: the file cannot be read, is truncated, or is no ONNX model.
    """
    sources = Sources.of(model, source)
    each, most = (ASKED_FOR, ASKED_FOR) if weights else (LARGEST_TENSOR, ALL_TENSORS)
    checked, name, folder = _checked(model, door, each)
    light, found = checked.model, node_refs(checked.model)
    external = {
        PurePath(entry.value).name
        for tensor in tensors_of(light, found)
        for entry in tensor.external_data
        if entry.key == "location" and entry.value != protobuf_reader.NOT_SENT
    }
    if weights and folder:
        _fetch(light, folder, most)
    for tensor in sorted(
        tensors_of(light, found), key=onnx.TensorProto.ByteSize
    ):  # small ones first
        bytes_, outside = tensor.ByteSize(), tensor.data_location == onnx.TensorProto.EXTERNAL
        if outside or bytes_ > min(each, most):
            tensor.CopyFrom(stub(tensor))
        else:
            most -= bytes_
    for ref in found:
        if not ref.function and ref.name != key(ref.node):  # another node has that name
            ref.node.name = ref.name
    made = origins(light, found)
    del found  # scrub() needs memory, too
    scrub(light)
    return Model(name, packed(light), made, tuple(sorted(external)), checked.cut, sources)


def _checked(holder: Any, door: str, largest: int) -> tuple[Checked, str, Path | None]:
    """The model, free to be changed, its name, and the folder of its file if it has one."""
    program = getattr(holder, "model", holder)
    if isinstance(program, onnx_ir.Model):
        holder = onnx_ir.to_proto(program)
    if isinstance(holder, onnx.ModelProto):
        checked = reader.check(_light(holder, largest), f"{door} was passed an onnx.ModelProto")
        return checked, holder.graph.name or "model", None
    if isinstance(holder, bytes | bytearray | memoryview):
        said = f"{door} was passed {len(holder):,} bytes"
        return reader.parse(bytes(holder), said, largest), "model", None
    path = holder
    if not isinstance(holder, str | os.PathLike):
        path = getattr(holder, "unchanged", getattr(holder, "path", None))
    if not isinstance(path, str | os.PathLike):
        raise InputError(
            f"{door} was passed an object of class {type(holder).__name__}. It expected "
            f"{_EXPECTED}. Export a model first: {door}(export(model, 'model.onnx', x))."
        )
    return reader.read(path, door, largest), Path(path).name, Path(path).parent


def _light(model: onnx.ModelProto, largest: int) -> onnx.ModelProto:
    """A copy in which large weights are stubs; they are not copied on the way."""
    tensors = (t if t.ByteSize() <= largest else stub(t) for t in model.graph.initializer)
    light = header(model)
    light.graph.CopyFrom(
        onnx.GraphProto(**_fields(model.graph, without="initializer"), initializer=tensors)
    )
    return light


def header(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model without its graph."""
    return onnx.ModelProto(**_fields(model, without="graph"))


def _fields(message: Any, without: str) -> dict[str, Any]:
    return {field.name: value for field, value in message.ListFields() if field.name != without}


def _fetch(model: onnx.ModelProto, folder: Path, left: int) -> None:
    """Load external data, as long as it fits into ``left`` bytes."""
    for tensor in model.graph.initializer:
        outside = tensor.data_location == onnx.TensorProto.EXTERNAL
        info = ExternalDataInfo(tensor)
        if not outside or info.location == protobuf_reader.NOT_SENT or (info.length or 0) > left:
            continue
        try:
            load_external_data_for_tensor(tensor, str(folder))
        except Exception as error:  # onnx gives no common class
            raise LoadError(
                f"view(weights=True) needs {PurePath(info.location).name!r} beside the model, and "
                f"it cannot be read: {str(error).splitlines()[0]}",
                "put the file there, or view the graph without weights.",
            ) from error
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.DEFAULT
        left -= tensor.ByteSize()


def stub(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """The tensor's name, type and shape, without its values."""
    stub = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    stub.MergeFromString(protobuf_reader.ELSEWHERE)
    return stub


def packed(proto: onnx.ModelProto) -> bytes:
    return compressed(proto.SerializeToString())


def compressed(data: bytes) -> bytes:
    """The same bytes every time."""
    return gzip.compress(data, compresslevel=6, mtime=0)


def trim_memory() -> None:
    """Return freed memory to the system: a parsed model takes several times its file, and Linux's
    allocator keeps it.

    See https://man7.org/linux/man-pages/man3/malloc_trim.3.html; elsewhere this does nothing.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # a C library other than GNU's
            ctypes.CDLL(None).malloc_trim(0)
