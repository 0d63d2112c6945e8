"""Reads ``.onnx`` files: bytes become a checked model, or one LoadError that says what is wrong.

All other modules rely on these checks.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, BinaryIO

import onnx
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from . import protobuf_reader
from .errors import LoadError
from .proto import MAIN, NodeRef, graphs, nested, node_refs, tensors_of
from .source import LONGEST_TEXT, MOST_FRAMES

STEP_OVER_ABOVE = 16 * 1024 * 1024
"""Bytes of a file above which weights are skipped unless the caller asks for them."""

INLINE = 1024
"""Bytes of the largest weight that counts as part of the graph: a shape, an axis, a scalar."""

LONGEST_NAME = 4096
"""Characters of a name; no tool writes longer ones, and a table pads each row to the longest."""

LONGEST_NOTE = 16 * 1024
"""Characters of one metadata entry of a node. A longer one keeps its head and its tail."""

DEEPEST = 64
"""The deepest nesting of modules that is read."""

MOST_NUMBERS = 2**48
"""Numbers in one tensor."""

MOST_NODES = 2_000_000
"""Nodes of a model whose functions are inlined, as ONNX Runtime does."""

_HINT = "Copy the file again, or export the model again."
_KEYS = {"location", "offset", "length", "checksum", "basepath"}
_ATTRIBUTES = set(onnx.AttributeProto.AttributeType.values()) - {onnx.AttributeProto.UNDEFINED}
_BIG = 18  # digits of a number that fits 64 bits


@dataclass(frozen=True)
class Checked:
    """A checked model. ``cut`` says which metadata was too long and is cut; empty if none."""

    model: onnx.ModelProto
    cut: str = ""


def read(path: str | os.PathLike[str], caller: str, largest: int = INLINE) -> Checked:
    """The model in a file, without its external weights.

    Args:
        path: of a regular file.
        caller: the public function that was called, for the message.
        largest: bytes of the largest weight that is still read from a large file.

    Raises:
        LoadError: it cannot be read, or it is not a complete, valid ONNX model.
    """
    name = os.path.basename(os.fspath(path))  # noqa: PTH119  # also of an invalid path
    try:
        with _opened(Path(path)) as file, _bytes_of(file) as data:
            return parse(data, f"{caller} was passed {name!r} ({len(data):,} bytes)", largest)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise LoadError(
            f"{caller} was passed {name!r:.200}, which cannot be read: {why}. It expected the path "
            "of an .onnx file.",
            f"Write one first: export(model, x, {name!r:.200}).",
        ) from error


def parse(data: protobuf_reader.Data, passed: str, largest: int = INLINE) -> Checked:
    """Parse and check the bytes of a file. Otherwise as :func:`read`.

    An error message begins with ``passed``: "view was passed 12 bytes".
    """
    step_over = len(data) > STEP_OVER_ABOVE
    proto, cause = onnx.ModelProto(), None
    try:
        proto.ParseFromString(protobuf_reader.without_values(data, largest) if step_over else data)
    except Exception as error:  # protobuf's DecodeError, or a file above its 2 GB
        cause = error
    if cause is None and proto.HasField("graph"):
        return check(proto, passed, data)
    raise _refused(passed, _what_is_wrong(data)) from cause


def check(model: onnx.ModelProto, passed: str, data: protobuf_reader.Data | None = None) -> Checked:
    """Check a model in memory, and cut metadata that is too long. ``data`` are its bytes, if known.

    >>> from onnx import parser
    >>> model = parser.parse_model('<ir_version: 10, opset_import: ["": 20]> '
    ...                            'g (float[2] x) => (float[2] y) { y = Relu(x) }')
    >>> model.opset_import[0].version = -1
    >>> check(model, "load was passed 'a.onnx'")
    Traceback (most recent call last):
        ...
    onnx_workbench.errors.LoadError: load was passed 'a.onnx', which asks for opset -1 of ''. \
It expected a whole .onnx file.
    What helps: Copy the file again, or export the model again.
    """
    if bad := _bad_text(model, model.SerializeToString() if data is None else data):
        raise _refused(passed, f"which holds text that is not UTF-8 at {bad}")
    refs = node_refs(model)
    if wrong := next(_wrong(model, refs), ""):
        raise _refused(passed, f"which {wrong}")
    values = (*model.graph.value_info, *model.graph.output)  # a quantizer keeps their metadata
    cut = sum(_shorten(part) for part in (*(ref.node for ref in refs), *values))
    limits = (
        f"{LONGEST_NOTE:,} characters, {LONGEST_TEXT:,} in a line of source, {MOST_FRAMES} frames "
        f"or {DEEPEST} modules"
    )
    words = f"{cut:,} of its metadata entries cut: more than {limits}"
    return Checked(model, words if cut else "")


def weight_files(proto: onnx.ModelProto) -> list[str]:
    """The files that hold external initializers, relative to the model's file."""
    entries = [entry for tensor in tensors_of(proto) for entry in tensor.external_data]
    return list(dict.fromkeys(entry.value for entry in entries if entry.key == "location"))


def check_weights(path: Path, proto: onnx.ModelProto) -> None:
    """Raises LoadError unless the files with the external weights are whole, beside the model."""
    ends: dict[str, int] = {}
    for tensor in tensors_of(proto):
        at = {entry.key: entry.value for entry in tensor.external_data}
        outside = tensor.data_location == onnx.TensorProto.EXTERNAL
        if outside and at["location"] != protobuf_reader.NOT_SENT:
            end = int(at.get("offset", 0)) + int(at.get("length", 0))
            ends[at["location"]] = max(ends.get(at["location"], 0), end)
    for name, end in ends.items():
        if not (path.parent / name).is_file():
            raise LoadError(
                f"{path.name} could not be loaded: its weights are in {name!r}, which is not "
                "beside it.",
                "Copy both files, or export again into one.",
            )
        if (there := (path.parent / name).stat().st_size) < end:
            raise LoadError(
                f"{path.name} could not be loaded: its weights are in {name!r}, which has "
                f"{there:,} bytes, but needs {end:,}.",
                "Copy that file again, or export again into one.",
            )


def _refused(passed: str, wrong: str) -> LoadError:
    return LoadError(f"{passed}, {wrong}. It expected a whole .onnx file.", _HINT)


def _opened(path: Path) -> BinaryIO:
    if not stat.S_ISREG(path.stat().st_mode):  # opening a fifo waits forever, a device never ends
        raise ValueError("it is not a regular file")
    return path.open("rb")


def _bytes_of(file: BinaryIO) -> AbstractContextManager[protobuf_reader.Data]:
    """A large file is mapped, so that skipped weights are never read."""
    if os.fstat(file.fileno()).st_size > STEP_OVER_ABOVE:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return nullcontext(file.read())


def _wrong(model: onnx.ModelProto, refs: Sequence[NodeRef]) -> Iterator[str]:
    """Yield a clause for each fault of a model: "asks for opset 0 of 'ai.onnx'"."""
    for entry in model.opset_import:
        if not 1 <= entry.version < 2**31:
            yield f"asks for opset {entry.version} of {entry.domain!r:.80}"
    main = any(entry.domain in MAIN for entry in model.opset_import)
    for ref in refs:
        if not main and not ref.function and ref.node.domain in MAIN:
            yield f"asks for no opset, and the node {ref.name!r:.80} needs one"
        yield from _wrong_node(ref)
    for graph in graphs(model, refs):
        ends = (*graph.input, *graph.output, *graph.value_info)
        if (longest := max((len(value.name) for value in ends), default=0)) > LONGEST_NAME:
            yield f"has a value whose name has {longest:,} characters"
    for tensor in tensors_of(model, refs):
        yield from _wrong_tensor(tensor)
    yield from _wrong_functions(model)


def _wrong_node(ref: NodeRef) -> Iterator[str]:
    node, at = ref.node, f"the node {ref.name!r:.80}"
    names = (node.name, node.op_type, node.domain, *node.input, *node.output)
    if (longest := max(map(len, names))) > LONGEST_NAME:
        yield f"has a name of {longest:,} characters at {at}"
    for attribute in node.attribute:
        named = f"the attribute {attribute.name!r:.80} of {at}"
        if attribute.type not in _ATTRIBUTES:
            yield f"has no known type for {named}"
        if attribute.ref_attr_name and not ref.function:
            yield f"refers to {attribute.ref_attr_name!r:.80} of a function for {named}"


def _wrong_tensor(tensor: onnx.TensorProto) -> Iterator[str]:
    at = f"the tensor {tensor.name!r:.80}"
    numbers = 1
    for size in tensor.dims:
        numbers *= size
        if size < 0 or numbers > MOST_NUMBERS:
            yield f"gives {at} the shape {list(tensor.dims)!s:.80}"
            return
    if len(tensor.name) > LONGEST_NAME:
        yield f"has a tensor whose name has {len(tensor.name):,} characters"
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return
    external = {entry.key: entry.value for entry in tensor.external_data}
    for key in external:
        if key not in _KEYS and not key.startswith("prepacked"):
            yield f"gives {at} external data with the key {key!r:.80}"
    for key in ("offset", "length"):
        number = external.get(key, "0")
        if not (number.isascii() and number.isdigit() and len(number) <= _BIG):
            yield f"gives {at} external data whose {key} is {number!r:.80}"
    if not stays_inside(location := external.get("location", "")):
        yield f"gives {at} external data in {location!r:.80}, which names no file in the model's \
folder"


def stays_inside(location: str) -> bool:
    """Whether a path names a file in the model's folder, or in a folder below it.

    >>> [stays_inside(name) for name in ("a.data", "w/a.data", "../a", "/etc/a", "C:a", "", "*/a")]
    [True, True, False, False, False, False, False]
    """
    parts = location.replace("\\", "/").split("/")
    fits = all(0 < len(part.encode()) <= 255 and part.isprintable() for part in parts)
    return fits and ".." not in parts and not set(location) & {":", "*"}


def _wrong_functions(model: onnx.ModelProto) -> Iterator[str]:
    """Functions that call each other in a circle, or expand to more nodes than memory holds."""
    if not model.functions:
        return
    made: dict[Any, Any] = {(f.domain, f.name, f.overload): f.node for f in model.functions}
    made[None] = model.graph.node
    calls = {
        key: Counter((node.domain, node.op_type, node.overload) for node in nested(nodes))
        for key, nodes in made.items()
    }
    try:
        called = {key: [name for name in inside if name in made] for key, inside in calls.items()}
        order = list(TopologicalSorter(called).static_order())
    except CycleError as error:
        circle = [name for _, name, _ in error.args[1]]
        yield f"has functions that call each other in a circle: {' -> '.join(circle)!s:.200}"
        return
    size: dict[Any, int] = {}
    for caller in order:
        nodes = sum(count * size.get(callee, 1) for callee, count in calls[caller].items())
        size[caller] = min(nodes, MOST_NODES + 1)
    if size[None] > MOST_NODES:
        yield f"has functions that become more than {MOST_NODES:,} nodes when they are inlined"


def _shorten(part: onnx.NodeProto | onnx.ValueInfoProto) -> int:
    """Cut entries that are too long, and count the entries that are not read in full."""
    count = 0
    for note in part.metadata_props:
        text, half = note.value, LONGEST_NOTE // 2
        if len(text) > LONGEST_NOTE:
            left = f"\n... {len(text) - 2 * half:,} characters cut ...\n"
            note.value = f"{text[:half]}{left}{text[-half:]}"
            count += 1
        else:
            count += _read_in_part(note)
    return count


def _read_in_part(note: onnx.StringStringEntryProto) -> bool:
    if note.key.endswith("name_scopes"):
        return note.value.count("', '") > DEEPEST
    frames = note.value.count('File "')
    return frames > MOST_FRAMES or (
        frames > 0 and max(map(len, note.value.split("\n"))) > LONGEST_TEXT
    )


@lru_cache(maxsize=1)
def _strict() -> Any:
    """ONNX's message in a syntax that makes protobuf check UTF-8 while it parses, which ONNX's own
    syntax does not; None before protobuf 5.27."""
    if not hasattr(descriptor_pb2, "EDITION_2023"):
        return None
    file = descriptor_pb2.FileDescriptorProto()
    onnx.ModelProto.DESCRIPTOR.file.CopyToProto(file)
    file.syntax, file.edition = "editions", descriptor_pb2.EDITION_2023
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName(onnx.ModelProto.DESCRIPTOR.full_name)
    )


def _bad_text(model: onnx.ModelProto, data: protobuf_reader.Data) -> str:
    """Where text is not UTF-8: ``graph.node[3].name``; empty if all text is."""
    if strict := _strict():
        with suppress(Exception):
            strict.FromString(protobuf_reader.without_values(data, STEP_OVER_ABOVE // 256))
            return ""
    return next(_bad_texts(model, ""), "")


def _bad_texts(message: Any, path: str) -> Iterator[str]:
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_MESSAGE, field.TYPE_STRING):
            continue
        single = isinstance(value, (str, bytes)) or hasattr(value, "ListFields")
        for at, item in enumerate([value] if single else value):
            place = f"{path}{field.name}" + (f"[{at}]" if not single else "")
            if isinstance(item, bytes):
                yield place
            elif not isinstance(item, str):
                yield from _bad_texts(item, f"{place}.")


def _what_is_wrong(data: protobuf_reader.Data) -> str:
    known, end = onnx.ModelProto.DESCRIPTOR.fields_by_number, 0
    for field in protobuf_reader.fields(data, 0, len(data)):
        if field.number not in known or field.wire not in (0, 1, 2, 5):
            return "which is no ONNX model"
        end = field.end
    if end > len(data):
        return f"which is truncated: it declares {end:,} bytes but ends at byte {len(data):,}"
    inner = next(_damages(data, 0, len(data), onnx.ModelProto.DESCRIPTOR, ""), "")
    return inner or "which is no ONNX model: it holds no graph"


def _damages(data: protobuf_reader.Data, at: int, end: int, kind: Any, path: str) -> Iterator[str]:
    """Yield what is wrong with each damaged field, innermost first, as a clause."""
    seen: Counter[str] = Counter()
    for field in protobuf_reader.fields(data, at, end):
        known = kind.fields_by_number.get(field.number)
        name = known.name if known else f"field {field.number}"
        place = f"{path}{name}[{seen[name]}]"
        seen[name] += 1
        if not field.number or field.wire not in (0, 1, 2, 5):
            yield f"which is damaged at byte {field.start:,}, in {path.rstrip('.') or 'the file'}"
        elif field.end > end:
            yield f"which is damaged at byte {field.start:,}: {place} runs to byte {field.end:,}, \
but its container ends at byte {end:,}"
        elif known and known.message_type and field.wire == 2:
            yield from _damages(data, field.value, field.end, known.message_type, f"{place}.")
