"""profile(...).memory: graphs whose live bytes are known by construction, then real runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from models import module, parsed
from torch import nn

import onnx_workbench as ow
from onnx_workbench.hotspots.memory import Memory
from onnx_workbench.proto import named, node_refs
from onnx_workbench.runs import profiler
from onnx_workbench.runs.liveness import Footprint, footprint
from onnx_workbench.source import Line

IF = (
    "[if] r = If(p) <then_branch = t () => (float[2] u) { [yes] u = Sin(x) }, "
    "else_branch = e () => (float[2] v) { [no] v = Cos(x) }> [end] y = Sin(r)"
)
LOOP = (
    "[pre] h = Sin(x) n = Constant<value_int = 3>() "
    "[loop] y = Loop(n, , h) <body = b (int64 i, bool c, float[2] s) => (bool d, float[2] t) "
    "{ [keep] d = Not(c) [work] u = Sin(s) [last] t = Cos(u) }>"
)
OTHER = "[a] h = Sin(x) [s] q = Reshape(h, x) [b] r = Relu(h) [c] y = MatMul(r, q)"
WAITS = "[a] h = Sin(x) [b] r = Cos(h) [c] s = Sin(r) [d] y = MatMul(s, h)"
RUNS = {
    "chain": ("[a] h = Sin(x) [b] r = Cos(h) [c] y = Sin(r)", "a b c", "8 16 16"),
    "a value that waits": (WAITS, "a b:6 c:6 d", "8 32 56 40"),
    "a result that nobody reads": ("[a] h, g = TopK(x, x) [b] y = Sin(h)", "a:2,4 b", "24 16"),
    "another shape": ("[a] h = Sin(x) [b] r = Reshape(h, x) [c] y = Sin(r)", "a b c", "8 8 16"),
    "another shape of an input": ("[a] h = Flatten(x) [b] y = Sin(h)", "a b", "0 8"),
    "another shape as the output": ("[a] h = Sin(x) [b] y = Reshape(h, x)", "a b", "8 16"),
    "in place": ("[a] h = Sin(x) [b] r = Relu(h) [c] y = Sin(r)", "a b c", "8 8 16"),
    "read later": ("[a] h = Sin(x) [b] r = Relu(h) [c] y = MatMul(r, h)", "a b c", "8 16 24"),
    "its other shape is read later": (OTHER, "a s b c", "8 8 16 24"),
    "the sum inside a convolution": (
        *("[a] h = Sin(x) [b] r = Conv(x, x, x, h) [c] y = Sin(r)", "a b c", "8 8 16"),
    ),
    "a branch": (IF, "yes if end", "8 8 16"),
    # the first state waits for the loop's end, and each iteration's for that of the next
    "loop": (LOOP, "pre keep:0 work last keep:0 work last loop", "8 8 16 24 16 24 32 24"),
    "no node": ("[a] h = Sin(x) [b] y = Cos(h)", "a other:3 b", "8 20 16"),
}
"""What is tried -> a graph; its kernels in the order of their end, with the numbers in each result;
bytes live in each."""


def made_up(case):
    nodes, order, _ = RUNS[case]
    model = parsed(f"(bool p, float[2] x) => (float[2] y) {{ {nodes} }}")
    calls = []
    for word in order.split():
        name, _, counts = word.partition(":")
        shapes = [{"float": [int(count)]} for count in (counts or "2").split(",")]
        calls.append((name, {"output_type_shape": shapes}))
    return footprint(calls, {ref.name: ref for ref in node_refs(model)}, model)


@pytest.mark.parametrize("case", RUNS)
def test_bytes_that_are_live_in_each_kernel(case):
    assert made_up(case).live == tuple(map(int, RUNS[case][2].split()))


def test_what_is_not_counted_is_named():
    assert made_up("chain").missing[0].startswith("scratch memory inside kernels")
    assert "collects" in made_up("loop").missing[1]
    assert "1 kernel" in made_up("no node").missing[1]


ATTENTION = (
    "(float[b, 8, 16] x) => (float[b, 8, 16] y, float[b, 8] z) "
    "<int64[4] heads = {0, 8, 2, 8}, float three = {3.0}> "
    "{ s = Mul(x, three) q = Sin(s) k = Cos(s) v = Abs(s) "
    "q4 = Reshape(q, heads) k4 = Reshape(k, heads) v4 = Reshape(v, heads) "
    "qh = Transpose<perm = [0, 2, 1, 3]>(q4) kh = Transpose<perm = [0, 2, 3, 1]>(k4) "
    "vh = Transpose<perm = [0, 2, 1, 3]>(v4) w = MatMul(qh, kh) p = Softmax(w) o = MatMul(p, vh) "
    "t = Transpose<perm = [0, 2, 1, 3]>(o) shape = Shape(x) r = Reshape(t, shape) "
    "a = Add(r, x) g = Relu(a) left, right = Split<axis = 2, num_outputs = 2>(g) "
    "m = Mul(left, right) n = Tanh(m) c = Concat<axis = 2>(n, m) y = Neg(c) "
    "axis = Constant<value_ints = [2]>() z = ReduceSum<keepdims = 0>(n, axis) }"
)


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
def test_live_bytes_are_those_that_onnx_runtimes_allocator_counts(level, tmp_path):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    model = named(parsed(ATTENTION)).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.ones((3, 8, 16), np.float32)})
    events = json.loads(Path(session.end_profiling()).read_text())
    counted = [e["args"] for e in events if e["name"].endswith("_kernel_time")]
    if "mem_bytes_requested_in_use" not in counted[0]:
        pytest.skip("this ONNX Runtime does not say what its allocator counts")
    requested = [int(args["mem_bytes_requested_in_use"]) for args in counted]
    before = requested[0] - int(counted[0]["mem_requested_in_use_delta"])
    graph = onnx.load(tmp_path / "optimized.onnx")
    found = profiler.recording_of(events, graph, lambda run: True).footprint
    assert found.live == tuple(now - before for now in requested)
    assert found.arena >= max(found.live)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Live at the peak: two values of 4 MB at batch 8, made by one line each."""

    def forward(self, x):
        narrow = x @ self.weight
        wide = narrow.repeat(1, 2048)
        more = torch.erf(wide)
        return more.sum() + wide.amax(1)

    model = module(forward, weight=nn.Parameter(torch.randn(64, 64)))
    file = tmp_path_factory.mktemp("wide") / "wide.onnx"
    return ow.export(model, torch.ones(2, 64), file, dynamic_shapes=({0: "batch"},))


@pytest.mark.parametrize("batch", [1, 8])
def test_the_peak_and_its_lines_follow_the_sizes_of_the_call(wide, batch):
    memory = ow.profile(wide, torch.ones(batch, 64), seconds=0.01).memory
    big = batch * 64 * 2048 * 4
    assert memory.peak == pytest.approx(2 * big, rel=0.01)
    held = {line.text: size for line, size in memory.held.items() if size >= big}
    assert held == {"wide = narrow.repeat(1, 2048)": big, "more = torch.erf(wide)": big}
    assert memory.line.text == "more = torch.erf(wide)"
    assert memory.weights >= 64 * 64 * 4
    assert len(memory.live) == len(memory.footprint.kernels)


def test_the_report_is_the_same_on_every_run_and_the_plot_says_the_finding(wide):
    first, second = (ow.profile(wide, torch.ones(2, 64), seconds=0.01).memory for _ in range(2))
    assert repr(first) == repr(second)
    rows = repr(first).splitlines()
    assert rows[0].startswith("wide.onnx: 2.10 MB of activations at the peak, in kernel ")
    assert rows[1].split() == ["at", "the", "peak", "share", "line", "source"]
    assert {tuple(row.split()[:4]) for row in rows[3:5]} == {("1.05", "MB", "50.0", "%")}
    assert rows[-1].startswith("left out  the caller's inputs, scratch memory inside kernels")
    ax = first.plot()
    assert ax.get_title(loc="left").startswith("At most 2.10 MB of activations are live, at ")
    assert first.line.place in [text.get_text() for text in ax.texts]
    assert ax.get_ylim()[1] > first.peak


def test_what_has_no_line_is_said_and_hostile_names_are_text():
    line = Line("<b>.py", 1, "forward", "<script>")
    memory = Memory("<i>.onnx", made_up("chain"), {"a": line}, {})
    assert "no line" in repr(memory)
    assert "<script>" in repr(memory)
    assert not {"<b>", "<i>", "<script>"} & set(memory._repr_html_().split())
    constant = Memory("m.onnx", Footprint(), {}, {})
    assert "no kernel ran" in repr(constant)
    assert constant.plot().get_title(loc="left").endswith("at no kernel")


def test_a_loaded_file_and_one_in_its_own_process_have_the_same_memory(wide):
    x = torch.ones(2, 64)
    peaks = {
        ow.profile(ow.load(wide.path, isolated=isolated), x, seconds=0.01).memory.peak
        for isolated in (False, True)
    }
    assert peaks == {ow.profile(wide, x, seconds=0.01).memory.peak}
