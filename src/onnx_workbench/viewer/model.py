"""Anything that holds an ONNX model -> its graph without the weights, and a name to show."""

from __future__ import annotations

import ctypes
import gzip
import os
import pickle
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import onnx
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor

from .. import reader, wire
from ..errors import InputError, LoadError
from ..proto import NodeRef, node_refs, tensors_of
from ..reader import Checked
from ..source import NOTHING_MORE, Sources
from .origin import Origin, key, origins, scrub

LARGEST_TENSOR = 64 * 1024
"""Bytes of the largest tensor whose values travel to the page unasked."""

ALL_TENSORS = 1024 * 1024
"""Bytes of all tensors whose values travel to the page unasked."""

ASKED_FOR = 256 * 1024 * 1024
"""Bytes of both that travel where they are asked for: a page holds each more than once."""


class _Limit(NamedTuple):
    """Bytes of the largest tensor and of all of them whose values travel."""

    each: int
    all: int


_EXPECTED = (
    "an Artifact, the path of an .onnx file, its bytes, an onnx.ModelProto, an onnx_ir.Model or a "
    "torch.onnx.ONNXProgram"
)


@dataclass(frozen=True)
class Model:
    """``name`` is a file's name without its folder; ``packed`` has no large weights, no folders.

    ``external`` names the files that hold the rest of the weights, ``cut`` says what of the
    metadata was too long, ``sources`` are the files of source that may be shown. What is kept is
    small: messages of protobuf take five times the bytes of their file, origins once.
    """

    name: str
    packed: bytes
    told: bytes
    external: tuple[str, ...] = ()
    cut: str = ""
    sources: Sources = NOTHING_MORE

    @property
    def proto(self) -> onnx.ModelProto:
        """Unpacked anew each time, for whoever asks to change or to let go."""
        return onnx.ModelProto.FromString(gzip.decompress(self.packed))

    @property
    def origins(self) -> dict[str, Origin]:
        """Those of its nodes, with whole paths, since their source is looked up here; as above."""
        return pickle.loads(gzip.decompress(self.told))

    def __repr__(self) -> str:
        return f"Model({self.name!r}, {len(self.proto.graph.node)} nodes)"


def read(
    model: Any,
    door: str = "view",
    weights: bool = False,
    source: str | os.PathLike[str] | None = None,
) -> Model:
    """The graph of ``model``, which is left as it is, and its :class:`Sources`: ``source`` is a
    folder of source code that may be shown.

    ``door`` is what a message says the model was passed to. With ``weights`` values travel up to
    ``ASKED_FOR``, those of external data too; without, no file of external data is opened.

    >>> from onnx import parser
    >>> read(parser.parse_model('<ir_version: 10, opset_import: ["": 20]> '
    ...                         'half (float[2] x) => (float[2] y) { y = Relu(x) }'))
    Model('half', 1 nodes)

    Raises:
        InputError: ``model`` is none of the things that hold a model.
        LoadError: the file cannot be read, is truncated, or is no ONNX model.
    """
    sources = Sources.of(model, source)
    return replace(_read(model, door, weights), sources=sources)


def _read(source: Any, door: str, weights: bool) -> Model:
    limit = _Limit(ASKED_FOR, ASKED_FOR) if weights else _Limit(LARGEST_TENSOR, ALL_TENSORS)
    ir = sys.modules.get("onnx_ir")  # whoever passes an onnx_ir.Model has imported it
    if ir and isinstance(program := getattr(source, "model", None), ir.Model):
        source = program
    if ir and isinstance(source, ir.Model):
        source = ir.to_proto(source)
    if isinstance(source, onnx.ModelProto):
        light = reader.check(_copied(source, limit.each), f"{door} was passed an onnx.ModelProto")
        return _model(light, source.graph.name or "model", limit)
    if isinstance(source, bytes | bytearray | memoryview):
        said = f"{door} was passed {len(source):,} bytes"
        return _model(reader.parse(bytes(source), said, limit.each), "model", limit)
    path = (
        source
        if isinstance(source, str | os.PathLike)
        else getattr(source, "unchanged", getattr(source, "path", None))
    )
    if not isinstance(path, str | os.PathLike):
        raise InputError(
            f"{door} was passed an object of class {type(source).__name__}. It expected "
            f"{_EXPECTED}. Export a model first: {door}(export(model, 'model.onnx', x))."
        )
    light = reader.read(path, door, limit.each)
    return _model(light, Path(path).name, limit, Path(path).parent if weights else None)


def _model(read: Checked, name: str, limit: _Limit, folder: Path | None = None) -> Model:
    """Of a graph that is ours to change; external data is fetched from ``folder``."""
    light, found = read.model, node_refs(read.model)
    files = {
        PurePath(entry.value).name
        for tensor in tensors_of(light, found)
        for entry in tensor.external_data
        if entry.key == "location" and entry.value != wire.NOT_SENT
    }
    if folder:
        _fetch(light, folder, limit.all)
    _lighten(light, limit, found)
    told = compressed(pickle.dumps(origins(light, found)))
    del found  # for what follows does not need it, and takes memory too
    scrub(light)
    return Model(name, packed(light), told, tuple(sorted(files)), read.cut)


def packed(proto: onnx.ModelProto) -> bytes:
    return compressed(proto.SerializeToString())


def compressed(data: bytes) -> bytes:
    """The same bytes every time."""
    return gzip.compress(data, compresslevel=6, mtime=0)


def _copied(model: onnx.ModelProto, largest: int) -> onnx.ModelProto:
    """The model is its owner's: a copy, for which large weights are not even copied."""
    light = onnx.ModelProto()
    _copy(model, light, skip="graph")
    _copy(model.graph, light.graph, skip="initializer")
    tensors = (t if t.ByteSize() <= largest else stub(t) for t in model.graph.initializer)
    light.graph.initializer.extend(tensors)
    return light


def _fetch(model: onnx.ModelProto, folder: Path, left: int) -> None:
    """Weights of other files, as long as they fit."""
    for tensor in model.graph.initializer:
        outside = tensor.data_location == onnx.TensorProto.EXTERNAL
        info = ExternalDataInfo(tensor)
        if not outside or info.location == wire.NOT_SENT or (info.length or 0) > left:
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


def _lighten(model: onnx.ModelProto, limit: _Limit, found: Sequence[NodeRef]) -> None:
    """Makes stubs of large tensors: they keep name, type and shape. Gives each node its name."""
    left = limit.all
    for tensor in model.graph.initializer:
        size = tensor.ByteSize()
        here = tensor.data_location != onnx.TensorProto.EXTERNAL
        kept = here and size <= min(limit.each, left)
        left -= size if kept else 0
        if not kept:
            tensor.CopyFrom(stub(tensor))
    for tensor in tensors_of(model, found):
        if tensor.ByteSize() > limit.each:
            tensor.CopyFrom(stub(tensor))
    for ref in found:
        if not ref.function and ref.name != key(ref.node):
            ref.node.name = ref.name  # where another node goes by that already


def _copy(source: Any, target: Any, skip: str) -> None:
    for field, value in source.ListFields():
        if field.name == skip:
            continue
        if isinstance(value, int | float | str | bytes):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).MergeFrom(value)


def trim_memory() -> None:
    """Return freed memory to the system: a parsed model takes several times its file, and Linux's
    allocator keeps it.

    See https://man7.org/linux/man-pages/man3/malloc_trim.3.html; elsewhere this does nothing.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # a C library other than GNU's
            ctypes.CDLL(None).malloc_trim(0)


def stub(tensor: onnx.TensorProto) -> onnx.TensorProto:
    stub = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    stub.MergeFromString(wire.ELSEWHERE)
    return stub
