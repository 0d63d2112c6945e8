"""An ONNX model in any form -> its graph without the weights, and a name to show."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import onnx
import onnx_ir
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor

from .. import files, protobuf_reader, reader
from ..brief import first_words
from ..errors import InputError, LoadError
from ..proto import node_refs, tensors_of
from ..reader import Checked
from ..source import Sources
from .origin import OnnxNode, key, origins, scrub
from .summary import summary

LARGEST_TENSOR = 64 * 1024
"""Bytes of the largest tensor whose values the page gets by default."""

ALL_TENSORS = 1024 * 1024
"""Bytes of all tensors whose values the page gets by default."""

WITH_WEIGHTS = 256 * 1024 * 1024
"""Both limits with ``weights=True``; a page has each value more than once."""

_EXPECTED = (
    "an Artifact, the path of an .onnx file, its bytes, an onnx.ModelProto, an onnx_ir.Model or a "
    "torch.onnx.ONNXProgram"
)


@dataclass(frozen=True)
class Model:
    """The part of a model that a view keeps.

    ``packed`` is its graph without large weights and folders, compressed, since a parsed graph
    takes five times the bytes of its file. ``summary`` is the model in a few lines of text,
    ``sources`` are the source files that may be shown.
    """

    name: str
    packed: bytes
    origins: Mapping[str, OnnxNode]
    summary: str
    sources: Sources

    @property
    def proto(self) -> onnx.ModelProto:
        """A fresh copy; callers may change it."""
        return onnx.ModelProto.FromString(gzip.decompress(self.packed))


def read(
    model: Any,
    caller: str = "view",
    weights: bool = False,
    source: str | os.PathLike[str] | None = None,
) -> Model:
    """Read the graph of ``model``, which is not changed.

    Messages name ``caller``; ``source`` is a folder of source code that may be shown. With
    ``weights``, values up to ``WITH_WEIGHTS`` bytes are included, also from external data; without,
    no file of external data is opened.

    >>> from onnx import parser
    >>> read(parser.parse_model('<ir_version: 10, opset_import: ["": 20]> '
    ...                         'half (float[2] x) => (float[2] y) { y = Relu(x) }')).name
    'half'

    Raises:
        InputError: ``model`` is no ONNX model in any form.
        LoadError: the file cannot be read, is truncated, or is no ONNX model.
    """
    sources = Sources.of(model, None if source is None else files.folder(source))
    each, most = (WITH_WEIGHTS, WITH_WEIGHTS) if weights else (LARGEST_TENSOR, ALL_TENSORS)
    checked, name, folder = _checked(model, caller, each)
    light, refs = checked.model, node_refs(checked.model)
    external = {
        PurePath(entry.value).name
        for tensor in tensors_of(light, refs)
        for entry in tensor.external_data
        if entry.key == "location" and entry.value != protobuf_reader.NOT_SENT
    }
    if weights and folder:
        _fetch(light, folder, most)
    for tensor in sorted(tensors_of(light, refs), key=onnx.TensorProto.ByteSize):  # small first
        bytes_, outside = tensor.ByteSize(), tensor.data_location == onnx.TensorProto.EXTERNAL
        if outside or bytes_ > min(each, most):
            tensor.CopyFrom(without_values(tensor))
        else:
            most -= bytes_
    for ref in refs:
        if ref.name != key(ref.node):  # another node has that name, or it is in a function
            ref.node.name = ref.name
    nodes = origins(light, refs)
    del refs  # scrub() needs memory, too
    scrub(light)
    packed = compressed(light.SerializeToString())
    return Model(name, packed, nodes, summary(name, light, sorted(external), checked.cut), sources)


def _checked(model: Any, caller: str, largest: int) -> tuple[Checked, str, Path | None]:
    """A copy of the model, its name, and the folder of its file, if any."""
    program = getattr(model, "model", model)
    if isinstance(program, onnx_ir.Model):
        model = onnx_ir.to_proto(program)
    if isinstance(model, onnx.ModelProto):
        checked = reader.check(_light(model, largest), f"{caller} was passed an onnx.ModelProto")
        return checked, model.graph.name or "model", None
    if isinstance(model, bytes | bytearray | memoryview):
        passed = f"{caller} was passed {len(model):,} bytes"
        return reader.parse(bytes(model), passed, largest), "model", None
    path = model
    if not isinstance(model, str | os.PathLike):
        path = getattr(model, "unchanged", getattr(model, "path", None))
    if not isinstance(path, str | os.PathLike):
        raise InputError(
            f"{caller} was passed an object of class {type(model).__name__}. It expected "
            f"{_EXPECTED}.",
            f"Export a model first: {caller}(export(model, x)).",
        )
    return reader.read(path, caller, largest), Path(path).name, Path(path).parent


def _light(model: onnx.ModelProto, largest: int) -> onnx.ModelProto:
    """A copy with stubs in place of large weights, which are never copied."""
    tensors = (t if t.ByteSize() <= largest else without_values(t) for t in model.graph.initializer)
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
    """Load external data that fits into ``left`` bytes."""
    for tensor in model.graph.initializer:
        outside = tensor.data_location == onnx.TensorProto.EXTERNAL
        info = ExternalDataInfo(tensor)
        if not outside or info.location == protobuf_reader.NOT_SENT or (info.length or 0) > left:
            continue
        try:
            load_external_data_for_tensor(tensor, str(folder))
        except Exception as error:  # onnx's errors have no common class
            raise LoadError(
                f"view(weights=True) cannot read {PurePath(info.location).name!r} beside the "
                f"model: {first_words(error)}",
                "Put the file there, or view the graph without weights.",
            ) from error
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.DEFAULT
        left -= tensor.ByteSize()


def without_values(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """The tensor's name, type and shape, without its values."""
    stub = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    stub.data_location = onnx.TensorProto.EXTERNAL
    stub.external_data.add(key="location", value=protobuf_reader.NOT_SENT)
    return stub


def compressed(data: bytes) -> bytes:
    """Compress; the same data gives the same bytes."""
    return gzip.compress(data, compresslevel=6, mtime=0)
