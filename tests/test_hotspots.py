"""From a kernel to its line: each rule where the answer is known by construction."""

from __future__ import annotations

import re
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import onnx
import pytest
import torch
from models import Folds, Scores, module, parsed, saved
from onnxruntime.quantization import QuantFormat, quantize_dynamic, quantize_static
from torch import nn

import onnx_workbench as ow
from onnx_workbench import hotspots, proto
from onnx_workbench.errors import InputError
from onnx_workbench.lineage.attribution import Share, attributed
from onnx_workbench.lineage.call import CallData
from onnx_workbench.lineage.kernels import NAME, VALUE, Match, matches
from onnx_workbench.report.stages import STAGES
from onnx_workbench.runs import profiler
from onnx_workbench.runs.profiler import Cost, Kernel, Recording

X = torch.ones(1, 3, 8, 8)
CHAIN = "(float[2] x) => (float[2] c) { [one] a = Sin(x) [two] b = Cos(a) [three] c = Relu(b) }"
FIXED = (
    "(float[2] x) => (float[2] y) { [c] c = Constant<value_floats = [1.0, 2.0]>() [d] d = Neg(c) "
    "[e] e = Sin(x) [f] y = Add(e, d) }"
)
RESIDUAL = (
    "(float[2] x) => (float[2] d) { [skip] s = Sin(x) [conv] a = Cos(s) [add] b = Add(a, s) "
    "[gelu] d = Erf(b) }"
)
BRANCHES = (
    "(bool p, float[2] x) => (float[2] y) { y = If(p) <then_branch = t () => (float[2] u) "
    "{ u = Sin(x) }, else_branch = e () => (float[2] u) { u = Cos(x) }> }"
)
CALLS = (
    "(float[2] x) => (float[2] z) { [call] y = mine.twice(x) [h] h = Relu(y) "
    "[again] v = mine.twice(h) [swish] s = HardSwish(v) [end] z = mine.outer(s) } "
    '<domain: "mine", opset_import: ["": 20]> twice (a) => (b) '
    "{ [once] h = Sin(a) [two] b = Cos(h) } "
    '<domain: "mine", opset_import: ["": 20, "mine": 1]> outer (a) => (b) '
    "{ [in] b = mine.twice(a) }"
)

# The rules of the join

RULES = {
    "a name": (CHAIN, "two  a -> b  name: two one"),
    "a value": (CHAIN, "other  a -> b  value: two one"),
    "a layout": (CHAIN, "b_nchwc  r -> s  layout: two\n one_nchwc  x -> r  layout: one"),
    "a fused name": (
        CHAIN,
        "two/SomeFusion  r -> s  fused name: two\n one_new_reshape  x -> r  fused name: one",
    ),
    "put in by the optimizer: the consumer, else the producer": (
        CHAIN,
        """Reorder  x -> r  neighbor: one
        one  r -> a  name: one
        two  a -> b  name: two
        three  b -> c2  name: three
        ReorderOutput  c2 -> out  neighbor: three""",
    ),
    "nodes whose values are gone are fused, and go to one kernel alone": (
        CHAIN,
        "Reorder  x -> r  neighbor: two\n two  r -> b  name: two one\n three  b -> c  name: three",
    ),
    "no rule": (CHAIN, "k#1  x -> t1  unattributed: \n k#2  t1 -> t2  unattributed: "),
    "sounds inlined": (CHAIN, "_inlfunc_Gelu_x  x -> r  neighbor: one\n one  r -> a  name: one"),
    "what depends on constants is in no kernel": (FIXED, "f  x -> y  name: f e"),
    "fused into the convolution, whose result has a name of its own": (
        RESIDUAL,
        "skip  x -> s  name: skip\n a_nchwc  s s -> r  layout: conv add\n gelu  r -> d  name: gelu",
    ),
    "a value of two branches": (BRANCHES, "elsewhere  x -> u  unattributed: "),
    "inlined and fused over its end": (
        CALLS,
        "_inlfunc_twice_once  x -> _inlfunc_twice_h  inlined: call\n"
        "h  _inlfunc_twice_h -> h  name: h call",
    ),
    "inlined": (
        CALLS,
        """_inlfunc_twice_once  x -> _inlfunc_twice_h  inlined: call
        Cos_4  _inlfunc_twice_h -> y  value: call
        other  y -> h  value: h
        Reorder  h -> r  neighbor: again
        _inlfunc_twice_token_0_once  r -> _inlfunc_twice_token_0_h  inlined: again
        _inlfunc_twice_token_0_two  _inlfunc_twice_token_0_h -> v  value: again
        _inlfunc_Deeper_x  v -> t  inlined: swish
        HardSigmoid_7  t -> _inlfunc_HardSwish_token_1_HS_X  inlined: swish
        Mul_8  v _inlfunc_HardSwish_token_1_HS_X -> s  value: swish
        _inlfunc_twice_token_2_once  s -> _inlfunc_twice_token_2_h  inlined: end
        _inlfunc_twice_token_2_two  _inlfunc_twice_token_2_h -> z  value: end""",
    ),
}
"""What is tried -> a graph, and kernels: name, what it reads -> makes, its rule: its nodes."""


@pytest.mark.parametrize("rule", RULES)
def test_a_kernel_leads_back_to_the_exported_nodes(rule):
    text, rows = RULES[rule]
    kernels, expected = [], {}
    for row in rows.split("\n"):
        name, wires, match = row.strip().split("  ")
        reads, makes = wires.split(" -> ")
        kernels.append(Kernel(name, "", tuple(reads.split()), (makes,), (1.0,)))
        kind, nodes = match.split(":")
        expected[name] = Match(kind, tuple(nodes.split()))
    assert matches(kernels, proto.node_refs(parsed(text))) == expected


# What the profiler wrote


def event(name, start, lasts, operator="", cat="Node"):
    name = f"{name}_kernel_time" if cat == "Node" else name
    return {"cat": cat, "name": name, "ts": start, "dur": lasts, "args": {"op_name": operator}}


IF = parsed(
    "(bool p, float[2] x) => (float[2] y) { [owner] y = If(p) "
    "<then_branch = t () => (float[2] u) { [b] u = Sin(x) },"
    " else_branch = e () => (float[2] v) { [other] v = Cos(x) }> }"
)
RUN = event("model_run", 0, 100, cat="Session")


def read(events, graph, counts=lambda run: True):
    return profiler.recording_of([*(event(*one) for one in events), RUN], graph, counts)


@pytest.mark.parametrize(
    ("events", "cost", "spent"),
    [
        # what a body takes is not counted twice
        ([("b", 12, 3), ("b", 16, 4), ("owner", 10, 20)], Cost(), {"owner": 13, "b": 7}),
        # in the same microsecond: what follows is not inside, what is written later is outside
        ([("owner", 10, 5), ("b", 15, 0)], Cost(outside=1e-6), {"owner": 5, "b": 0}),
        ([("b", 10, 5), ("owner", 10, 5)], Cost(), {"owner": 0, "b": 5}),
        # the profiler's cost is taken off inside and around
        ([("b", 12, 5), ("owner", 10, 20)], Cost(2e-6, 1e-6), {"owner": 12, "b": 3}),
    ],
)
def test_a_kernel_has_its_own_microseconds(events, cost, spent):
    found = read(events, IF).less(cost)
    assert {k.name: pytest.approx(k.seconds[0] * 1e6) for k in found.kernels} == spent


def test_runs_that_do_not_count_are_left_out_and_the_outermost_executor_is_the_run():
    events = [event("other", 10, 5), RUN, event("other", 210, 7)]
    events.append(event("model_run", 200, 50, cat="Session"))
    found = profiler.recording_of(events, IF, lambda run: run == 1)
    assert [k.seconds for k in found.kernels] == [(7e-6,)]
    assert found.whole == found.executed == (50e-6,)
    inner = [
        event(profiler.EXECUTOR, start, lasts, cat="Session") for start, lasts in ((5, 80), (20, 9))
    ]
    assert profiler.recording_of([RUN, *inner], IF, lambda run: True).executed == (80e-6,)
    assert [run for run in range(12) if profiler.is_measured(run)] == [5, 6, 7, 9, 10, 11]


SINES = "(float[2] x) => (float[2] c) { [named] a = Sin(x) b = Sin(a) c = Sin(b) }"
REORDERED = (
    "(float[2] x) => (float[2] c) { [R] a = ReorderOutput(x) b = Sin(a) "
    "[R_token_2] c = ReorderOutput(b) }"
)


@pytest.mark.parametrize(
    ("graph", "operator", "ran", "outputs"),
    [
        (SINES, "Sin", "named Sin_9 Sin_7", "a b c"),
        (SINES, "Sin", "named Sin_9", "a -"),  # cannot be counted off
        (SINES, "Sin", "named Sin#1 Sin#2", "a - -"),
        (REORDERED, "ReorderOutput", "R_token_2 R", "a c"),  # each session numbers them anew
    ],
)
def test_nodes_whose_names_tell_nothing_are_told_by_the_order_they_run_in(
    graph, operator, ran, outputs
):
    events = [(name, 10 * at, 1, operator) for at, name in enumerate(ran.split())]
    found = {k.name: k.outputs for k in read(events[::-1], parsed(graph)).kernels}
    made = [() if value == "-" else (value,) for value in outputs.split()]
    assert found == dict(zip(ran.split(), made, strict=True))


def test_a_kernel_reads_what_is_not_known_before_the_run():
    weight = "(float[2] x) => (float[2] y) <float[2] w = {1.0, 2.0}> { [add] y = Add(x, w) }"
    [add] = read([("add", 10, 5)], parsed(weight)).kernels
    assert (add.inputs, add.outputs) == (("x",), ("y",))


def test_a_kernel_has_its_provider_and_the_bytes_of_its_results():
    made = {"provider": "CPUExecutionProvider", "output_type_shape": [{"float": [2, 3]}]}
    calls = [event("inner", start, 3) for start in (12, 16)]
    events = [{**call, "args": call["args"] | made} for call in calls]
    [inner] = profiler.recording_of([*events, RUN], IF, lambda run: True).kernels
    assert (inner.provider, inner.size) == ("CPUExecutionProvider", 48)


def recording(*kernels, executed=100e-6):
    return Recording(kernels, (executed,) * 4, (executed,) * 4)


def us(name, *seconds, calls=1.0, inner=0.0):
    seconds = seconds if len(seconds) > 1 else seconds * 4
    return Kernel(name, "", (), (), tuple(s * 1e-6 for s in seconds), calls, inner)


@pytest.mark.parametrize(
    ("kernels", "alone", "inside", "outside"),
    [
        # what the kernels are too long by
        ([us("a", 30), us("b", 10, 10, 10, 10, calls=3)], 32e-6, 2e-6, 15e-6),
        # between the kernels of a body it is their owner's
        ([us("if", 50, inner=2), us("in", 30, calls=2)], 28e-6, 4e-6, 20e-6),
        ([us("a", 98)], 200e-6, 0, 2e-6),  # noise cannot pass for it
        ([us("a", 98)], 10e-6, 2e-6, 2e-6),
        ([], 1.0, 0, 0),
    ],
)
def test_the_profilers_cost_is_what_kernels_are_too_long_by(kernels, alone, inside, outside):
    found = recording(*kernels)
    cost = found.cost_beside(alone)
    assert (cost.inside, cost.outside) == (pytest.approx(inside), pytest.approx(outside))
    less = found.less(cost)
    assert less.cost == cost
    for kernel, before in zip(less.kernels, kernels, strict=True):
        off = before.calls * cost.inside + before.inner * cost.outside
        assert kernel.seconds[0] == pytest.approx(before.seconds[0] - off)


def test_what_is_typical_of_the_parts_adds_up_to_what_is_typical_of_the_whole():
    found = recording(us("a", 1, 2, 9, 3), us("b", 30, 20, 90, 25))
    parts = [found.typical(k.seconds) for k in found.kernels]
    assert parts == [pytest.approx(2.5e-6), pytest.approx(22.5e-6)]
    assert found.typical(found.sums) == pytest.approx(sum(parts))
    assert found.typical((-1.0, -1.0, 5.0, -1.0)) == 0.0
    assert recording().typical((9.0, 2.0)) == 2.0, "without a kernel, of the fastest runs"


# Shares, on a lineage that is real and times that are made up


@pytest.fixture(scope="module")
def folds():
    return ow.export(Folds().eval(), X)


def made_up(artifact, rename=str, lap=None):
    """Hotspots in which each exported node is a kernel that takes 10 us."""
    refs, lineage = proto.node_refs(artifact.proto), ow.trace(artifact)
    ran = tuple(Kernel(rename(ref.name), "", (), (), (1e-5, 1e-5, 2e-5)) for ref in refs)
    found = matches(ran, refs)
    shares = attributed(found, lineage.origins, lineage.operations, {}, lap or {})
    whole = tuple(1e-5 * n * len(ran) for n in (1, 1, 2))
    lineage = replace(lineage, call=CallData(Recording(ran, whole, whole), found, shares))
    return hotspots.Hotspots(lineage, whole, (lap,) * 3 if lap else (), "all", 1)


def changed(spots, shares=None, **recording):
    """The same, with another part of its recording, or other shares."""
    call = replace(spots.call, recording=replace(spots.recording, **recording))
    call = replace(call, shares=call.shares | (shares or {}))
    return replace(spots, lineage=replace(spots.lineage, call=call))


def by_text(spots):
    return {spot.line.text: spot for spot in spots.spots if spot.line}


def test_a_fused_kernel_is_shared_as_its_nodes_take_unfused(folds):
    match = Match(VALUE, ("node_linear", "node_mean"))
    for alone, fraction in (({"node_linear": 3e-6, "node_mean": 1e-6}, 0.25), ({}, 0.5)):
        lineage = ow.trace(folds)
        found = attributed({"k": match}, lineage.origins, lineage.operations, alone, {})["k"]
        assert {part.node: part.fraction for part in found}["node_mean"] == fraction
        assert sum(part.fraction for part in found) == 1


def test_what_export_merged_is_shared_as_its_fx_nodes_take_in_pytorch(folds):
    lap = {"conv2d": 9e-5, "batch_norm": 1e-5, "linear": 9e-5, "linear_1": 1e-5}
    spots = by_text(made_up(folds, lap=lap))
    assert spots["x = self.conv(x)"].seconds == pytest.approx(9e-6)
    assert spots["x = self.norm(x)"].seconds == pytest.approx(1e-6)
    assert spots["left = self.head(x)"].seconds == spots["right = self.head(x)"].seconds == 5e-6
    assert spots["x = self.conv(x)"].fused
    assert not spots["x = x.mean((2, 3))"].fused


def test_kernels_of_one_line_or_without_a_name_and_the_heat_of_nodes(folds):
    spots = made_up(folds)
    line = spots.lineage.line_of("node_mean")
    halves = tuple(Share("node_mean", node, line, 0.5) for node in ("node_mean", "node_linear"))
    one = changed(spots, {"node_mean": halves})
    assert not by_text(one)["x = x.mean((2, 3))"].fused, "several nodes of one line"
    assert spots.heat() == dict.fromkeys([o.node for o in spots.lineage.origins], 1e-5)
    timed = replace(spots, laps=({"mean": 9e-4}, {"mean": 1e-4}, {"mean": 8e-4}))
    assert by_text(timed)["x = x.mean((2, 3))"].torch == 1e-4, "the fastest runs of PyTorch"
    lost = made_up(folds, rename=lambda name: f"kernel {name}")
    assert lost.unattributed == lost.rules["unattributed"] == 1.0
    assert "100.0 % of kernel time: no rule matches the kernel's name" in repr(lost)
    assert lost.heat() == {}


def test_kernels_too_short_for_the_profiler_are_called_that_and_no_share_is_told(
    folds, monkeypatch
):
    spots = made_up(folds)
    idle = changed(spots, kernels=spots.recording.less(Cost(inside=1.0)).kernels)
    assert (idle.total, idle.covered, idle.unattributed) == (0, 0, 0)
    said = "5 kernels too short for the profiler to time"
    assert repr(idle).splitlines()[0].endswith(f"50.0 us a run without the profiler, {said}")
    assert "of kernel time" not in repr(idle)
    assert "trust" not in repr(idle)
    assert spaced(idle.plot().get_title(loc="left")) == said
    assert len(repr(idle.flame()).splitlines()) > len(idle.spots)
    monkeypatch.setattr("onnx_workbench.report.stages.profile", lambda *_, **__: idle)
    skip = {stage.name for stage in STAGES} - {"model", "hot lines"}
    [found] = (f for f in ow.audit(folds, X, skip=skip).findings if f.stage == "hot lines")
    assert (found.code, found.line, found.sentence.startswith(said)) == ("OW902", None, True)


def test_the_report_is_the_source_with_time_in_the_margin(folds):
    lap = {"conv2d": 3e-5, "batch_norm": 1e-5, "mean": 2e-5, "mul": 1e-6}
    rows = repr(made_up(folds, lap=lap)).splitlines()
    assert rows[0].endswith(".onnx: 50.0 us a run without the profiler, 50.0 us in 5 kernels")
    assert " ".join(rows[1].split()) == "ORT share kernels PyTorch line source"
    assert re.sub(r"us +\d+  ", "us  N  ", rows[5]) == (
        "7.50 us  15.0 %*        1  30.0 us  N      x = self.conv(x)"
    )
    html = made_up(folds, lap=lap)._repr_html_()
    head = [re.sub("<[^>]*>", "", cell) for cell in re.findall("<th.*?</th>", html)]
    assert head[-2:] == ["quartiles", "by"], "where text has no room"
    assert "7.50 us to 11.3 us" in html
    facts = dict(row.split(maxsplit=1) for row in rows[13:] if row[0] != " ")
    assert facts["no"] == "line   0.0 % of kernel time"
    assert facts["coverage"] == "kernels take 100.0 % of a run without the profiler"
    assert facts["doubt"].startswith("runs differ: the quartiles are 50.0 % apart")
    spots = made_up(folds, lap=lap)
    slow = (replace(k, seconds=tuple(1e5 * s for s in k.seconds)) for k in spots.recording.kernels)
    slow = changed(spots, kernels=tuple(slow))
    widths = [list(map(len, repr(each).splitlines()[1:12])) for each in (spots, slow)]
    assert widths[0] == widths[1], "columns are as wide whatever the numbers"


def test_numbers_that_do_not_fit_together_are_a_doubt(folds):
    spots = made_up(folds)
    costly = changed(spots, cost=Cost(inside=1.1e-5))
    assert costly.counted == pytest.approx(2.1)
    for doubt, doubtful in (
        ("most of the measured time is the profiler's", costly),
        ("profiled runs took longer than the overhead", replace(spots, plain=(4e-5,) * 3)),
        ("part of a run is outside kernels", replace(spots, plain=(9e-5,) * 3)),
    ):
        assert doubt not in repr(spots)
        assert doubt in repr(doubtful)


def test_the_plot_shows_both_runtimes_for_each_line_most_saved_first(folds):
    lap = {"conv2d": 8e-4, "mean": 5e-4, "mul": 1e-7}
    ax = made_up(folds, lap=lap).plot()
    labels = [label.get_text() for label in ax.get_yticklabels()]
    shown = ["x = self.conv(x)", "x = x.mean((2, 3))", "return left * right"]
    assert all(text in labels[at] for at, text in zip((0, 1, -1), shown, strict=True))
    drawn = {}
    for line in ax.lines:
        drawn.setdefault(line.get_label(), []).extend(line.get_xdata())
    assert drawn["PyTorch"][:2] == [8e-4, 5e-4]
    assert drawn["ONNX Runtime"][1] == 1e-5
    assert "most saved at models.py:" in spaced(ax.get_title(loc="left"))
    assert ax.get_xlabel()


def test_the_plot_has_a_row_for_each_layer_and_short_names_of_files():
    layers = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    spots = profiled(module(lambda self, x: self.layers(x), layers=layers), torch.ones(2, 4))
    labels = [label.get_text() for label in spots.plot().get_yticklabels()]
    assert {re.sub(r":\d+", "", label) for label in labels} == {
        *("linear.py  layers.0", "linear.py  layers.2"),
        "activation.py  return torch.tanh(input)",
    }
    assert "    in activation.py:" in repr(spots)
    assert "    in torch/nn/modules/activation.py:" in spots._repr_html_()


# Where it ran


def on(spots, provider_of, assigned=None):
    """The same, on made-up providers."""
    kernels = tuple(replace(k, provider=provider_of(k.name)) for k in spots.recording.kernels)
    return changed(spots, kernels=kernels, assigned=assigned or {})


def spaced(text):
    return " ".join(text.split())


def test_a_line_says_on_which_provider_its_kernels_ran(folds):
    spots = made_up(folds)
    cpu = on(spots, lambda _: "CPUExecutionProvider")
    assert cpu.providers == {"CPUExecutionProvider": 1.0}
    assert "ran on CPU 100.0 % of kernel time" in spaced(repr(cpu))
    assert repr(cpu).splitlines()[1].split() == repr(spots).splitlines()[1].split()
    both = on(spots, lambda name: ("CPU" if "mean" in name else "CUDA") + "ExecutionProvider")
    lines = by_text(both)
    assert lines["x = x.mean((2, 3))"].providers == ("CPUExecutionProvider",)
    assert lines["x = self.conv(x)"].providers == ("CUDAExecutionProvider",)
    assert both.providers == pytest.approx(
        {"CUDAExecutionProvider": 0.8, "CPUExecutionProvider": 0.2}
    )
    rows = repr(both).splitlines()
    assert rows[1].split()[3:5] == ["PyTorch", "on"]
    [mean] = [row for row in rows if row.endswith("x = x.mean((2, 3))")]
    assert "CPU" in mean.split()
    assert "ran on CUDA 80.0 %, CPU 20.0 % of kernel time" in spaced(repr(both))


def test_a_provider_that_compiles_nodes_or_runs_none_is_told(folds):
    spots, npu = made_up(folds), "NpuExecutionProvider"
    compiled = on(spots, lambda _: npu, {"node_mean": npu, "node_linear": "CPUExecutionProvider"})
    assert by_text(compiled)["left = self.head(x)"].providers == (npu, "CPUExecutionProvider")
    assert "doubt no kernel ran on CPU, the provider that the artifact" in spaced(repr(compiled))


# Real runs


def profiled(model, *inputs, **options):
    return ow.profile(ow.export(model.eval(), inputs), inputs, **{"seconds": 0.05, **options})


def foreign(folder, text, **options):
    """Of a file that another tool made."""
    artifact = saved(folder / "m.onnx", text)
    inputs = tuple(torch.ones([int(size) for size in value.shape]) for value in artifact.inputs)
    return ow.profile(artifact, inputs, **{"seconds": 0.01, **options})


def test_a_line_that_is_slow_on_purpose_comes_out_on_top():
    def forward(self, x):
        x = torch.sin(x)
        x = (x @ self.weight) @ self.weight
        return torch.cos(x)

    before = torch.get_num_threads()
    model = module(forward, weight=nn.Parameter(torch.randn(512, 512)))
    spots = profiled(model, torch.randn(64, 512), seconds=0.1, threads=2)
    assert spots.hottest.line.text == "x = (x @ self.weight) @ self.weight"
    assert spots.unattributed == 0
    assert torch.get_num_threads() == before


def lines_of(spots):
    """Operator of a kernel -> the lines that it was shared out to."""
    found = {}
    for kernel in spots.recording.kernels:
        texts = {part.line and part.line.text for part in spots.call.shares[kernel.name]}
        found.setdefault(kernel.operator, set()).update(texts)
    return found


def test_an_operator_on_a_known_line_goes_to_no_other():
    def forward(self, x):
        x = torch.relu(x)
        y = self.conv(x)
        y = y + x
        y = torch.nn.functional.gelu(y)
        return y.softmax(-1)

    model = module(forward, conv=nn.Conv2d(8, 8, 3, padding=1))
    lines = lines_of(profiled(model, torch.randn(1, 8, 16, 16)))
    assert lines["Softmax"] == {"return y.softmax(-1)"}
    assert lines["Gelu"] == {"y = torch.nn.functional.gelu(y)"}
    assert {"y = self.conv(x)"} <= lines["Conv"] <= {"y = self.conv(x)", "y = y + x"}


def test_a_node_that_was_folded_into_a_weight_takes_no_time():
    def forward(self, x):
        weight = self.weight.t()
        return x.relu() @ weight

    model = module(forward, weight=nn.Parameter(torch.randn(8, 8)))
    artifact = ow.export(model, torch.randn(4, 8), optimize=False)
    assert artifact.operations["Transpose"] == 1
    spots = ow.profile(artifact, torch.randn(4, 8), seconds=0.01)
    line = {"return x.relu() @ weight"}
    assert lines_of(spots) == {"Relu": line, "MatMul": line}
    assert len(spots.heat()) == 2


@pytest.fixture(scope="module")
def scores():
    x, mask = torch.randn(2, 1, 8, 8), {"mask": torch.zeros(2, 10)}
    names = {"images": {0: "batch"}, "mask": {0: "batch"}}
    return ow.export(Scores().eval(), x, kwargs=mask, dynamic_shapes=names)


@pytest.mark.parametrize("level", ["off", "extended", "all"])
def test_every_kernel_has_a_line_at_every_level_and_size_and_is_given_out_once(level, scores):
    mask = {"mask": torch.zeros(5, 10)}
    spots = ow.profile(scores, torch.randn(5, 1, 8, 8), mask, level=level, seconds=0.05)
    assert spots.unattributed == spots.rules["unattributed"] == 0
    assert spots.level == level
    assert level != "off" or {match.rule for match in spots.call.matches.values()} == {NAME}
    for parts in spots.call.shares.values():
        assert sum(part.fraction for part in parts) == pytest.approx(1)
    assert "logits = logits + mask" in by_text(spots)
    assert len(spots.laps) == len(spots.plain) > 0


def test_a_bare_file_is_reported_by_node_and_says_why(tmp_path):
    matmul = "(float[512, 512] x) => (float[512, 512] y) { h = MatMul(x, x) y = Sin(h) }"
    spots = foreign(tmp_path, matmul, seconds=0.05)
    assert (spots.hottest.line, spots.hottest.name, spots.hottest.torch) == (None, "h", None)
    assert spots.unattributed == 1.0
    assert "100.0 % of kernel time: the file has no torch metadata" in repr(spots)
    assert spots.plot().get_title(loc="left") == "h takes the longest in ONNX Runtime"


def test_without_a_kernel_there_is_no_hottest_line():
    spots = profiled(module(lambda self, x: torch.arange(3.0)), torch.ones(2))
    assert repr(spots).splitlines()[-1] == hotspots.NO_KERNEL
    assert spots.total == 0
    with pytest.raises(ow.errors.InputError, match="no kernel runs"):
        _ = spots.hottest


FUNCTIONS = (
    "(float[128, 128] x) "
    "=> (float[128, 128] z) { [call] y = mine.twice(x) [mid] w = Relu(y) [again] v = mine.twice(w) "
    "[end] u = mine.outer(v) [swish] t = HardSwish(u) [last] z = Sin(t) } "
    '<domain: "mine", opset_import: ["": 20]> twice (a) => (b) '
    "{ [once] h = Sin(a) [two] k = Abs(h) b = MatMul(k, k) } "
    '<domain: "mine", opset_import: ["": 20, "mine": 1]> outer (a) => (b) '
    "{ [in] h = mine.twice(a) [out] b = Cos(h) }"
)


@pytest.mark.parametrize("level", ["basic", "all"])
def test_every_call_of_a_function_gets_the_kernels_that_it_was_inlined_as(tmp_path, level):
    spots = foreign(tmp_path, FUNCTIONS, level=level)
    ran = {}
    for kernel in spots.recording.kernels:
        for node in spots.call.matches[kernel.name].nodes:
            ran.setdefault(node, []).append(kernel.operator)
    assert {node: sorted(operators) for node, operators in ran.items()} == {
        "call": ["Abs", "MatMul", "Sin"],
        "mid": ["Relu"],
        "again": ["Abs", "MatMul", "Sin"],
        "end": ["Abs", "Cos", "MatMul", "Sin"],
        "swish": ["HardSigmoid", "Mul"],
        "last": ["Sin"],
    }
    assert spots.rules["unattributed"] == spots.rules["neighbor"] == 0


SUBGRAPHS = {
    "Loop": (
        "(float[64] x) => (float[64] y) { n = Constant<value_int = 7>() "
        "[loop] y = Loop(n, , x) <body = b (int64 i, bool c, float[64] s) => (bool d, float[64] t) "
        "{ [keep] d = Identity(c) [work] t = Sin(s) }> }",
        {"loop": (1, 14), "keep": (7, 0), "work": (7, 0)},
    ),
    "Scan": (
        "(float[5, 64] x) => (float[5, 64] y) "
        "{ s = Constant<value_floats = [0.0]>() [scan] f, y = Scan <num_scan_inputs = 1, body = b "
        "(float[1] p, float[64] e) => (float[1] q, float[64] o) "
        "{ [keep] q = Cos(p) [work] o = Sin(e) }> (s, x) }",
        {"scan": (1, 10), "keep": (5, 0), "work": (5, 0)},
    ),
    "If": (
        "(float[64] x) => (float[64] y) { m = ReduceMax <keepdims = 0> (x) z = Cast <to = 9> (m) "
        "[if] y = If(z) <then_branch = t () => (float[64] u) { [work] u = Sin(x) }, "
        "else_branch = e () => (float[64] v) { [other] v = Cos(x) }> }",
        {"if": (1, 1), "work": (1, 0)},
    ),
}


@pytest.mark.parametrize("operator", SUBGRAPHS)
def test_a_body_and_its_owner_are_told_apart_and_every_iteration_is_counted(tmp_path, operator):
    text, expected = SUBGRAPHS[operator]
    spots = foreign(tmp_path, text, level="basic")
    ran = {k.name: (k.calls, k.inner) for k in spots.recording.kernels if k.name in expected}
    assert ran == expected
    assert all(spots.call.matches[name] == Match(NAME, (name,)) for name in expected)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ow.errors.RunError])
def test_nothing_is_left_on_disk_nor_after_an_error_nor_an_interrupt(
    error, folds, tmp_path, monkeypatch
):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.chdir(tmp_path)

    def stop(*_):
        assert any(folder.iterdir())  # the profile is being written
        raise error("no")

    if error:
        monkeypatch.setattr(profiler, "enough", stop)
    with pytest.raises(error) if error else nullcontext():
        ow.profile(folds, X, seconds=0.01)
    assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == [folder]


# Quantized files


LAYERS = {"conv": nn.Conv1d(4, 8, 3), "head": nn.Linear(14, 5)}
SIGNAL = torch.randn(2, 4, 16)


def quantized(old, new, way, like=None):
    if way == "dynamic":
        quantize_dynamic(old, new)
    else:
        left = iter([{onnx.load(old).graph.input[0].name: SIGNAL.numpy()}] * 2)
        reader = SimpleNamespace(get_next=lambda: next(left, None))
        quantize_static(old, new, reader, quant_format=QuantFormat[way])
    return ow.load(new, like=like)


WAYS = pytest.mark.parametrize("way", ["dynamic", "QOperator", "QDQ"])


@pytest.fixture(scope="module")
def layers():
    def forward(self, x):
        x = self.conv(x)  # conv
        x = torch.relu(x)
        x = self.head(x)  # head
        return torch.relu(x)

    return ow.export(module(forward, **LAYERS), SIGNAL)


@WAYS
def test_the_time_of_a_quantized_layer_is_on_its_own_line(way, layers, tmp_path):
    spots = ow.profile(quantized(layers.path, tmp_path / "q.onnx", way), SIGNAL, seconds=0.05)
    heavy = re.compile(r"ConvInteger|QLinearConv|MatMulInteger|DynamicQuantizeMatMul|QLinearMatMul")
    found = {op: lines for op, lines in lines_of(spots).items() if heavy.search(op)}
    assert {"Conv" in op for op in found} == {True, False}
    for operator, lines in found.items():
        layer = "conv" if "Conv" in operator else "head"
        assert lines == {f"x = self.{layer}(x)  # {layer}"}
    assert spots.unattributed == 0


def test_a_quantized_operator_without_weights_claims_no_neighbors_line(tmp_path):
    def forward(self, x):
        x = torch.sigmoid(self.conv(x))  # conv
        x = torch.sigmoid(x)  # lost
        return x.mean(1)  # mean

    artifact = ow.export(module(forward, **LAYERS), SIGNAL)
    lineage = ow.trace(quantized(artifact.path, tmp_path / "q.onnx", "QOperator"))
    lines = {o.operator: o.line and o.line.text.rpartition("# ")[2] for o in lineage.origins}
    assert (lines["QLinearConv"], lines["ReduceMean"]) == ("conv", "mean")
    assert lines["QLinearSigmoid"] is None


def test_the_error_of_a_quantized_line_is_on_it_and_no_rounding(tmp_path):
    def forward(self, x):
        x = torch.relu(self.conv(x))
        loud = 1e6 * x.sum(1, keepdim=True)
        x = torch.cat([x, loud], 1)
        return self.head(x[:, :8])  # head

    model = module(forward, **LAYERS)
    artifact = ow.export(model, SIGNAL)
    int8 = quantized(artifact.path, tmp_path / "q.onnx", "QDQ", like=artifact)
    found = ow.verify(model, int8, SIGNAL, values=True, tolerance=0.3)
    assert not found
    dynamic = quantized(artifact.path, tmp_path / "d.onnx", "dynamic", like=artifact)
    for wrong in (found, ow.verify(model, dynamic, SIGNAL, values=True)):
        assert "8-bit" in wrong.first.reason
    relu = next(step for step in found.steps if step.fx == "relu")
    assert 0 < relu.error < 0.3
    assert relu.operator == "Conv", "the node that computes it, not the one that rounds it"
    assert int8(x=SIGNAL).shape == (2, 8, 5)
    with pytest.raises(InputError, match="`like` is a str"):
        ow.load(artifact.path, like="float.onnx")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A file without metadata of values, which only export() writes."""

    def attends(self, x):
        x = self.conv(torch.sigmoid(x))  # conv
        x = self.head(x)  # linear
        return (x[:, 1:] + 0).softmax(-1)  # softmax

    path = tmp_path_factory.mktemp("bare") / "float.onnx"
    torch.onnx.export(module(attends, **LAYERS), (SIGNAL,), path, dynamo=True, verbose=False)
    return path


@WAYS
def test_a_quantized_layer_without_metadata_is_on_no_line_and_never_a_neighbors(
    way, bare, tmp_path
):
    lineage = ow.trace(quantized(bare, tmp_path / "int8.onnx", way))
    layers = {}
    for origin in lineage.origins:
        if found := re.match(r"node_(conv|linear|softmax)", origin.node):
            mark = origin.line and origin.line.text.rpartition("# ")[2]
            layers.setdefault(found[1], set()).add(mark)
    assert set(layers) == {"conv", "linear", "softmax"}
    assert all(marks <= {None, layer} for layer, marks in layers.items()), layers
    lost = {origin.why for origin in lineage.without if origin.node.endswith("_quant")}
    assert bool(lost) == (way != "QDQ")
    assert all("quantizer" in why for why in lost)
