"""The first value that is wrong, where the fault was planted and its line is known."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxscript import opset20 as op
from torch import nn

import onnx_workbench as ow
from onnx_workbench import causes, comparison, divergence, ort
from onnx_workbench.errors import ExportError, InputError
from onnx_workbench.files import Stamp

X = torch.linspace(-2, 2, 24).reshape(4, 6)


def wrong_sin(x):
    return op.Mul(op.Sin(x), op.CastLike(1.01, x))


WRONG = {torch.ops.aten.sin.default: wrong_sin}


class Chain(nn.Module):
    def forward(self, x):
        x = torch.relu(x)
        x = torch.sin(x)
        x = torch.exp(x)
        return x * 100


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(6, 6)

    def forward(self, x):
        y = torch.tanh(self.fc(x))
        z = torch.sin(y)
        return y + x, z + y


class Branch(nn.Module):
    def forward(self, x):
        y = torch.cond(x.sum() > -1e9, torch.sin, torch.cos, (x,))
        return y + 1


class Drop(nn.Module):
    def forward(self, x):
        y = nn.functional.dropout(torch.relu(x), 0.5, training=True)
        return y * 2


class Whole(nn.Module):
    def forward(self, x):
        index = x.argmax(-1)
        return index * 2 + 1


def line(module, text):
    lines, start = inspect.getsourcelines(module)
    return start + next(i for i, row in enumerate(lines) if text in row)


def diverged(model, folder, x=X, **options):
    file = ow.export(model.eval(), x, folder / "m.onnx", **options)
    return ow.verify(model, file, x, values=True)


@pytest.mark.parametrize("model", [Chain, Residual])
def test_a_wrong_translation_is_named_with_its_node_and_line(model, tmp_path):
    found = diverged(model(), tmp_path, custom_translation_table=WRONG)
    assert not found
    assert (found.first.fx, found.first.line.number) == ("sin", line(model, "torch.sin"))
    assert found.first.jump
    assert found.first.inherited < 1e-5
    assert found.blamed == (found.first,)


def test_the_largest_error_is_another_than_the_first(tmp_path):
    found = diverged(Chain(), tmp_path, x=X * 0.3, custom_translation_table=WRONG)
    assert found.first.fx == "sin"
    later = next(step for step in found.steps if step.fx == "exp")
    assert later.wrong
    assert not later.blamed
    assert not later.jump


def test_a_sound_model_agrees_value_by_value(tmp_path):
    found = diverged(Residual(), tmp_path)
    assert found
    assert found.first is None
    assert repr(found).startswith("AGREE: 5 values and the outputs within tolerance")


def test_a_fault_in_a_branch_is_seen_where_the_branch_ends(tmp_path):
    found = diverged(Branch(), tmp_path, custom_translation_table=WRONG)
    assert found.first.operator == "If"
    assert found.first.line.number == line(Branch, "torch.cond")
    assert found.apart[divergence.BODY]


def test_a_weight_that_is_another_in_the_file_is_named(tmp_path):
    model = Residual().eval()
    file = ow.export(model, X, tmp_path / "m.onnx")
    proto = onnx.load(file.path)
    bias = next(t for t in proto.graph.initializer if t.name == "fc.bias")
    wrong = onnx.numpy_helper.to_array(bias) + np.float32(0.5)
    bias.CopyFrom(onnx.numpy_helper.from_array(wrong, "fc.bias"))
    onnx.save(proto, file.path)
    file = replace(file, stamp=Stamp.of([file.path]))  # else it is told that the file has changed
    first = ow.verify(model, file, X, values=True).first
    assert first.weights == ("fc.bias",)
    assert first.module == "fc"
    assert "its fc.bias in the file is not the model's" in repr(first)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_each_dtype_has_its_tolerance(dtype, tmp_path):
    found = diverged(Residual().to(dtype), tmp_path, x=X.to(dtype))
    assert found
    assert {step.tolerance for step in found.steps} == {divergence.tolerance_of(dtype)[0]}
    assert not diverged(
        Residual().to(torch.float64), tmp_path, X.double(), custom_translation_table=WRONG
    )


class Brain(nn.Module):
    """bfloat16 inside: a model that is all bfloat16 finds no kernel on a CPU."""

    def forward(self, x):
        return x.bfloat16().reshape(6, 4).T.float()


def test_bfloat16_is_compared_in_its_own_tolerance(tmp_path):
    found = diverged(Brain(), tmp_path, x=X * 1.001)
    assert found
    brain = [step for step in found.steps if step.value.startswith("bfloat16")]
    assert [step.fx for step in brain] == ["_to_copy", "view", "permute"]
    assert {step.tolerance for step in brain} == {divergence.tolerance_of(torch.bfloat16)[0]}

    def doubled(x, shape):
        return op.Reshape(op.Cast(op.Mul(op.Cast(x, to=1), 1.1), to=16), shape)

    table = {torch.ops.aten.view.default: doubled}
    assert diverged(Brain(), tmp_path, custom_translation_table=table).first.fx == "view"


@pytest.mark.parametrize("public", [True, False])
def test_a_bfloat16_value_is_read_the_public_way_and_as_before_onnx_runtime_1_27(public):
    """Private API of ONNX Runtime: when the second fails, `_ortvalue.to_dlpack` has moved."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[2] x) => (bfloat16[2] y) '
        "{ y = Cast<to = 16>(x) }"
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feeds = {"x": onnxruntime.OrtValue.ortvalue_from_numpy(np.float32([1.5, -2]))}
    [value] = session.run_with_ort_values(None, feeds)
    told = {"__dlpack__": value.__dlpack__} if public else {"_ortvalue": value._ortvalue}
    got = ort.tensor_view(SimpleNamespace(**told))
    assert (got.dtype, got.tolist()) == (torch.bfloat16, [1.5, -2.0])


class Several(nn.Module):
    """Operators that make several values: some are made one by one, some are never used."""

    def __init__(self):
        super().__init__()
        self.rows = nn.LSTM(6, 5, batch_first=True)

    def forward(self, x):
        a, b = x.split([2, 4], -1)
        c, d = torch.chunk(a, 2, -1)
        top, where = x.topk(2)
        rows, _ = self.rows(x)
        return b, c * d, top, where, rows


def test_each_value_of_an_operator_that_makes_several_is_compared(tmp_path):
    found = diverged(Several(), tmp_path)
    assert found
    named = {step.name for step in found.steps}
    assert {"split_split_0", "split_split_1"} <= named, found.apart
    assert {step.operator for step in found.steps} >= {"Split", "TopK", "Mul"}
    assert not any(name.startswith("getitem") for name in found.apart.get(divergence.GONE, ()))


def test_every_operator_that_draws_is_named_with_its_line(tmp_path):
    found = diverged(Draws(), tmp_path)
    assert not found
    assert {name.split(".")[1] for name in found.random} == {"rand_like", "randn", "bernoulli"}
    assert {place.number for place in found.random.values()} == {
        line(Draws, name) for name in ("rand_like", "randn", "bernoulli")
    }
    assert "sigmoid" in {step.fx for step in found.steps}, "what does not follow is judged"


class Draws(nn.Module):
    def forward(self, x):
        one = torch.rand_like(x)
        two = torch.randn(x.shape)
        three = torch.bernoulli(torch.sigmoid(x))
        return one + two + three


def test_whole_numbers_must_be_equal(tmp_path):
    def shifted(x, dim=None, keepdim=False):
        return op.Mod(op.Add(op.ArgMax(x, axis=1, keepdims=0), 1), 6)

    table = {torch.ops.aten.argmax.default: shifted}
    found = diverged(Whole(), tmp_path, custom_translation_table=table)
    assert (found.first.fx, found.first.tolerance) == ("argmax", 0.0)


def test_dropout_that_was_left_on_is_named_and_what_follows_is_not_judged(tmp_path):
    torch.manual_seed(0)
    found = diverged(Drop(), tmp_path)
    assert found.first is None
    assert not found
    [(name, place)] = found.random.items()
    assert "dropout" in name
    assert place.number == line(Drop, "dropout")
    assert repr(found).startswith("RANDOM: aten.native_dropout.default (test_divergence.py:")
    assert "mul" in found.apart[divergence.RANDOM]


def test_dropout_in_eval_mode_is_not_random(tmp_path):
    found = diverged(nn.Sequential(nn.ReLU(), nn.Dropout(0.5)), tmp_path)
    assert found
    assert not found.random


def test_an_infinity_hides_no_error_and_a_large_value_is_compared_to_its_end():
    value = torch.full((3 * comparison._SLICE,), 2.0)
    value[0], value[1], value[2] = torch.inf, -torch.inf, torch.nan
    other = value.clone()
    assert not divergence._error(value, other, None).wrong
    other[-1] = 2.02
    found = divergence._error(value, other, None)
    assert found.wrong
    assert found.error == pytest.approx(0.02 / 2.2, rel=1e-3)
    other[-1], other[0] = 2.0, -torch.inf
    assert divergence._error(value, other, None).wrong


def test_along_the_graph_each_node_runs_once_and_an_earlier_value_can_still_be_asked_for():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[2] x) => (float[2] e) '
        "{ a = Neg(x)  b = Exp(a)  c = Add(b, x)  d = Relu(c)  e = Add(d, b) }"
    )
    ran = []

    class Watched(divergence.Exposed):
        def _session(self, part, names):
            ran.append([ref.name for ref in part])
            return super()._session(part, names)

    whole = Watched(Path("g.onnx"), model, ort.CPU, {"x": np.float32([1, -2])})
    made = [whole.run([name])[name] for name in "bde"]
    assert ran == [["a", "b"], ["c", "d"], ["e"]]
    b = torch.exp(torch.tensor([-1.0, 2.0]))
    torch.testing.assert_close(made[2], torch.relu(b + torch.tensor([1.0, -2.0])) + b)
    assert whole.run(["a"])["a"].tolist() == [-1.0, 2.0]
    assert whole._there == whole._feeds, "nothing reads what was made"


def test_a_value_of_another_shape_is_not_compared(tmp_path):
    assert divergence._error(torch.ones(2, 3), torch.ones(1, 3), None) is None
    assert divergence._error(torch.ones(2), torch.ones(2).double(), None) is None


@pytest.mark.parametrize("chunk", [0, 100])
def test_chunks_give_what_one_pass_gives(chunk, tmp_path, monkeypatch):
    file = ow.export(Residual().eval(), X, tmp_path / "m.onnx", custom_translation_table=WRONG)
    whole = ow.verify(Residual().eval(), file, X, values=True)
    opened = []
    run = divergence.Exposed.run
    monkeypatch.setattr(divergence.Exposed, "run", lambda self, n: opened.append(n) or run(self, n))
    monkeypatch.setattr(divergence, "CHUNK", chunk)
    assert ow.verify(Residual().eval(), file, X, values=True).steps == whole.steps
    assert len(opened) > 1
    assert sum(map(len, opened)) == len(whole.steps)


def test_weights_in_a_file_of_their_own_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr("onnx_workbench.artifact.ONE_FILE_LIMIT", 0)
    model = nn.Linear(64, 64).eval()
    x = torch.ones(2, 64)
    file = ow.export(model, x, tmp_path / "m.onnx")
    assert len(file.files) == 2
    assert ow.verify(model, file, x, values=True)


def test_outputs_that_differ_while_values_agree_accuse_the_capture(tmp_path):
    file = ow.export(Chain().eval(), X, tmp_path / "m.onnx")
    found = ow.verify(lambda x: Chain()(x) + 1, file, X, values=True)
    assert not found
    assert found.first is None
    assert "the captured graph is not the model" in repr(found)


def test_what_has_no_graph_says_why(tmp_path):
    ow.export(Chain().eval(), X, tmp_path / "m.onnx")
    with pytest.raises(InputError) as caught:
        ow.verify(Chain(), ow.load(tmp_path / "m.onnx"), X, values=True)
    assert str(caught.value) == (
        "m.onnx has no graph beside it to compare its values with: it was loaded from a file, or "
        "made with dynamo=False. Pass what export() returned, or leave values=True out and compare "
        "the outputs."
    )
    with pytest.raises(InputError) as caught:
        ow.verify(Chain(), Chain(), X, values=True)
    assert str(caught.value) == (
        "verify(values=True) was given a Chain as 'b', and it looks into an artifact. Pass what "
        "export() returned: verify(model, artifact, x, values=True)."
    )


def test_the_plot_shows_every_value_and_states_the_finding(tmp_path):
    found = diverged(Chain(), tmp_path, custom_translation_table=WRONG)
    ax = found.plot()
    assert ax.get_title(loc="left").startswith("DIFFERENT: first at test_divergence.py:")
    assert len(ax.lines[0].get_ydata()) == len(found.steps)
    assert found.first.line.place in [text.get_text() for text in ax.texts]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([1], "`custom_translation_table` is a list"),
        ({torch.ops.aten.relu: wrong_sin}, "Name the overload: torch.ops.aten.relu.default."),
        ({"relu": wrong_sin}, "Pass the operator itself"),
        ({torch.ops.aten.relu.default: 3}, "Pass an onnxscript function"),
    ],
)
def test_a_translation_that_does_not_fit_is_refused(table, words, tmp_path):
    with pytest.raises(InputError, match="custom_translation_table") as caught:
        ow.export(Chain().eval(), X, tmp_path / "m.onnx", custom_translation_table=table)
    assert words in str(caught.value)
    with pytest.raises(InputError, match="dynamo=False"):
        ow.export(
            Chain().eval(), X, tmp_path / "m.onnx", custom_translation_table=WRONG, dynamo=False
        )


# ---------------------------------------------------------------- causes


class Ties(nn.Module):
    """Values agree, and the order of those that are equal does not."""

    def forward(self, x):
        values, where = (x * 2).topk(2, dim=1)  # tie
        return values + 1, where


def test_ties_are_told_as_ties(tmp_path):
    x = torch.zeros(2, 40)
    x[:, 7:30] = 3.0
    first = diverged(Ties(), tmp_path, x=x).first
    assert first.line.text.endswith("# tie")
    assert first.reason.startswith("ties")
    assert "stable=True" in first.repair


@pytest.mark.parametrize("dim", [1, None])
def test_ties_of_argmax_are_told_where_a_translation_takes_the_last(dim, tmp_path):
    class Best(nn.Module):
        def forward(self, x):
            return x.argmax(dim)

    def last(x, dim=None, keepdim=False):
        if dim is None:
            return op.ArgMax(op.Reshape(x, [-1]), keepdims=0, select_last_index=1)
        return op.ArgMax(x, axis=1, keepdims=0, select_last_index=1)

    table = {torch.ops.aten.argmax.default: last}
    first = diverged(Best(), tmp_path, x=torch.ones(3, 4), custom_translation_table=table).first
    assert first.reason.startswith("ties")


class Masked(nn.Module):
    def forward(self, q, mask):
        return nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)  # masked


@pytest.mark.parametrize("mask", [torch.ones(4, 4) > 0, torch.zeros(4, 4)])
def test_a_row_that_is_masked_as_a_whole_is_told(mask, tmp_path):
    mask = mask.clone()
    mask[2] = False if mask.dtype == torch.bool else -torch.inf
    model, q = Masked().eval(), torch.randn(1, 2, 4, 8)
    file = ow.export(model, (q, mask), tmp_path / "m.onnx")
    first = ow.verify(model, file, (q, mask), values=True).first
    assert first.line.text.endswith("# masked")
    assert "masked" in first.reason
    assert first.repair


def test_nan_that_a_translation_loses_is_told(tmp_path):
    class Caps(nn.Module):
        def forward(self, x):
            return torch.sqrt(x) + 1

    def quiet(x):
        return op.Sqrt(op.Max(x, op.CastLike(0.0, x)))

    table = {torch.ops.aten.sqrt.default: quiet}
    first = diverged(Caps(), tmp_path, custom_translation_table=table).first
    assert (first.fx, first.reason.startswith("NaN or infinity")) == ("sqrt", True)


def toward_zero(x, y):
    return op.Div(x, y)


def by_sign(x, y):
    return op.Mod(x, y, fmod=1)


def half_up(x):
    return op.Floor(op.Add(x, op.CastLike(0.5, x)))


@pytest.mark.parametrize(
    ("function", "operator", "wrong", "words"),
    [
        (torch.floor_divide, torch.ops.aten.floor_divide.default, toward_zero, "negative"),
        (torch.remainder, torch.ops.aten.remainder.Tensor, by_sign, "negative"),
        (lambda x, _: torch.round(x / 2), torch.ops.aten.round.default, half_up, "halves"),
    ],
)
def test_division_remainder_and_rounding_are_told(function, operator, wrong, words, tmp_path):
    class Rounds(nn.Module):
        def forward(self, x, y):
            return function(x + 1, y) + 1

    model = Rounds().eval()
    given = torch.tensor([-8, -7, -6, 4, 5]), torch.tensor([3, 3, 4, 3, 4])
    file = ow.export(model, given, tmp_path / "m.onnx", custom_translation_table={operator: wrong})
    found = ow.verify(model, file, given, values=True)
    assert words in found.first.reason
    assert found.first.repair


class Shifted(nn.Module):
    def forward(self, x):
        y = x + 1
        z = y >> 1  # shift
        return z.reshape(2, 2)


class AddsBehind(Shifted):
    def forward(self, x):
        z = x >> 1  # shift
        return z.reshape(2, 2) + x.reshape(2, 2)


UINT8 = torch.tensor([200, 7, 9, 251], dtype=torch.uint8)


def test_another_dtype_that_keeps_the_file_from_loading_is_blamed_at_its_node(tmp_path):
    with pytest.raises(ExportError) as caught:
        ow.export(AddsBehind().eval(), UINT8, tmp_path / "m.onnx")
    assert caught.value.line.text.endswith("# shift")


def test_another_dtype_is_blamed_at_its_node_and_never_on_the_next_line(tmp_path):
    x = UINT8
    model = Shifted().eval()
    file = ow.export(model, x, tmp_path / "m.onnx")
    found = ow.verify(model, file, x, values=True)
    assert found.first.line.text.endswith("# shift")
    assert "uint8[4]" in found.first.reason
    assert "int8[4]" in found.first.reason
    assert ".to(torch.uint8)" in found.first.repair


# ---------------------------------------------------------------- rounding


class Cancels(nn.Module):
    """A small difference of large sums, and its logarithm."""

    def forward(self, x):
        y = x.sum(-1, keepdim=True)
        return torch.log(y.abs())


class Spread(nn.Module):
    """A variance that is small beside the mean."""

    def forward(self, x):
        return ((x * x).mean(-1) - x.mean(-1) ** 2).abs().sqrt()


def cancelling():
    source = torch.Generator().manual_seed(0)
    half = torch.randn(3, 4096, generator=source) * 1e4
    mixed = half[:, torch.randperm(4096, generator=source)]
    return torch.cat([half + 1e-3, -mixed], -1)


@pytest.mark.parametrize(
    ("model", "x"), [(Cancels(), cancelling()), (Spread(), torch.rand(4, 1000) * 0.01 + 100)]
)
def test_rounding_that_grows_is_no_fault_and_says_so(model, x, tmp_path):
    found = diverged(model, tmp_path, x=x)
    assert any(leaf.note for leaf in found.outputs.leaves), "both round otherwise"
    assert found, found
    assert found.first is None
    assert found.rounding
    assert "rounding" in repr(found)
    assert ow.verify(model, ow.export(model, x, tmp_path / "again.onnx"), x)
    report = ow.audit(model, x, skip={"opsets", "size", "latency", "hot lines"})
    assert report, report
    assert any("as near to float64" in finding.sentence for finding in report.findings)


def test_a_fault_behind_rounding_is_still_a_fault(tmp_path):
    class Both(Spread):
        def forward(self, x):
            return torch.sin(super().forward(x)) + 1

    found = diverged(
        Both(), tmp_path, x=torch.rand(4, 1000) * 0.01 + 100, custom_translation_table=WRONG
    )
    assert found.rounding
    assert not found
    assert (found.first.fx, found.first.rounding) == ("sin", False)


def test_a_step_is_no_rounding(tmp_path):
    class Floors(nn.Module):
        def forward(self, x):
            return torch.floor(x / 2)

    def trunc(x):
        return op.Cast(op.Cast(x, to=7), to=1)

    table = {torch.ops.aten.floor.default: trunc}
    found = diverged(Floors(), tmp_path, x=torch.arange(-7.0, 7.0), custom_translation_table=table)
    assert not found
    assert "negative" in found.first.reason


@pytest.mark.parametrize("translations", [None, WRONG])
@pytest.mark.parametrize("model", [Chain, Residual, Whole])
def test_verify_says_the_same_with_and_without_values(model, translations, tmp_path):
    model = model().eval()
    file = ow.export(model, X, tmp_path / "m.onnx", custom_translation_table=translations)
    one, other = ow.verify(model, file, X), ow.verify(model, file, X, values=True)
    assert bool(one) is bool(other)
    assert [leaf.reason for leaf in one.leaves] == [leaf.reason for leaf in other.outputs.leaves]


def test_a_fault_that_reaches_no_output_changes_no_verdict(tmp_path):
    class Hidden(nn.Module):
        def forward(self, x):
            return torch.sin(x) * 0 + x

    found = diverged(Hidden(), tmp_path, custom_translation_table=WRONG)
    assert found
    assert found.first.fx == "sin"
    assert repr(found).startswith("AGREE: the outputs; inside, first at ")


class FromGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        self.source = torch.Generator().manual_seed(3)

    def forward(self, x):
        noise = torch.empty(6).normal_(generator=self.source)  # draw
        return x + noise


class Reseeded(nn.Module):
    def forward(self, x):
        torch.manual_seed(7)
        return x * torch.bernoulli(torch.full((6,), 0.5))  # draw


def test_numbers_from_a_generator_are_named_where_they_are_drawn(tmp_path):
    with pytest.raises(ExportError, match="draws random numbers") as caught:
        ow.export(FromGenerator().eval(), X, tmp_path / "m.onnx")
    assert caught.value.line.text.endswith("# draw")
    assert "buffer" in caught.value.hint


def test_the_audit_of_a_model_with_a_seed_of_its_own_says_that_it_draws():
    report = ow.audit(Reseeded().eval(), X, skip={"opsets", "size", "latency", "hot lines"})
    (found,) = [finding for finding in report.faults if finding.stage == "numbers"]
    assert "draws random numbers" in found.sentence
    assert found.line.text.endswith("# draw")
    assert "buffer" in found.repair


def test_the_audit_states_size_cause_and_repair_of_wrong_numbers():
    x = torch.zeros(2, 40)
    x[:, 7:30] = 3.0
    report = ow.audit(Ties().eval(), x, skip={"opsets", "size", "latency", "hot lines"})
    (found,) = report.faults
    assert found.line.text.endswith("# tie")
    assert "by up to" in found.sentence
    assert "ties" in found.sentence
    assert "stable=True" in found.repair


class Spectrum(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x) * 2


def test_complex_outputs_are_real_pairs_in_the_file_and_the_optimizer_is_not_blamed():
    model, x = Spectrum().eval(), torch.randn(3, 4)
    found = ow.verify(model, ow.export(model, x), x, values=True)
    assert not found
    assert "real and imaginary parts" in repr(found).splitlines()[0]
    assert "optimizer" not in repr(found)
    fault = ow.audit(model, x, skip={"opsets", "latency", "hot lines"}).faults[0]
    assert "torch.view_as_real" in fault.repair


def sloppy(x):
    """Exact in float64 alone."""
    return x.exp() if x.dtype == torch.float64 else x.exp() * (1 + 1e-5)


@pytest.mark.parametrize(("factor", "rounding"), [(1.0, True), (1 + 1e-4, False)])
def test_a_node_is_judged_by_its_value_in_float64(factor, rounding):
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    node = graph.call_function(sloppy, (x,))
    alone = (X.double().exp() * factor).float()
    cause = causes.of_numbers(node, {x: X}, {}.get, sloppy(X), alone, (1e-7, 1e-7))
    assert cause.rounding == rounding
