"""From a kernel to its line: each rule where the answer is known by construction."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from types import MappingProxyType

import matplotlib
import numpy as np
import onnx
import pytest
import torch
from models import Folds, Scores, Twins, Uneven
from onnx import parser
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    quantize_dynamic,
    quantize_static,
)

matplotlib.use("Agg")
from matplotlib import pyplot

import onnx_workbench as ow
from onnx_workbench import hotspots, proto
from onnx_workbench.errors import InputError, RunError
from onnx_workbench.lineage import attribution as shares
from onnx_workbench.lineage import kernels as join
from onnx_workbench.runs import profiler as kernels
from onnx_workbench.runs.profiler import Cost, Kernel, Recording, counts


def exported(text):
    return proto.node_refs(
        parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g (float[2] x) {text}')
    )


def kernel(name, reads, makes, seconds=(1.0,)):
    return Kernel(name, "", tuple(reads.split()), tuple(makes.split()), seconds)


def told(found):
    return {name: (match.rule, *match.nodes) for name, match in found.items()}


CHAIN = exported("=> (float[2] c) { [one] a = Sin(x) [two] b = Cos(a) [three] c = Relu(b) }")


# The rules of the join


def test_a_kernel_of_the_same_name_is_that_node():
    found = join.matches([kernel("two", "a", "b")], CHAIN)
    assert told(found)["two"][:2] == ("name", "two")


def test_a_kernel_of_another_name_is_the_node_that_makes_the_same_value():
    found = join.matches([kernel("other", "a", "b")], CHAIN)
    assert told(found)["other"][:2] == ("value", "two")


def test_a_kernel_in_another_layout_is_told_by_value_or_node_before_nchwc():
    found = join.matches([kernel("b_nchwc", "r", "s"), kernel("one_nchwc", "x", "r")], CHAIN)
    assert told(found) == {"b_nchwc": ("layout", "two"), "one_nchwc": ("layout", "one")}


def test_a_fused_name_is_told_by_what_stands_before_it():
    fused = [kernel("two/SomeFusion", "r", "s"), kernel("one_new_reshape", "x", "r")]
    assert told(join.matches(fused, CHAIN)) == {
        "two/SomeFusion": ("fused name", "two"),
        "one_new_reshape": ("fused name", "one"),
    }


def test_what_the_optimizer_put_in_takes_its_consumer_else_its_producer():
    found = join.matches(
        [
            kernel("Reorder", "x", "r"),
            kernel("one", "r", "a"),
            kernel("two", "a", "b"),
            kernel("three", "b", "c2"),
            kernel("ReorderOutput", "c2", "out"),
        ],
        CHAIN,
    )
    assert told(found)["Reorder"] == ("neighbor", "one")
    assert told(found)["ReorderOutput"] == ("neighbor", "three")


def test_names_that_no_rule_knows_are_unattributed():
    changed = [kernel("kernel#1", "x", "t1"), kernel("kernel#2", "t1", "t2")]
    assert told(join.matches(changed, CHAIN)) == {
        "kernel#1": ("unattributed",),
        "kernel#2": ("unattributed",),
    }


def test_a_fused_kernel_runs_the_nodes_whose_values_are_gone():
    found = join.matches([kernel("two", "x", "b"), kernel("three", "b", "c")], CHAIN)
    assert told(found) == {"two": ("name", "two", "one"), "three": ("name", "three")}


def test_what_was_put_in_before_a_fused_kernel_goes_to_one_node_alone():
    found = join.matches([kernel("Reorder", "x", "r"), kernel("two", "r", "b")], CHAIN)
    assert told(found) == {"Reorder": ("neighbor", "two"), "two": ("name", "two", "one")}


def test_what_depends_on_constants_alone_is_part_of_no_kernel():
    found = exported(
        "=> (float[2] y) { [c] c = Constant<value_floats = [1.0, 2.0]>() [d] d = Neg(c) "
        "[e] e = Sin(x) [f] y = Add(e, d) }"
    )
    assert told(join.matches([kernel("f", "x", "y")], found)) == {"f": ("name", "f", "e")}


CALLS = proto.node_refs(
    parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20, "mine": 1]> g (float[2] x) => (float[2] z) '
        "{ [call] y = mine.twice(x) [h] h = Relu(y) [again] v = mine.twice(h) "
        "[swish] s = HardSwish(v) [end] z = mine.outer(s) } "
        '<domain: "mine", opset_import: ["": 20]> twice (a) => (b) '
        "{ [once] h = Sin(a) [two] b = Cos(h) } "
        '<domain: "mine", opset_import: ["": 20, "mine": 1]> outer (a) => (b) '
        "{ [in] b = mine.twice(a) }"
    )
)


def test_what_was_inlined_belongs_to_the_call_whose_result_it_leads_to():
    found = join.matches(
        [
            kernel("_inlfunc_twice_once", "x", "_inlfunc_twice_h"),
            kernel("Cos_4", "_inlfunc_twice_h", "y"),
            kernel("other", "y", "h"),
            kernel("Reorder", "h", "r"),
            kernel("_inlfunc_twice_token_0_once", "r", "_inlfunc_twice_token_0_h"),
            kernel("_inlfunc_twice_token_0_two", "_inlfunc_twice_token_0_h", "v"),
            kernel("_inlfunc_Deeper_x", "v", "t"),
            kernel("HardSigmoid_7", "t", "_inlfunc_HardSwish_token_1_HS_X"),
            kernel("Mul_8", "v _inlfunc_HardSwish_token_1_HS_X", "s"),
            kernel("_inlfunc_twice_token_2_once", "s", "_inlfunc_twice_token_2_h"),
            kernel("_inlfunc_twice_token_2_two", "_inlfunc_twice_token_2_h", "z"),
        ],
        CALLS,
    )
    assert told(found) == {
        "_inlfunc_twice_once": ("inlined", "call"),
        "Cos_4": ("value", "call"),
        "other": ("value", "h"),
        "Reorder": ("neighbor", "again"),
        "_inlfunc_twice_token_0_once": ("inlined", "again"),
        "_inlfunc_twice_token_0_two": ("value", "again"),
        "_inlfunc_Deeper_x": ("inlined", "swish"),
        "HardSigmoid_7": ("inlined", "swish"),
        "Mul_8": ("value", "swish"),
        "_inlfunc_twice_token_2_once": ("inlined", "end"),
        "_inlfunc_twice_token_2_two": ("value", "end"),
    }


def test_what_was_inlined_and_fused_over_its_end_still_belongs_to_its_call():
    found = join.matches(
        [
            kernel("_inlfunc_twice_once", "x", "_inlfunc_twice_h"),
            kernel("h", "_inlfunc_twice_h", "h"),
        ],
        CALLS,
    )
    assert told(found) == {
        "_inlfunc_twice_once": ("inlined", "call"),
        "h": ("name", "h", "call"),
    }


def test_what_only_sounds_inlined_is_a_neighbour():
    found = join.matches([kernel("_inlfunc_Gelu_x", "x", "r"), kernel("one", "r", "a")], CHAIN)
    assert told(found)["_inlfunc_Gelu_x"] == ("neighbor", "one")


RESIDUAL = exported(
    "=> (float[2] d) { [skip] s = Sin(x) [conv] a = Cos(s) [add] b = Add(a, s) [gelu] d = Erf(b) }"
)


def test_a_node_that_needs_more_than_a_kernel_reads_belongs_to_the_kernel_before():
    """The residual Add was fused into the convolution, whose result has a name of its own."""
    found = join.matches(
        [kernel("skip", "x", "s"), kernel("a_nchwc", "s s", "r"), kernel("gelu", "r", "d")],
        RESIDUAL,
    )
    assert told(found)["a_nchwc"] == ("layout", "conv", "add")
    assert told(found)["gelu"] == ("name", "gelu")


def test_a_value_of_two_branches_joins_neither():
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (bool p, float[2] x) => (float[2] y) '
        "{ y = If(p) <then_branch = t () => (float[2] u) { u = Sin(x) },"
        " else_branch = e () => (float[2] u) { u = Cos(x) }> }"
    )
    found = join.matches([kernel("elsewhere", "x", "u")], proto.node_refs(model))
    assert told(found) == {"elsewhere": ("unattributed",)}


# What the profiler wrote


def event(name, start, lasts, cat="Node"):
    return {"cat": cat, "name": name, "ts": start, "dur": lasts, "args": {}}


LOOP = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 20]> g (bool p, float[2] x) => (float[2] y) '
    "{ [outer] y = If(p) <then_branch = t () => (float[2] u) { [inner] u = Sin(x) },"
    " else_branch = e () => (float[2] v) { [other] v = Cos(x) }> }"
)
RUN = event("model_run", 0, 100, "Session")


def spent(events, kept=lambda run: True, cost=kernels.FREE):
    found = kernels.recording_of(events, LOOP, kept).less(cost)
    return {k.name: [round(s * 1e6, 3) for s in k.seconds] for k in found.kernels}


def test_what_a_body_takes_is_not_counted_twice():
    events = [
        event("inner_kernel_time", 12, 3),
        event("inner_kernel_time", 16, 4),
        event("outer_kernel_time", 10, 20),
        RUN,
    ]
    assert spent(events) == {"outer": [13.0], "inner": [7.0]}


def test_a_kernel_that_follows_in_the_same_microsecond_is_not_inside():
    events = [event("outer_kernel_time", 10, 5), event("inner_kernel_time", 15, 0), RUN]
    assert spent(events, cost=Cost(outside=1e-6)) == {"outer": [5.0], "inner": [0.0]}


def test_of_two_events_that_last_as_long_the_one_written_later_is_outside():
    events = [event("inner_kernel_time", 10, 5), event("outer_kernel_time", 10, 5), RUN]
    assert spent(events) == {"outer": [0.0], "inner": [5.0]}


def test_what_the_profiler_costs_is_taken_off_inside_and_around():
    events = [event("inner_kernel_time", 12, 5), event("outer_kernel_time", 10, 20), RUN]
    cost = Cost(inside=2e-6, outside=1e-6)
    assert spent(events, cost=cost) == {"outer": [12.0], "inner": [3.0]}


def test_runs_that_do_not_count_are_left_out():
    events = [
        event("other_kernel_time", 10, 5),
        RUN,
        event("other_kernel_time", 210, 7),
        event("model_run", 200, 50, "Session"),
    ]
    assert spent(events, kept=lambda run: run == 1) == {"other": [7.0]}
    recording = kernels.recording_of(events, LOOP, lambda run: run == 1)
    assert recording.whole == recording.executed == (50e-6,)


def recording(*kernels_, executed=(100e-6,) * 4):
    return Recording(kernels_, executed, executed)


def us(name, *seconds, calls=1.0, inner=0.0):
    return Kernel(name, "", (), (), tuple(s * 1e-6 for s in seconds), calls, inner)


def test_what_the_profiler_costs_is_what_kernels_are_too_long_by():
    found = recording(us("a", 30, 30, 30, 30), us("b", 10, 10, 10, 10, calls=3))
    cost = found.cost_beside(32e-6)
    assert (cost.inside, cost.outside) == (pytest.approx(2e-6), pytest.approx(15e-6))
    assert sum(found.less(cost).sums) == pytest.approx(4 * 32e-6)
    assert found.less(cost).cost == cost


def test_the_profiler_between_the_kernels_of_a_body_is_taken_off_their_owner():
    found = recording(us("if", 50, 50, 50, 50, inner=2), us("in", 30, 30, 30, 30, calls=2))
    cost = found.cost_beside(28e-6)
    assert cost.outside == pytest.approx(20e-6)
    assert cost.inside == pytest.approx(4e-6)
    assert [k.seconds[0] for k in found.less(cost).kernels] == [
        pytest.approx(6e-6),
        pytest.approx(22e-6),
    ]


def test_noise_cannot_pass_for_the_profilers_cost():
    found = recording(us("a", 98, 98, 98, 98))
    assert found.cost_beside(200e-6).inside == 0
    assert found.cost_beside(10e-6).inside == pytest.approx(2e-6)
    assert recording().cost_beside(1.0) == kernels.FREE


def test_what_is_typical_of_the_parts_adds_up_to_what_is_typical_of_the_whole():
    found = recording(us("a", 1, 2, 9, 3), us("b", 30, 20, 90, 25))
    parts = [found.typical(k.seconds) for k in found.kernels]
    assert parts == [pytest.approx(2.5e-6), pytest.approx(22.5e-6)]
    assert found.typical(found.sums) == pytest.approx(sum(parts))
    assert found.typical((-1.0, -1.0, 5.0, -1.0)) == 0.0


def test_from_the_first_kernel_to_the_last_is_the_outermost_executor():
    executor = kernels.EXECUTOR
    events = [RUN, event(executor, 5, 80, "Session"), event(executor, 20, 9, "Session")]
    assert kernels.recording_of(events, LOOP, lambda run: True).executed == (80e-6,)


NAMELESS = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 20]> g (float[2] x) => (float[2] c) '
    "{ [named] a = Sin(x) b = Sin(a) c = Sin(b) }"
)


def placed(*events):
    events = [
        event(f"{name}_kernel_time", ts, 1) | {"args": {"op_name": "Sin"}} for name, ts in events
    ]
    found = kernels.recording_of([*events, RUN], NAMELESS, lambda run: True)
    return {k.name: k.outputs for k in found.kernels}


def test_kernels_of_nodes_without_a_name_are_told_by_the_order_they_run_in():
    assert placed(("Sin_7", 30), ("named", 10), ("Sin_9", 20)) == {
        "named": ("a",),
        "Sin_9": ("b",),
        "Sin_7": ("c",),
    }


def test_nameless_kernels_that_cannot_be_counted_off_are_unknown():
    assert placed(("named", 10), ("Sin_9", 20)) == {"named": ("a",), "Sin_9": ()}
    changed = placed(("named", 10), ("Sin#1", 20), ("Sin#2", 30))
    assert changed == {"named": ("a",), "Sin#1": (), "Sin#2": ()}


def test_a_kernel_reads_what_is_not_known_before_the_run():
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[2] x) => (float[2] y) '
        "<float[2] w = {1.0, 2.0}> { [add] y = Add(x, w) }"
    )
    events = [event("add_kernel_time", 10, 5), RUN]
    [add] = kernels.recording_of(events, model, lambda run: True).kernels
    assert (add.inputs, add.outputs) == (("x",), ("y",))


def test_of_a_block_the_first_run_does_not_count():
    assert [run for run in range(12) if counts(run)] == [5, 6, 7, 9, 10, 11]


# Shares, on a lineage that is real and times that are made up


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    file = tmp_path_factory.mktemp("hotspots") / "folds.onnx"
    return ow.export(Folds().eval(), torch.ones(1, 3, 8, 8), file)


def made_up(artifact, alone=MappingProxyType({}), rename=str, lap=None):
    """Hotspots in which each exported node is a kernel that takes 10 us."""
    sites = proto.node_refs(artifact.proto)
    lineage = ow.trace(artifact)
    ran = tuple(Kernel(rename(s.name), "", (), (), (1e-5, 1e-5, 2e-5)) for s in sites)
    matches = join.matches(ran, sites)
    laps = (lap,) * 3 if lap else ()
    found = shares.attributed(matches, lineage, alone, lap or {})
    whole = tuple(1e-5 * n * len(ran) for n in (1, 1, 2))
    return hotspots.Hotspots(
        lineage, Recording(ran, whole, whole), matches, found, whole, laps, level="all", threads=1
    )


def by_text(spots):
    return {spot.line.text: spot for spot in spots.spots if spot.line}


def test_a_fused_kernel_is_shared_as_its_nodes_take_unfused(folds):
    lineage = ow.trace(folds)
    match = join.Match(join.VALUE, ("node_linear", "node_mean"))
    alone = {"node_linear": 3e-6, "node_mean": 1e-6}
    found = shares.attributed({"k": match}, lineage, alone, {})["k"]
    parts = {part.node: part.fraction for part in found}
    assert parts["node_mean"] == 0.25
    assert sum(part.fraction for part in found) == 1


def test_what_export_merged_is_shared_as_its_fx_nodes_take_in_pytorch(folds):
    spots = by_text(made_up(folds, lap={"conv2d": 9e-5, "batch_norm": 1e-5}))
    assert spots["x = self.conv(x)"].seconds == pytest.approx(9e-6)
    assert spots["x = self.norm(x)"].seconds == pytest.approx(1e-6)
    assert spots["x = self.conv(x)"].fused
    assert not spots["x = x.mean((2, 3))"].fused


def test_what_is_computed_once_for_two_lines_is_halved(folds):
    spots = by_text(made_up(folds, lap={"linear": 9e-5, "linear_1": 1e-5}))
    assert spots["left = self.head(x)"].seconds == spots["right = self.head(x)"].seconds == 5e-6


def test_another_way_of_naming_kernels_shows_as_unattributed(folds):
    changed = made_up(folds, rename=lambda name: f"kernel {name}")
    assert changed.unattributed == 1.0
    assert changed.rules["unattributed"] == 1.0
    assert "no line    100.0 % of kernel time: named in a way that no rule knows" in repr(changed)
    assert changed.heat() == {}


def test_pytorch_is_timed_over_its_calm_runs_too(folds):
    laps = ({"mean": 9e-4}, {"mean": 1e-4}, {"mean": 8e-4})
    spots = by_text(replace(made_up(folds), laps=laps))
    assert spots["x = x.mean((2, 3))"].torch == 1e-4


def test_a_kernel_of_several_nodes_of_one_line_is_not_shared_out(folds):
    spots = made_up(folds)
    line = spots.lineage.line_of("node_mean")
    halves = (
        shares.Share("node_mean", "node_mean", line, 0.5),
        shares.Share("node_mean", "node_linear", line, 0.5),
    )
    one = replace(spots, shares={**spots.shares, "node_mean": tuple(halves)})
    assert not by_text(one)["x = x.mean((2, 3))"].fused


def test_heat_has_the_seconds_of_each_exported_node(folds):
    spots = made_up(folds)
    assert spots.heat() == dict.fromkeys([o.node for o in spots.lineage.origins], 1e-5)


def test_the_report_is_the_source_with_time_in_the_margin(folds):
    lap = {"conv2d": 3e-5, "batch_norm": 1e-5, "mean": 2e-5, "mul": 1e-6}
    rows = repr(made_up(folds, lap=lap)).splitlines()
    assert rows[0] == "folds.onnx: 50.0 us a run, 50.0 us of it in 5 kernels"
    assert rows[1].split() == [*hotspots._HEADER, "line", "source"]
    assert re.sub(r"us +\d+  ", "us  N  ", rows[5]) == (
        "7.50 us  7.50 us to 11.3 us   15.0 %*        1  name  30.0 us  N      x = self.conv(x)"
    )
    facts = rows[rows.index(next(row for row in rows if row.startswith("joined by"))) :]
    assert facts[:2] == ["joined by  name 100.0 %", "no line      0.0 % of kernel time"]
    assert facts[2].startswith("*          shared with other lines")
    assert "whole      kernels are 100.0 % of a run without the profiler" in facts
    at = facts.index("profiler   adds   0.0 % to a run;     0 s are taken off each")
    assert facts[at + 1] == "           kernel (uncorrected: 100.0 %)"
    assert facts[-1] == (
        "doubt      runs differ: quartiles of a run are  50.0 % apart; quieten the machine, repeat"
    )


def test_a_profiler_that_counts_mostly_itself_is_a_doubt(folds):
    spots = made_up(folds)
    doubt = "most of what was counted is the profiler's own: trust the order, not the digits"
    assert doubt not in repr(spots)
    dear = replace(spots, recording=replace(spots.recording, cost=Cost(inside=1.1e-5)))
    assert f"doubt      {doubt}" in repr(dear)
    assert dear.counted == pytest.approx(2.1)
    assert dear.covered == 1.0


def test_kernels_that_exceed_a_run_are_a_doubt(folds):
    spots = made_up(folds)
    doubt = "doubt      runs differ: with the profiler they took longer than it explains; repeat"
    assert doubt not in repr(spots)
    assert doubt in repr(replace(spots, plain=(4e-5,) * 3))


def test_columns_are_as_wide_whatever_the_numbers(folds):
    quick = made_up(folds)
    kernels_ = tuple(
        replace(kernel, seconds=tuple(1234.5 * s for s in kernel.seconds))
        for kernel in quick.recording.kernels
    )
    slow = replace(quick, recording=replace(quick.recording, kernels=kernels_))
    rows = [repr(spots).splitlines()[1:12] for spots in (quick, slow)]
    assert list(map(len, rows[0])) == list(map(len, rows[1]))
    assert rows[0] != rows[1]


def test_the_plot_shows_both_runtimes_for_each_line_most_saved_first(folds):
    lap = {"conv2d": 8e-4, "mean": 5e-4, "mul": 1e-7}
    ax = made_up(folds, lap=lap).plot()
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert "x = self.conv(x)" in labels[0]
    assert "x = x.mean((2, 3))" in labels[1]
    assert "return left * right" in labels[-1]
    drawn = {}
    for line in ax.lines:
        drawn.setdefault(line.get_label(), []).extend(line.get_xdata())
    assert drawn["PyTorch"][:2] == [8e-4, 5e-4]
    assert drawn["ONNX Runtime"][1] == 1e-5
    assert "most saved at models.py:" in ax.get_title(loc="left")
    pyplot.close("all")


# Real runs


def profiled(model, folder, *inputs, **options):
    return ow.profile(ow.export(model.eval(), inputs, folder / "m.onnx"), inputs, **options)


def test_a_line_that_is_slow_on_purpose_comes_out_on_top(tmp_path):
    spots = profiled(Uneven(), tmp_path, torch.randn(64, 512), seconds=0.1)
    assert spots.hottest.line.text == "x = (x @ self.weight) @ self.weight"
    assert spots.unattributed == 0


def test_branches_of_the_same_cost_get_the_same_kernels_each_to_its_own_line(tmp_path):
    spots = by_text(profiled(Twins(), tmp_path, torch.randn(8, 256), seconds=0.1))
    left = spots["left = torch.erf(self.a(x))"]
    right = spots["right = torch.erf(self.b(x))"]
    assert (len(left.kernels), left.rules) == (len(right.kernels), right.rules)
    assert not set(left.kernels) & set(right.kernels)
    assert 0.3 < left.seconds / right.seconds < 3


def test_an_operator_on_a_known_line_goes_to_no_other(tmp_path):
    class Known(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x):
            x = torch.relu(x)
            y = self.conv(x)
            y = y + x
            y = torch.nn.functional.gelu(y)
            return y.softmax(-1)

    spots = profiled(Known(), tmp_path, torch.randn(1, 8, 16, 16), seconds=0.1)
    lines = {
        operator: {
            part.line.text
            for kernel in spots.recording.kernels
            if kernel.operator == operator
            for part in spots.shares[kernel.name]
        }
        for operator in ("Softmax", "Gelu", "Conv")
    }
    assert lines["Softmax"] == {"return y.softmax(-1)"}
    assert lines["Gelu"] == {"y = torch.nn.functional.gelu(y)"}
    assert lines["Conv"] <= {"y = self.conv(x)", "y = y + x"}
    assert "y = self.conv(x)" in lines["Conv"]


@pytest.mark.parametrize("level", ["off", "basic", "extended", "all"])
def test_every_kernel_has_a_line_at_every_level(tmp_path, level):
    spots = profiled(Scores(), tmp_path, torch.randn(2, 1, 8, 8), level=level, seconds=0.05)
    assert spots.unattributed == 0
    assert spots.rules["unattributed"] == 0
    assert spots.level == level
    if level == "off":
        assert spots.rules["name"] == 1


def test_the_share_of_every_kernel_is_given_out_once(tmp_path):
    spots = profiled(Scores(), tmp_path, torch.randn(2, 1, 8, 8), seconds=0.05)
    for parts in spots.shares.values():
        assert sum(part.fraction for part in parts) == pytest.approx(1)


def test_other_sizes_than_those_of_the_export_can_be_profiled(tmp_path):
    dynamic = {"images": {0: "batch"}}
    graph = ow.capture(Scores().eval(), torch.randn(2, 1, 8, 8), dynamic_shapes=dynamic)
    artifact = ow.export(graph, f=tmp_path / "m.onnx")
    spots = ow.profile(artifact, torch.randn(5, 1, 8, 8), seconds=0.05)
    assert spots.unattributed == 0
    assert len(spots.laps) == len(spots.plain) > 0


def test_keyword_arguments_are_profiled_as_the_model_takes_them(tmp_path):
    call = (torch.randn(2, 1, 8, 8),), {"mask": torch.zeros(2, 10)}
    artifact = ow.export(Scores().eval(), call[0], tmp_path / "m.onnx", kwargs=call[1])
    spots = ow.profile(artifact, call[0], call[1], seconds=0.01)
    assert spots.unattributed == 0
    assert "logits = logits + mask" in by_text(spots)


def test_a_model_that_does_next_to_nothing_has_a_report(tmp_path):
    spots = profiled(torch.nn.ReLU(), tmp_path, torch.ones(1), seconds=0.01)
    idle = replace(spots, recording=spots.recording.less(Cost(inside=1.0)))
    assert (idle.total, idle.covered, idle.unattributed) == (0, 0, 0)
    assert "joined by" in repr(idle)


def test_a_bare_file_is_reported_by_node_and_says_why(tmp_path):
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[512, 512] x) => (float[512, 512] y) '
        "{ h = MatMul(x, x) y = Sin(h) }"
    )
    onnx.save(model, tmp_path / "bare.onnx")
    spots = ow.profile(ow.load(tmp_path / "bare.onnx"), torch.ones(512, 512), seconds=0.05)
    assert (spots.hottest.line, spots.hottest.name, spots.hottest.torch) == (None, "h", None)
    assert spots.unattributed == 1.0
    assert (
        "no line    100.0 % of kernel time: the file has no torch metadata: made by another tool, "
        "or with dynamo=False" in repr(spots)
    )
    assert spots.plot().get_title(loc="left") == "h takes the longest in ONNX Runtime"
    pyplot.close("all")


FUNCTIONS = (
    '<ir_version: 10, opset_import: ["": 20, "mine": 1]> g (float[128, 128] x) '
    "=> (float[128, 128] z) { [call] y = mine.twice(x) [mid] w = Relu(y) [again] v = mine.twice(w) "
    "[end] u = mine.outer(v) [swish] t = HardSwish(u) [last] z = Sin(t) } "
    '<domain: "mine", opset_import: ["": 20]> twice (a) => (b) '
    "{ [once] h = Sin(a) [two] k = Abs(h) b = MatMul(k, k) } "
    '<domain: "mine", opset_import: ["": 20, "mine": 1]> outer (a) => (b) '
    "{ [in] h = mine.twice(a) [out] b = Cos(h) }"
)


@pytest.mark.parametrize("level", ["basic", "all"])
def test_every_call_of_a_function_gets_the_kernels_that_it_was_inlined_as(tmp_path, level):
    onnx.save(parser.parse_model(FUNCTIONS), tmp_path / "f.onnx")
    artifact = ow.load(tmp_path / "f.onnx")
    spots = ow.profile(artifact, torch.ones(128, 128), level=level, seconds=0.01)
    ran = {}
    for ran_by in spots.recording.kernels:
        for node in spots.matches[ran_by.name].nodes:
            ran.setdefault(node, []).append(ran_by.operator)
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
def test_a_body_and_its_owner_are_told_apart_and_every_turn_is_counted(tmp_path, operator):
    text, expected = SUBGRAPHS[operator]
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {text}')
    onnx.save(model, tmp_path / "s.onnx")
    artifact = ow.load(tmp_path / "s.onnx")
    inputs = [torch.ones([int(d) for d in value.shape]) for value in artifact.inputs]
    spots = ow.profile(artifact, tuple(inputs), level="basic", seconds=0.01)
    ran = {k.name: (k.calls, k.inner) for k in spots.recording.kernels if k.name in expected}
    assert ran == expected
    assert {spots.matches[name] for name in expected} == {
        join.Match(join.NAME, (name,)) for name in expected
    }


def test_weights_in_a_file_of_their_own_are_found_from_the_temporary_folder(tmp_path):
    text = (
        '<ir_version: 10, opset_import: ["": 20]> g (float[64] x) => (float[64] z) '
        "<float[64] w> { y = Add(x, w)  z = Sin(y) }"
    )
    model = parser.parse_model(text)
    del model.graph.initializer[:]
    weight = onnx.numpy_helper.from_array(np.arange(64, dtype=np.float32), "w")
    model.graph.initializer.append(weight)
    onnx.save(
        *(model, tmp_path / "w.onnx"),
        save_as_external_data=True,
        location="w.bin",
        size_threshold=0,
    )
    spots = ow.profile(ow.load(tmp_path / "w.onnx"), torch.zeros(64), seconds=0.05)
    assert {spot.name for spot in spots.spots} == {"y", "z"}


def test_nothing_is_left_on_disk_nor_after_an_error_nor_an_interrupt(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    artifact = ow.export(Uneven().eval(), torch.ones(4, 512), tmp_path / "m.onnx")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())

    def stop(error):
        def stopped(*_):
            assert any(folder.iterdir())  # the profile is being written
            raise error

        return stopped

    ow.profile(artifact, torch.ones(4, 512), seconds=0.01)
    for error in (KeyboardInterrupt(), RunError("no")):
        monkeypatch.setattr(kernels, "enough", stop(error))
        with pytest.raises(type(error)):
            ow.profile(artifact, torch.ones(4, 512))
    assert list(folder.iterdir()) == []
    assert sorted(tmp_path.iterdir()) == before


def test_torchs_threads_are_put_back(tmp_path):
    before = torch.get_num_threads()
    profiled(Uneven(), tmp_path, torch.ones(4, 512), seconds=0.01, threads=2)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"level": "max"},
            "`level` is 'max', and it takes one of 'off', 'basic', 'extended', 'all': how far "
            "ONNX Runtime may optimize the graph before it runs.",
        ),
        ({"threads": 0}, "threads is 0; it must be a whole number of 1 or more."),
        ({"threads": True}, "threads is True; it must be a whole number of 1 or more."),
    ],
)
def test_what_cannot_be_profiled_is_told(folds, options, sentence):
    with pytest.raises(InputError) as error:
        ow.profile(folds, torch.ones(1, 3, 8, 8), **options)
    assert str(error.value) == sentence


# Quantized files


class Quantizable(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = torch.nn.Conv1d(4, 8, 3), torch.nn.Linear(14, 5)

    def forward(self, x):
        x = self.conv(x)  # conv
        x = torch.relu(x)
        x = self.head(x)  # head
        return torch.relu(x)


class Examples(CalibrationDataReader):
    def __init__(self, name, x):
        self.left = [{name: x.numpy()}] * 2

    def get_next(self):
        return self.left.pop() if self.left else None


QUANTIZED = {
    "dynamic": lambda old, new, _: quantize_dynamic(old, new),
    "operators": lambda old, new, reader: quantize_static(
        old, new, reader, quant_format=QuantFormat.QOperator
    ),
    "pairs": lambda old, new, reader: quantize_static(
        old, new, reader, quant_format=QuantFormat.QDQ
    ),
}


@pytest.mark.parametrize("way", QUANTIZED)
def test_the_time_of_a_quantized_layer_is_on_its_own_line(way, tmp_path):
    x = torch.randn(2, 4, 16)
    artifact = ow.export(Quantizable().eval(), x, tmp_path / "float.onnx")
    file = tmp_path / "int8.onnx"
    QUANTIZED[way](artifact.path, file, Examples(artifact.inputs[0].name, x))
    spots = ow.profile(ow.load(file), x, seconds=0.05)
    heavy = re.compile(r"ConvInteger|QLinearConv|MatMulInteger|DynamicQuantizeMatMul|QLinearMatMul")
    found = {
        kernel.operator: {share.line.text for share in spots.shares[kernel.name]}
        for kernel in spots.recording.kernels
        if heavy.search(kernel.operator)
    }
    convolves = {op for op in found if "Conv" in op}
    assert {frozenset(found[op]) for op in convolves} == {frozenset({"x = self.conv(x)  # conv"})}
    others = {op: lines for op, lines in found.items() if op not in convolves}
    assert others
    assert all(lines == {"x = self.head(x)  # head"} for lines in others.values())
    assert spots.unattributed == 0


class Attends(Quantizable):
    def forward(self, x):
        x = self.conv(torch.sigmoid(x))  # conv
        x = self.head(x)  # linear
        return (x[:, 1:] + 0).softmax(-1)  # softmax


@pytest.mark.parametrize("way", QUANTIZED)
def test_a_quantized_layer_that_lost_its_metadata_is_on_no_line_and_never_a_neighbours(
    way, tmp_path
):
    x, files = torch.randn(2, 4, 16), [tmp_path / f"{name}.onnx" for name in ("float", "int8")]
    torch.onnx.export(Attends().eval(), (x,), files[0], dynamo=True, verbose=False)
    QUANTIZED[way](*files, Examples("x", x))
    lineage = ow.trace(ow.load(files[1]))
    layers = {}
    for origin in lineage.origins:
        if found := re.match(r"node_(conv|linear|softmax)", origin.node):
            mark = origin.line and origin.line.text.rpartition("# ")[2]
            layers.setdefault(found[1], set()).add(mark)
    assert set(layers) == {"conv", "linear", "softmax"}
    assert all(marks <= {None, layer} for layer, marks in layers.items()), layers
    lost = {origin.why for origin in lineage.without if origin.node.endswith("_quant")}
    assert bool(lost) == (way != "pairs")
    assert all("quantizer" in why for why in lost)
