"""verify(values=True): the first value that is wrong, where the fault was planted."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from models import module, parsed
from onnxscript import opset20 as op
from torch import nn
from torch.nn import functional as F

import onnx_workbench as ow
from onnx_workbench import causes, divergence, ort
from onnx_workbench.comparison import TOLERANCES
from onnx_workbench.errors import ExportError, InputError, RunError
from onnx_workbench.files import Stamp
from onnx_workbench.runs.intermediates import Intermediates

aten = torch.ops.aten
X = torch.linspace(-2, 2, 24).reshape(4, 6)
QUICK = {"opsets", "size", "latency", "hot lines"}
"""Stages of the audit that say nothing of numbers."""


def of(function):
    return module(lambda self, *args: function(*args))


def chain(x):
    x = torch.relu(x)
    x = torch.sin(x)  # sin
    x = torch.exp(3 * x)
    return x * 100


def residual():
    def forward(self, x):
        y = torch.tanh(self.fc(x))
        z = torch.sin(y)  # sin
        return y + x, z + y

    torch.manual_seed(0)
    return module(forward, fc=nn.Linear(6, 6))


def branch(x):
    y = torch.cond(x.sum() > -1e9, torch.sin, torch.cos, (x,))  # sin
    return y + 1


def half(x):
    """bfloat16 inside: a model that is all bfloat16 finds no kernel on a CPU."""
    return x.bfloat16().reshape(6, 4).T.float()  # view


def whole(x):
    index = x.argmax(-1)  # argmax
    return index * 2 + 1


def spread(x):
    """A variance that is small beside the mean: rounding that grows."""
    return ((x * x).mean(-1) - x.mean(-1) ** 2).abs().sqrt()


def ties(x):
    """Values agree, and the order of those that are equal does not."""
    values, where = (x * 2).topk(2, dim=1)  # tie
    return values + 1, where


def masked(q, mask):
    return F.scaled_dot_product_attention(q, q, q, attn_mask=mask)  # masked


def shifted(x):
    y = x + 1
    z = y >> 1  # shift
    return z.reshape(2, 2)


def draws(x):
    one = torch.rand_like(x)  # rand_like
    two = torch.randn(x.shape)  # randn
    three = torch.bernoulli(torch.sigmoid(x))  # bernoulli
    return one + two + three


WRONG = {aten.sin.default: lambda x: op.Mul(op.Sin(x), op.CastLike(1.01, x))}


def last_index(x, dim=None, keepdim=False):
    if dim is None:
        return op.ArgMax(op.Reshape(x, [-1]), keepdims=0, select_last_index=1)
    return op.ArgMax(x, axis=1, keepdims=0, select_last_index=1)


WRONG_ARGMAX = {aten.argmax.default: last_index}
WHOLE = torch.tensor([-8, -7, -6, 4, 5]), torch.tensor([3, 3, 4, 3, 4])
TIED = torch.zeros(2, 40)
TIED[:, 7:30] = 3.0
LOWEST = torch.finfo(torch.float32).min
UINT8 = torch.tensor([200, 7, 9, 251], dtype=torch.uint8)
NEAR = torch.rand(4, 1000, generator=torch.Generator().manual_seed(0)) * 0.01 + 100


def masks(dtype):
    mask = torch.ones(4, 4) > 0 if dtype is torch.bool else torch.zeros(4, 4)
    mask[2] = False if dtype is torch.bool else -torch.inf
    return torch.randn(1, 2, 4, 8), mask


def diverged(model, args=X, **options):
    model = model if isinstance(model, nn.Module) else of(model)
    return ow.verify(model, ow.export(model, args, **options), args, values=True)


OTHER = "different numbers"


def turned(x, shape):
    return op.Reshape(op.Cast(op.Mul(op.Cast(x, to=1), 1.1), to=16), shape)


def next_index(x, dim=None, keepdim=False):
    return op.Mod(op.Add(op.ArgMax(x, axis=1, keepdims=0), 1), 6)


@pytest.mark.parametrize(
    ("model", "args", "wrong", "fx", "why"),
    [
        (chain, X, WRONG, "sin", OTHER),
        (residual(), X, WRONG, "sin", OTHER),
        (residual().double(), X.double(), WRONG, "sin", OTHER),
        (branch, X, WRONG, "getitem", OTHER),
        (half, X, {aten.view.default: turned}, "view", OTHER),
        (whole, X, {aten.argmax.default: next_index}, "argmax", OTHER),
        (lambda x: x.argmax(1), torch.ones(3, 4), WRONG_ARGMAX, "argmax", "tie"),
        (lambda x: x.argmax(), torch.ones(3, 4), WRONG_ARGMAX, "argmax", "tie"),
        (lambda x: x.argmax(), torch.ones(3, 4).T, WRONG_ARGMAX, "argmax", "tie"),
        (ties, TIED, None, "getitem", "tie"),
        (masked, masks(torch.bool), None, "", "masked"),
        (masked, masks(torch.float32), None, "", "masked"),
        (
            *(lambda x: x.sqrt() + 1, X),
            {aten.sqrt.default: lambda x: op.Sqrt(op.Max(x, op.CastLike(0.0, x)))},
            *("sqrt", "NaN or infinity"),
        ),
        (
            *(lambda x, y: torch.floor_divide(x + 1, y) + 1, WHOLE),
            {aten.floor_divide.default: lambda x, y: op.Div(x, y)},
            *("floor_divide", "negative"),
        ),
        (
            *(lambda x, y: torch.remainder(x + 1, y) + 1, WHOLE),
            {aten.remainder.Tensor: lambda x, y: op.Mod(x, y, fmod=1)},
            *("remainder", "negative"),
        ),
        (
            *(lambda x, y: torch.round((x + 1) / 2) + y, WHOLE),
            {aten.round.default: lambda x: op.Floor(op.Add(x, op.CastLike(0.5, x)))},
            *("round", "halves"),
        ),
        (
            *(lambda x: torch.floor(x / 2), torch.arange(-7.0, 7.0)),
            {aten.floor.default: lambda x: op.Cast(op.Cast(x, to=7), to=1)},
            *("floor", "negative"),
        ),
        (
            *(lambda x, mask: x + mask, (torch.randn(2), torch.tensor([0.0, LOWEST]))),
            {aten.add.Tensor: lambda x, y, alpha=1: op.Add(op.Mul(x, op.CastLike(2.0, x)), y)},
            *("add", "compute different numbers"),
        ),
        (shifted, UINT8, None, "rshift", "uint8[4] and the file returns int8[4]"),
    ],
)
def test_the_first_wrong_value_is_named_with_its_line_and_cause(model, args, wrong, fx, why):
    found = diverged(model, args, custom_translation_table=wrong)
    assert not found
    assert found.first.fx.startswith(fx)
    assert why in found.first.reason
    assert found.first.repair in repr(found.first)
    assert found.first.jump
    assert found.first in found.blamed
    assert repr(found).count("DIFFERENT") == 1
    assert repr(found).startswith(f"DIFFERENT: first at {found.first.line.place}, ")
    *_, mark = found.first.line.text.partition("  # ")
    assert not mark or mark in f"{fx} {why} sin shift"


def test_the_first_wrong_value_is_not_the_largest_and_those_that_follow_are_not_blamed():
    found = diverged(chain, X * 0.3, custom_translation_table=WRONG)
    assert found.blamed == (found.first,)
    assert found.rounding == ()
    assert found.largest is not found.first
    later = next(step for step in found.steps if step.fx == "exp")
    assert (later.wrong, later.blamed, later.jump) == (True, False, False)
    assert found.first.inherited < 1e-5 < later.inherited
    ax = found.plot()
    assert ax.get_title(loc="left").startswith("DIFFERENT: first at test_divergence.py:")
    assert len(ax.lines[0].get_ydata()) == len(found.steps)
    assert found.first.line.place in [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_a_sound_model_agrees_value_by_value_in_the_tolerance_of_its_dtype(dtype):
    inside = dtype is torch.bfloat16
    found = diverged(half if inside else residual().to(dtype), X if inside else X.to(dtype))
    assert found
    assert found.first is None
    assert repr(found).startswith("AGREE: ")
    name = str(dtype).removeprefix("torch.")
    bounds = {step.bounds for step in found.steps if step.value.startswith(name)}
    assert bounds == {TOLERANCES[dtype]}


def several(self, x):
    """Operators that make several values: some are made one by one, some are never used."""
    a, b = x.split([2, 4], -1)
    c, d = torch.chunk(a, 2, -1)
    top, where = x.topk(2)
    rows, _ = self.rows(x)
    return b, c * d, top, where, rows


def test_each_value_of_an_operator_that_makes_several_is_compared():
    found = diverged(module(several, rows=nn.LSTM(6, 5, batch_first=True)))
    assert found
    named = {step.name for step in found.steps}
    assert {"split_split_0", "split_split_1"} <= named, found.not_comparable
    assert {step.operator for step in found.steps} >= {"Split", "TopK", "Mul"}
    assert not any(
        name.startswith("getitem") for name in found.not_comparable.get(divergence.GONE, ())
    )


def test_what_has_no_counterpart_is_counted_by_reason():
    found = diverged(branch)
    assert set(found.not_comparable) >= {divergence.BODY}
    assert f"{len(found.steps)} values compared, " in repr(found)
    assert divergence.BODY in repr(found)


def test_a_weight_that_is_another_in_the_file_is_named(tmp_path):
    model = residual()
    file = ow.export(model, X, tmp_path / "m.onnx")
    proto = onnx.load(file.path)
    bias = next(t for t in proto.graph.initializer if t.name == "fc.bias")
    other = onnx.numpy_helper.to_array(bias) + np.float32(0.5)
    bias.CopyFrom(onnx.numpy_helper.from_array(other, "fc.bias"))
    onnx.save(proto, file.path)
    file = replace(file, stamp=Stamp.of([file.path]))  # else it is told that the file has changed
    first = ow.verify(model, file, X, values=True).first
    assert (first.weights, first.module) == (("fc.bias",), "fc")
    assert "its fc.bias in the file differs from the model's" in repr(first)


def test_chunks_give_what_one_pass_gives_and_compute_each_node_once(monkeypatch):
    model = residual()
    file = ow.export(model, X, custom_translation_table=WRONG)
    once = ow.verify(model, file, X, values=True)
    for chunk in (0, 100):
        monkeypatch.setattr(divergence, "CHUNK", chunk)
        assert ow.verify(model, file, X, values=True).steps == once.steps


def test_the_values_of_a_file_are_freed_before_its_wrong_nodes_are_computed_again(monkeypatch):
    made, held = [], []
    run, recomputed = Intermediates.run, Intermediates.recomputed

    def running(self, *args, **options):
        values = run(self, *args, **options)
        made.extend(map(weakref.ref, values.values()))
        return values

    def recomputing(self, given):
        held.append(sum(value() is not None for value in made))
        return recomputed(self, given)

    monkeypatch.setattr(Intermediates, "run", running)
    monkeypatch.setattr(Intermediates, "recomputed", recomputing)
    diverged(chain, custom_translation_table=WRONG)
    assert made
    assert held == [0]


@pytest.fixture
def asked(monkeypatch):
    """The values that are computed again."""
    names, recomputed = [], Intermediates.recomputed

    def recomputing(self, given):
        names.extend(given)
        return recomputed(self, given)

    monkeypatch.setattr(Intermediates, "recomputed", recomputing)
    return names


def test_nothing_after_a_value_of_another_shape_is_computed_again(asked):
    table = {aten.exp.default: lambda x: op.Unsqueeze(op.Exp(x), [0])}
    found = diverged(lambda x: x.exp().sin().cos(), custom_translation_table=table)
    assert asked == [found.first.fx] == ["exp"]
    assert [step.wrong for step in found.steps] == [True] * 3


def test_few_large_values_are_computed_again_at_a_time(asked, monkeypatch):
    monkeypatch.setattr(divergence, "CHUNK", 10 * X.nbytes)
    diverged(lambda x: x.sin().cos().exp().neg(), custom_translation_table=WRONG)
    assert asked == ["sin"]


def test_intermediates_are_computed_once_along_the_graph_and_again_on_demand(monkeypatch):
    nodes = """a = Neg(x)  b = Exp(a)  c = Add(b, x)  d = Relu(c)  z = Cast <to = 9> (one)
    e = If(z) <then_branch = t () => (float[2] u) { s = Add(d, b)  u = Neg(s) },
               else_branch = f () => (float[2] u) { u = Cos(d) }>"""
    text = f"(float[2] x) => (float[2] e) <float one = {{1}}> {{ {nodes} }}"
    ran, opened = [], onnxruntime.InferenceSession

    def session(data, *args, **options):
        ran.append([node.output[0] for node in onnx.ModelProto.FromString(data).graph.node])
        return opened(data, *args, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    values = Intermediates(Path("g.onnx"), parsed(text), ort.CPU, {"x": np.float32([1, -2])})
    made = [values.run([name])[name] for name in "bde"]
    assert ran == [["a", "b"], ["c", "d"], ["z", "e"]]
    b = torch.exp(torch.tensor([-1.0, 2.0]))
    torch.testing.assert_close(made[2], -torch.relu(b + torch.tensor([1.0, -2.0])) - b)
    assert values.run(["a"])["a"].tolist() == [-1.0, 2.0]
    two = torch.full((2,), 2.0)
    alone = values.recomputed({"b": {"a": 0 * two}, "d": {"b": two}, "e": {"d": two, "b": two}})
    assert {name: value.tolist() for name, value in alone.items()} == {
        "b": [1.0, 1.0],
        "d": [3.0, 0.0],
        "e": [-4.0, -4.0],
    }
    assert len(ran[4:]) == 1, "one session for all"


def test_a_node_that_onnx_runtime_refuses_to_compute_alone_hides_no_other_cause(monkeypatch):
    def picky(self, given, recomputed=Intermediates.recomputed):
        if "abs_1" in given:
            raise RunError("refused")
        return recomputed(self, given)

    monkeypatch.setattr(Intermediates, "recomputed", picky)
    found = diverged(spread, NEAR)
    assert [step.fx for step in found.rounding] == ["sub"]
    assert (found.first.fx, found.first.cause) == ("abs_1", causes.UNKNOWN)


def test_weights_in_a_file_of_their_own_are_found(tmp_path):
    model, x = nn.Linear(64, 64).eval(), torch.ones(2, 64)
    file = ow.export(model, x, tmp_path / "m.onnx", external_data=True)
    assert len(file.files) == 2
    assert ow.verify(model, file, x, values=True)


@pytest.mark.parametrize("public", [True, False])
def test_a_bfloat16_value_is_read_the_public_way_and_as_before_onnx_runtime_1_27(public):
    """Private API of ONNX Runtime: when the second fails, `_ortvalue.to_dlpack` has moved."""
    text = "(float[2] x) => (bfloat16[2] y) { y = Cast<to = 16>(x) }"
    session = onnxruntime.InferenceSession(parsed(text).SerializeToString())
    feeds = {"x": onnxruntime.OrtValue.ortvalue_from_numpy(np.float32([1.5, -2]))}
    [value] = session.run_with_ort_values(None, feeds)
    told = {"__dlpack__": value.__dlpack__} if public else {"_ortvalue": value._ortvalue}
    got = ort.tensor_view(SimpleNamespace(**told))
    assert (got.dtype, got.tolist()) == (torch.bfloat16, [1.5, -2.0])


# Verdicts


def test_outputs_that_differ_while_values_agree_accuse_the_capture():
    model = of(chain)
    found = ow.verify(lambda x: model(x) + 1, ow.export(model, X), X, values=True)
    assert not found
    assert found.first is None
    assert "the captured graph differs from the model" in " ".join(repr(found).split())


def test_a_fault_that_reaches_no_output_changes_no_verdict():
    found = diverged(lambda x: torch.sin(x) * 0 + x, custom_translation_table=WRONG)
    assert found
    assert found.first.fx == "sin"
    assert repr(found).startswith("AGREE: the outputs agree; values inside differ, first at ")


@pytest.mark.parametrize(("model", "table"), [(of(chain), WRONG), (of(whole), None)])
def test_verify_says_the_same_with_and_without_values(model, table):
    file = ow.export(model, X, custom_translation_table=table)
    one, other = ow.verify(model, file, X), ow.verify(model, file, X, values=True)
    assert bool(one) is bool(other)
    assert [leaf.reason for leaf in one.leaves] == [leaf.reason for leaf in other.outputs.leaves]


def cancels(x):
    """A small difference of large sums, and its logarithm."""
    return torch.log(x.sum(-1, keepdim=True).abs())


def cancelling():
    source = torch.Generator().manual_seed(0)
    half = torch.randn(3, 4096, generator=source) * 1e4
    mixed = half[:, torch.randperm(4096, generator=source)]
    return torch.cat([half + 1e-3, -mixed], -1)


@pytest.mark.parametrize(("model", "x"), [(of(cancels), cancelling()), (of(spread), NEAR)])
def test_rounding_that_grows_is_no_fault_and_says_so(model, x):
    file = ow.export(model, x)
    found = ow.verify(model, file, x, values=True)
    assert any(leaf.note for leaf in found.outputs.leaves), "both round otherwise"
    assert found, found
    assert found.first is None
    assert found.rounding
    assert "rounding" in repr(found)
    assert ow.verify(model, file, x)
    report = ow.audit(model, x, skip=QUICK | {"portability"})
    assert report, report
    assert any("as near to float64" in finding.sentence for finding in report.findings)


def test_a_fault_behind_rounding_is_still_a_fault():
    found = diverged(lambda x: torch.sin(spread(x)) + 1, NEAR, custom_translation_table=WRONG)
    assert found.rounding
    assert not found
    assert (found.first.fx, found.first.rounding) == ("sin", False)


def sloppy(x):
    """Exact in float64 alone."""
    return x.exp() if x.dtype == torch.float64 else x.exp() * (1 + 1e-5)


@pytest.mark.parametrize(("factor", "rounding"), [(1.0, True), (1 + 1e-4, False)])
def test_a_node_is_judged_by_its_value_in_float64(factor, rounding):
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    node = graph.call_function(sloppy, (x,))
    alone = (X.double().exp() * factor).float()
    cause = causes.of(node, {x: X}, {}.get, sloppy(X), alone, (1e-7, 1e-7))
    assert cause.rounding == rounding


# Random numbers


def from_generator(self, x):
    noise = torch.empty(6).normal_(generator=self.source)  # draw
    return x + noise


def reseeded(x):
    torch.manual_seed(7)
    return x * torch.bernoulli(torch.full((6,), 0.5))  # draw


def test_every_operator_that_draws_is_named_and_what_follows_is_not_judged():
    found = diverged(draws)
    assert not found
    assert found.first is None
    assert {
        name.split(".")[1]: line.text.partition("# ")[2] for name, line in found.random.items()
    } == {name: name for name in ("rand_like", "randn", "bernoulli")}
    assert "sigmoid" in {step.fx for step in found.steps}, "what does not follow is judged"
    assert any(name.startswith("add") for name in found.not_comparable[divergence.RANDOM])


@pytest.mark.parametrize("training", [True, False])
def test_dropout_that_was_left_on_is_random_and_in_eval_mode_it_is_not(training):
    found = diverged(lambda x: F.dropout(x.relu(), 0.5, training=training) * 2)
    assert bool(found) is not training
    assert [name.split(".")[1] for name in found.random] == ["native_dropout"] * training
    assert repr(found).startswith("RANDOM: aten.native_dropout" if training else "AGREE")


def test_numbers_from_a_generator_are_named_where_they_are_drawn():
    with pytest.raises(ExportError, match="draws random numbers") as caught:
        ow.export(module(from_generator, source=torch.Generator().manual_seed(3)), X)
    assert caught.value.line.text.endswith("# draw")
    assert "buffer" in caught.value.hint


@pytest.mark.parametrize(
    ("model", "x", "mark", "words", "repair"),
    [
        (reseeded, X, "# draw", ["draws random numbers"], "buffer"),
        (ties, TIED, "# tie", ["by up to", "ties"], "stable=True"),
        (lambda x: torch.fft.fft(x) * 2, X, "", ["real and imaginary"], "torch.view_as_real"),
    ],
)
def test_the_audit_states_size_cause_and_repair_of_wrong_numbers(model, x, mark, words, repair):
    report = ow.audit(of(model), x, skip=QUICK)
    found = next(finding for finding in report.faults if finding.stage == "numbers")
    assert found.line.text.endswith(mark)
    assert all(word in found.sentence for word in words)
    assert repair in found.repair


# Wrong calls


def behind(x):
    z = x >> 1  # shift
    return z.reshape(2, 2) + x.reshape(2, 2)


def test_another_dtype_that_keeps_the_file_from_loading_is_blamed_at_its_node():
    with pytest.raises(ExportError) as caught:
        ow.export(of(behind), UINT8)
    assert caught.value.line.text.endswith("# shift")


def test_what_has_no_graph_to_look_into_is_refused():
    model = of(chain)
    file = ow.export(model, X)
    for b in (ow.load(file.path), of(chain)):
        with pytest.raises(InputError, match=r"no captured graph|a Model as 'b'"):
            ow.verify(model, b, X, values=True)


@pytest.mark.parametrize(
    ("table", "options", "words"),
    [
        ([1], {}, "`custom_translation_table` is a list"),
        ({aten.relu: last_index}, {}, "Name the overload: torch.ops.aten.relu.default."),
        ({torch.relu: last_index}, {}, "Name the operator: torch.ops.aten.relu.default"),
        ({torch.add: last_index}, {}, "Name the operator: torch.ops.aten.add.Tensor"),
        ({nn.functional.cross_entropy: last_index}, {}, "as capture() shows it"),
        ({"relu": last_index}, {}, "takes one operator -> one function"),
        ({aten.relu.default: 3}, {}, "takes one operator -> one function"),
        (WRONG, {"dynamo": False}, "dynamo=False"),
    ],
)
def test_a_translation_that_does_not_fit_is_refused(table, options, words):
    with pytest.raises(InputError, match="custom_translation_table") as caught:
        ow.export(of(chain), X, custom_translation_table=table, **options)
    assert words in str(caught.value)
