"""Damaged files for every function that reads one: it answers, or raises a planned error.

The files are mutations of three models: every field of the protobuf is deleted, doubled and
replaced by a wrong value; files are cut short, and bits flipped. A worker process takes one file
after the other. It logs each call before it makes it: after a crash or a hang, the log ends there.
"""

from __future__ import annotations

import gc
import math
import random
import resource
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, parser

import onnx_workbench as ow
from onnx_workbench.errors import RunError, WorkbenchError
from onnx_workbench.formatting import plural, size, table
from onnx_workbench.isolated import Ended, ask
from onnx_workbench.protobuf_reader import encoded, fields, varint

FILES, SEED = 1000, 14
PATIENCE = 300.0
"""Seconds for all calls of one file; a longer one counts as a hang."""
MEMORY = 4_000_000_000
"""The most bytes of data that the worker may allocate, and so may the worker of its files."""
TIMEOUT = 2.0
LARGEST = 1_000_000
"""The most numbers in an input."""
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
    """A random sample of the mutations: what was done, and the file."""
    rng = random.Random(seed)
    made: list[tuple[str, bytes]] = []
    for index, data in enumerate(seeds()):
        changed = _mutated(data, onnx.ModelProto.DESCRIPTOR, rng)
        made += [(f"{index}: {what}", file) for what, file in changed]
        for _ in range(150):
            at, bits = rng.randrange(len(data)), rng.randint(1, 8)
            made.append((f"{index}: cut at {at}", data[:at]))
            flipped = bytearray(data)
            for _ in range(bits):
                flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            made.append((f"{index}: {bits} bits flipped", bytes(flipped)))
    return rng.sample(made, min(count, len(made)))


def _mutated(message: bytes, kind: Any, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """The message with one field deleted, doubled or changed, for each field, nested ones too."""
    for field in fields(message, 0, len(message)):
        whole, known = message[field.start : field.end], kind.fields_by_number[field.number]
        tag = message[field.start : varint(message, field.start)[1]]
        changed = [(" deleted", b""), (" doubled", whole + whole)]
        if field.wire == 0:
            changed += [(f" = {n}", tag + encoded(n)) for n in rng.sample(NUMBERS, 3)]
        elif field.wire == 2:
            texts = rng.sample(TEXTS, 3)
            changed += [(f" = {t[:12]!r}", tag + encoded(len(t)) + t) for t in texts]
        else:
            changed += [(" = random", tag + rng.randbytes(field.end - field.value))]
        if known.message_type:
            inner = _mutated(message[field.value : field.end], known.message_type, rng)
            changed += [(f".{what}", tag + encoded(len(new)) + new) for what, new in inner]
        for what, new in changed:
            yield known.name + what, message[: field.start] + new + message[field.end :]


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


BEFORE = _peak()


def child(path: Path, log: Path) -> int:
    """Call every function with the file; ``log`` gets a line for each, with its outcome.

    Returns how many bytes the peak memory of the process has grown since its start.
    """
    gc.enable()  # workers run without it
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    with log.open("w") as lines:
        for door, call in _calls(path):
            print(door, end=": ", file=lines, flush=True)
            print(outcome(call), file=lines, flush=True)
    return _peak() - BEFORE


def _calls(path: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    loaded: list[Any] = []
    died: list[bool] = []

    def run() -> None:
        try:
            loaded[0](*_inputs(loaded[0]))
        except WorkbenchError as error:
            died.append("process" in str(error))
            raise

    yield "view", lambda: repr(ow.view(path.read_bytes()))
    yield "load", lambda: loaded.append(ow.load(path, isolated=True, timeout=TIMEOUT))
    if loaded:
        artifact = loaded[0]
        yield "trace", lambda: repr(ow.trace(artifact))
        yield "run", run
        if not any(died):  # a death takes seconds, and the others would die in the same way
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


def outcome(call: Callable[[], object]) -> str:
    """How a call ends, in one line."""
    try:
        call()
    except WorkbenchError as error:
        return "dies, named" if "was killed" in str(error) else "refused"
    except Exception as error:
        place = error.__traceback__
        while place and place.tb_next:
            place = place.tb_next
        at = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
        return f"raw {type(error).__name__} at {at}: {error!r:.100}"
    return "answered"


def told(log: str) -> Iterator[tuple[str, str]]:
    """Each call of a log and its outcome; a line without one is a crash or a hang."""
    for line in log.splitlines():
        door, _, end = line.partition(": ")
        yield door, end or "crash or hang"


def tried(files: Iterable[tuple[str, bytes]]) -> tuple[Counter[tuple[str, str]], list[str], int]:
    """How often each call had which outcome, every fault, and by how many bytes memory grew."""
    ends: Counter[tuple[str, str]] = Counter()
    faults: list[str] = []
    memory = 0
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder) / "model.onnx", Path(folder) / "log"
        (Path(folder) / "far.data").write_bytes(bytes(8))
        for what, data in files:
            path.write_bytes(data)
            with suppress(Ended):  # the log says where
                memory = max(memory, ask(child, path, log, timeout=PATIENCE))
            for door, end in told(log.read_text()):
                kind = "raw" if end.startswith("raw") else end
                ends[door, kind] += 1
                if kind in ("raw", "crash or hang"):
                    faults.append(f"{what}: {door}: {end}")
    return ends, faults, memory


def report() -> Iterator[str]:
    ends, faults, memory = tried(mutants(FILES, SEED))
    doors = ("view", "load", "trace", "run", "profile", "probe")
    kinds = ("answered", "refused", "dies, named", "raw", "crash or hang")
    rows = [(door, *(ends[door, kind] for kind in kinds)) for door in doors]
    yield table(rows, ("door", *kinds), right=range(1, 6))
    yield f"{plural(FILES, 'file')} of seed {SEED}, {plural(sum(ends.values()), 'call')}"
    yield f"{plural(len(faults), 'fault')}; {size(memory)} more memory than at the start"
    yield "\n".join(faults)
    if faults:
        sys.exit(1)
