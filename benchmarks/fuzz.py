"""Damaged files at every door that reads one: each is answered, or refused by a planned error.

The files are mutations of three models: every field of the protobuf deleted, doubled and replaced
by a wrong value, files cut short, and bits flipped. A process of its own takes them one after the
other and says what it is about to do, so that a crash and a hang are known by their file.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, parser

import onnx_workbench as ow
from onnx_workbench.errors import RunError, WorkbenchError
from onnx_workbench.formatting import plural, size, table
from onnx_workbench.protobuf_reader import Field, fields, varint

FILES, SEED = 1000, 14
PATIENCE = 60.0
"""Seconds without a word after which a file counts as a hang."""
MEMORY = 4_000_000_000
"""Bytes of data that the process and its worker may take; more fails there, and not the machine."""
TIMEOUT = 2.0
LARGEST = 1_000_000
"""Numbers of an input."""
HEAD = '<ir_version: 10, opset_import: ["": 20, "d": 1]> '
METADATA = {
    "fx_node": "%relu : [num_users=1] = call_function[target=torch.ops.aten.relu.default]",
    "name_scopes": "['', 'block', 'block.relu', 'relu']",
    "class_hierarchy": "['net.Net', 'net.Block', 'torch.nn.ReLU', 'aten.relu']",
    "stack_trace": 'File "net.py", line 12, in forward\n    return self.relu(x)',
}
CHAIN = """chain (float[N, 2] x) => (float[N, 2] y) <float[2] w = {1, 2}, int64[1] k = {1}> {
    [a] h = Mul(x, w)  [b] g = Relu(h)  [c] s = ReduceSum <keepdims = 1> (g, k)
    [d] y = Add(g, s) }"""
FLOW = """flow (float[2] x, int64 n) => (float[2] y) <bool go = {1}> {
    [loop] l = Loop(n, go, x) <body = b (int64 i, bool c, float[2] s) => (bool k, float[2] t)
        { k = Identity(c)  t = Neg(s) }>
    [call] f = d.twice(l)  [test] z = Greater(n, n)  [zero] o = ReduceMax <keepdims = 0> (f)
    [fork] y = If(go) <then_branch = t () => (float[2] a) { a = Add(f, o) },
        else_branch = e () => (float[2] b) { b = Identity(f) }> }
    <domain: "d", opset_import: ["": 20]> twice (v) => (w) { u = Add(v, v)  w = Sqrt(u) }"""
KINDS = """kinds (double[N, 4] x, int64[N] i) => (double[N, 3] y, int64[N] q)
    <int64[1] one = {3}, float[2] f = {0.5, 1.5}> {
    [mm] m = MatMul(x, s)  [cast] c = Cast <to = 11> (f)
    [const] k = Constant <value = double {2}> ()  [scale] y = Mul(m, k)  [div] q = Div(i, one) }"""
NUMBERS = (0, 1, 2**31 - 1, 2**31, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
TEXTS = (
    *(b"", b"\xff\xfe", b"n" * 5000, b"9" * 5000, b"../../etc/passwd", b"/dev/zero", b"a\0b"),
    *(b"-1", b"%a : " + b"[target=" * 3000),
    b'File "/dev/zero", line ' + b"9" * 5000 + b", in f\n  a",
)


def seeds() -> list[bytes]:
    """A chain with torch's metadata; control flow and functions; all kinds of values."""
    chain, flow, kinds = (parser.parse_model(HEAD + text) for text in (CHAIN, FLOW, KINDS))
    for node in chain.graph.node:
        for key, value in METADATA.items():
            node.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=value)
    data = helper.make_tensor("s", TensorProto.DOUBLE, [2], [1.0, 2.0])
    places = helper.make_tensor("at", TensorProto.INT64, [2], [0, 4])
    kinds.graph.sparse_initializer.append(helper.make_sparse_tensor(data, places, [4, 3]))
    far = kinds.graph.initializer.add(name="far", data_type=7, dims=[1])
    far.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "far.data", "offset": "0", "length": "8"}.items():
        far.external_data.add(key=key, value=value)
    return [model.SerializeToString() for model in (chain, flow, kinds)]


def mutants(count: int, seed: int) -> list[tuple[str, bytes]]:
    """What was done, and the file; of all the mutations so many, drawn at random."""
    rng = random.Random(seed)
    made: list[tuple[str, bytes]] = []
    for number, data in enumerate(seeds()):
        made += [(f"{number}: {what}", file) for what, file in _fields(data, rng)]
        for _ in range(150):
            at, bits = rng.randrange(len(data)), rng.randint(1, 8)
            made.append((f"{number}: cut at {at}", data[:at]))
            flipped = bytearray(data)
            for _ in range(bits):
                flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            made.append((f"{number}: {bits} bits flipped", bytes(flipped)))
    return rng.sample(made, min(count, len(made)))


def _fields(data: bytes, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Each field deleted, doubled, and with other values, whatever it lies in."""
    for path, field, parents in _walk(data, 0, len(data), onnx.ModelProto.DESCRIPTOR, "", ()):
        whole = data[field.start : field.end]
        tag = data[field.start : varint(data, field.start)[1]]
        changed = {"deleted": b"", "doubled": whole + whole}
        if field.wire == 0:
            changed |= {f"= {n}": tag + _varint(n) for n in rng.sample(NUMBERS, 3)}
        elif field.wire == 2:
            texts = rng.sample(TEXTS, 3)
            changed |= {f"= {text[:12]!r}": tag + _varint(len(text)) + text for text in texts}
        else:
            changed["= random"] = tag + rng.randbytes(field.end - field.value)
        for what, value in changed.items():
            yield f"{path} {what}", _replaced(data, field, value, parents)


def _walk(
    data: bytes, at: int, end: int, kind: Any, path: str, parents: tuple[Field, ...]
) -> Iterator[tuple[str, Field, tuple[Field, ...]]]:
    for field in fields(data, at, end):
        known = kind.fields_by_number[field.number]
        yield f"{path}{known.name}", field, parents
        if known.message_type:
            inner = (field.value, field.end, known.message_type, f"{path}{known.name}.")
            yield from _walk(data, *inner, (*parents, field))


def _replaced(data: bytes, field: Field, value: bytes, parents: tuple[Field, ...]) -> bytes:
    """The file with another field, in parents whose lengths are right again."""
    start, end = field.start, field.end
    for parent in reversed(parents):
        value = data[parent.value : start] + value + data[end : parent.end]
        tag = data[parent.start : varint(data, parent.start)[1]]
        value = tag + _varint(len(value)) + value
        start, end = parent.start, parent.end
    return data[:start] + value + data[end:]


def _varint(value: int) -> bytes:
    head = b""
    while value > 0x7F:
        head, value = head + bytes([value & 0x7F | 0x80]), value >> 7
    return head + bytes([value])


def child(first: int, count: int, seed: int) -> None:
    """Takes the files: a line of JSON before each call, and after it what came of it; at the end
    the memory."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    before = _peak()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        (Path(folder) / "far.data").write_bytes(bytes(8))
        for number, (_, data) in enumerate(mutants(count, seed)[first:], first):
            path.write_bytes(data)
            for door, call in _calls(path, data):
                _say(number, door)
                _say(number, door, _outcome(call))
    _say(count, "memory", _peak() - before)


def _calls(path: Path, data: bytes) -> Iterator[tuple[str, Callable[[], object]]]:
    loaded: list[Any] = []
    died: list[bool] = []

    def run() -> None:
        try:
            loaded[0](*_inputs(loaded[0]))
        except WorkbenchError as error:
            died.append("process" in str(error))
            raise

    yield "view", lambda: repr(ow.view(data))
    yield "load", lambda: loaded.append(ow.load(path, isolated=True, timeout=TIMEOUT))
    if loaded:
        artifact = loaded[0]
        yield "trace", lambda: repr(ow.trace(artifact))
        yield "run", run
        if not any(died):  # which cost seconds, and would end the same way
            yield "profile", lambda: repr(ow.profile(artifact, _inputs(artifact), seconds=0.001))
            yield "probe", lambda: repr(ow.probe(artifact, _inputs(artifact)))


def _inputs(artifact: Any) -> tuple[torch.Tensor, ...]:
    made = []
    for value in artifact.inputs:
        dims = [2 if isinstance(dim, str) else dim for dim in value.shape or ()]
        dtype = getattr(torch, value.dtype, None)
        if math.prod(dims) > LARGEST or not isinstance(dtype, torch.dtype):
            raise RunError(f"no tensor is made up for {value!r:.80}")
        made.append(torch.ones(dims).to(dtype))
    return tuple(made)


def _outcome(call: Callable[[], object]) -> str:
    try:
        call()
    except WorkbenchError as error:
        return "dies, named" if "was killed" in str(error) else "refused"
    except Exception as error:
        place = error.__traceback__
        while place and place.tb_next:
            place = place.tb_next
        at = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else ""
        return f"raw {type(error).__name__} at {'/'.join(at.split('/')[-2:])}: {error!s:.100}"
    return "answered"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _say(*words: Any) -> None:
    print(json.dumps(words), flush=True)


def tried(count: int = FILES, seed: int = SEED) -> tuple[Counter[tuple[str, str]], list[str], int]:
    """How often each door came to which end, every fault, and bytes more than at the start."""
    names = [what for what, _ in mutants(count, seed)]
    ends: Counter[tuple[str, str]] = Counter()
    faults: list[str] = []
    first = memory = 0
    while first < count:
        number, door, gone = first, "start", True
        for number, door, *outcome in _watched(first, count, seed):
            if door == "memory":
                memory, gone = max(memory, outcome[0]), False
            elif outcome:
                ends[door, outcome[0].partition(" ")[0]] += 1
                if outcome[0].startswith("raw"):
                    faults.append(f"{names[number]}: {door}: {outcome[0]}")
        if gone:
            ends[door, "crash or hang"] += 1
            faults.append(f"{names[number]}: {door}: crash or hang")
        first = number + 1
    return ends, faults, memory


def _watched(first: int, count: int, seed: int) -> Iterator[list[Any]]:
    """What the process says, until it ends or says nothing for too long."""
    command = [sys.executable, __file__, *map(str, (first, count, seed))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            while True:
                timer = threading.Timer(PATIENCE, process.kill)
                timer.start()
                line = process.stdout.readline()
                timer.cancel()
                if not line:
                    return
                with contextlib.suppress(ValueError):  # cut short by its end
                    yield json.loads(line)
        finally:
            process.kill()


def report() -> Iterator[str]:
    ends, faults, memory = tried()
    doors = ("view", "load", "trace", "run", "profile", "probe")
    kinds = ("answered", "refused", "dies,", "raw", "crash or hang")
    rows = [(door, *(ends[door, kind] for kind in kinds)) for door in doors]
    header = ("door", "answered", "refused", "dies there", "raw", "crash or hang")
    yield table(rows, header, right=range(1, 6))
    yield f"{plural(FILES, 'file')} of seed {SEED}, {plural(sum(ends.values()), 'call')}"
    yield f"{plural(len(faults), 'fault')}; {size(memory)} more memory than at the start"
    yield "\n".join(faults)
    if faults:
        sys.exit(1)


if __name__ == "__main__":
    child(*map(int, sys.argv[1:]))
