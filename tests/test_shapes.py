"""Shapes promised against shapes kept: models that break their promise in a known way."""

import inspect
import re

import onnx
import pytest
import torch
import torch.nn.functional as F
from models import Branch, Cond, Table
from onnxscript import opset20 as op
from torch import nn
from torch.export import Dim

from onnx_workbench import audit, capture, export, load, observe, probe
from onnx_workbench.errors import CaptureError, InputError, TrainingModeWarning
from onnx_workbench.graph import guards
from onnx_workbench.torch_state import quiet

X = torch.ones(2, 16, 8) + torch.arange(16.0)[:, None]
ROWS = {"x": {0: "n"}}


class Loop(nn.Module):
    def forward(self, x):
        total = 0
        for row in range(x.shape[0]):
            total = total + x[row]
        return total


class Int(nn.Module):
    def forward(self, x):
        return x * int(x.shape[0])


class Counted(nn.Module):
    def forward(self, x):
        return sum(x[row] for row in range(len(x)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(3, 2)

    def forward(self, x):
        return self.rnn(x)[0]


class Decides(nn.Module):
    def forward(self, x):
        if x.shape[0] > 4:
            x = x * 2
        return x


class Limited(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.ones(32, 8))

    def forward(self, x):
        return x + self.table[: x.shape[1]]


class Pairs(nn.Module):
    def forward(self, x):
        return x.reshape(-1, 2, x.shape[-1]).sum(1)


class Sum(nn.Module):
    def forward(self, x, y):
        return x + y


class Cache(nn.Module):
    """One dimension is the sum of two others, as in a decoder with a cache."""

    def forward(self, x, past, mask):
        keys = torch.cat([past, x], 1)
        return x @ keys.transpose(1, 2) + mask[:, None, :]


class Nested(nn.Module):
    def forward(self, batch, scale=2, **rest):
        return batch["a"].float() * scale + batch["b"][0].sum()


class Looked(nn.Module):
    """Indices, and positions that are made from the length."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(5, 8)
        self.places = nn.Embedding(12, 8)

    def forward(self, ids):
        return self.words(ids) + self.places(torch.arange(ids.shape[1]))


class Bags(nn.Module):
    """``offsets`` says where in ``ids`` each bag begins, as in a recommendation model."""

    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 4, mode="sum")

    def forward(self, ids, offsets):
        return self.bag(ids, offsets)


class Picks(nn.Module):
    def forward(self, x, index):
        return x[index]


def only(found):
    (dimension,) = found.dimensions
    return dimension


def sizes(dimension, outcome):
    return sorted(trial.size for trial in dimension.trials if trial.outcome == outcome)


def verdicts(found):
    return [dimension.verdict for dimension in found.dimensions]


# ---------------------------------------------------------------- kept


@pytest.mark.parametrize("rows", [1, 5])
def test_a_true_dimension_is_kept_at_every_size_also_from_a_batch_of_one(rows):
    model, x = nn.Linear(8, 4).eval(), torch.rand(rows, 8)
    dimension = only(found := probe(model, x, dynamic_shapes={"input": {0: "batch"}}))
    assert found
    assert found.compared
    assert (dimension.verdict, dimension.promised, dimension.constraint) == (
        *("kept", "batch", "any size"),
    )
    assert {1, 2, 3, 7, 13, rows, rows + 1, 2 * rows} <= set(sizes(dimension, "agrees"))
    assert (dimension.line, dimension.repair, dimension.locals) == (None, "", {})


BOUNDED = Dim("n", min=5, max=16)


@pytest.mark.parametrize(
    ("model", "x", "axis", "label", "verdict", "agrees", "never"),
    [
        (Limited(), X, 1, "words", "kept within [1, 32]", {1, 32}, {33}),
        (Pairs(), torch.rand(6, 8), 0, "n", "kept", {2, 6, 12}, {1, 3, 5, 7}),
        (Decides(), torch.rand(6, 8), 0, BOUNDED, "kept within [5, 16]", {5, 16}, {1, 4, 17}),
        (Cond(), X, 0, "n", "kept", {1, 2, 13}, set()),
    ],
    ids=["bound of the model", "even sizes", "bounds of a Dim", "cond"],
)
def test_a_dimension_is_kept_where_the_model_answers(model, x, axis, label, verdict, agrees, never):
    dimension = only(found := probe(model.eval(), x, dynamic_shapes={"x": {axis: label}}))
    assert found
    assert dimension.verdict == verdict
    assert agrees <= set(sizes(dimension, "agrees"))
    assert not never & set(sizes(dimension, "agrees"))
    if label is BOUNDED:
        assert dimension.constraint == "5 to 16"
    if axis == 1:
        assert 33 in sizes(dimension, "the model refuses"), "the bound is found to the row"


@pytest.mark.parametrize(("high", "tried"), [(64, True), (4096, False)])
def test_a_high_bound_is_tried_only_where_the_example_is_not_far_below_it(high, tried):
    dynamic = {"input": {0: Dim("n", max=high)}}
    dimension = only(probe(nn.ReLU().eval(), torch.rand(3, 2), dynamic_shapes=dynamic))
    assert (high in sizes(dimension, "agrees")) is tried


@pytest.mark.parametrize("labels", [("n", "n"), (Dim.DYNAMIC, Dim.DYNAMIC), ("a", "b")])
def test_dimensions_that_must_be_equal_vary_together(labels):
    x, y = torch.rand(5, 8), torch.rand(5, 8)
    found = probe(Sum().eval(), (x, y), dynamic_shapes={"x": {0: labels[0]}, "y": {0: labels[1]}})
    assert found
    for dimension in found.dimensions:
        assert len(sizes(dimension, "agrees")) == len(dimension.trials) > 5


class Ignores(nn.Module):
    """torch.export cannot know that the rows of both are the same."""

    def forward(self, x, mask):
        return x * 2, mask[: x.shape[0]].sum() + x.new_zeros(x.shape[0]) * mask.shape[0]


def test_dimensions_with_one_name_vary_together_where_torch_does_not_tie_them():
    x, mask = torch.rand(2, 8), torch.rand(2, 8)
    given, model = [], Ignores().eval()
    model.register_forward_pre_hook(lambda _, args: given.append(args))
    assert probe(model, (x, mask), dynamic_shapes={"x": {0: "n"}, "mask": {0: "n"}})
    tried = {len(x): x for x, mask in given if type(x.shape[0]) is int and len(x) == len(mask)}
    assert len(tried) > 5
    assert torch.equal(tried[4], torch.cat([x, x]))  # the example's own rows, in turn


def test_a_dimension_that_is_the_sum_of_two_others_follows_both():
    call = torch.rand(2, 3, 8), torch.rand(2, 5, 8), torch.rand(2, 8)
    dynamic = {"x": {1: "new"}, "past": {1: "old"}, "mask": {1: "all"}}
    found = probe(Cache().eval(), call, dynamic_shapes=dynamic)
    assert verdicts(found)[:2] == ["kept", "kept"]
    total = found.dimensions[2]
    assert not sizes(total, "the model refuses")
    assert {5 + 1, 3 + 1, 5 + 13, 3 + 13} <= set(sizes(total, "agrees"))


OFFSETS = torch.arange(9) * 2, torch.tensor([0, 2, 5, 8])
INDEX = torch.rand(6, 3), torch.tensor([5, 0, 3])


@pytest.mark.parametrize(
    ("model", "call", "dynamic", "expected"),
    [
        (Bags(), OFFSETS, {"ids": {0: "n"}, "offsets": {0: "bags"}}, ["kept", "kept"]),
        (Picks(), INDEX, {"x": {0: "rows"}, "index": {0: "picked"}}, ["kept", "kept"]),
        (
            Looked(),
            (torch.randint(5, (2, 6)),),
            {"ids": {0: "b", 1: "n"}},
            ["kept", "kept within [1, 12]"],
        ),
    ],
    ids=["offsets", "indices into what shrinks", "indices into a table"],
)
def test_offsets_stay_in_order_and_indices_in_range(model, call, dynamic, expected):
    found = probe(model.eval(), call, dynamic_shapes=dynamic)
    assert verdicts(found) == expected
    assert {1, 2, 3} <= set(sizes(found.dimensions[0], "agrees"))


def test_dicts_lists_and_keywords_are_taken_apart():
    batch = {"a": torch.randint(5, (3, 4)), "b": [torch.rand(2)]}
    dynamic = {"batch": {"a": {0: "rows"}, "b": [{0: "k"}]}}
    found = probe(Nested().eval(), batch, {"scale": 3}, dynamic_shapes=dynamic)
    assert found
    assert [(d.name, d.axis) for d in found.dimensions] == [("rows", 0), ("k", 0)]


# ---------------------------------------------------------------- moved together


class Square(nn.Module):
    """Two dimensions are equal in the example, and a decision rests on it."""

    def forward(self, x, y):
        return (x * 2 if x.shape[0] == x.shape[1] else x * 3), y + 1


def test_dimensions_that_are_kept_only_while_they_are_equal_are_found_and_named():
    dynamic = {"x": {0: "batch", 1: "length"}, "y": {0: "free"}}
    found = probe(Square().eval(), (torch.rand(4, 4), torch.rand(3)), dynamic_shapes=dynamic)
    batch = found.dimensions[0]
    assert not found
    assert verdicts(found) == [
        *("kept as equal to x.shape[1]", "kept as equal to x.shape[0]", "kept"),
    ]
    assert "x.shape[0] == x.shape[1]" in batch.line.text
    assert "one name" in batch.repair
    (clash,) = found.clashes
    assert clash.dimensions == ("x.shape[0]", "x.shape[1]")
    assert str(clash).startswith("at x.shape[0] = 2 and x.shape[1] = 3: the file fails: ")
    assert clash.alike


class Apart(nn.Module):
    def forward(self, x, y, z):
        return x.sum(0) + y.sum(0), z * 2


def test_dimensions_move_together_upwards_and_downwards_and_never_to_one_size():
    dynamic = {"x": {0: "a"}, "y": {0: "b"}, "z": {0: "a"}}
    call = torch.rand(4, 3), torch.rand(5, 3), torch.rand(4, 3)
    found = probe(Apart().eval(), call, dynamic_shapes=dynamic)
    assert found
    assert [one.dimensions for one in found.joints] == [("x.shape[0]", "y.shape[0]")] * 2
    (a, b), (c, d) = (one.sizes for one in found.joints)
    assert a < b
    assert c > d


def test_dimensions_that_fail_together_without_being_equal_are_told(monkeypatch, tmp_path):
    call = torch.rand(4, 3), torch.rand(5, 3), torch.rand(4, 3)
    dynamic = {"x": {0: "a"}, "y": {0: "b"}, "z": {0: "a"}}
    artifact = export(Apart().eval(), call, tmp_path / "m.onnx", dynamic_shapes=dynamic)

    def moved(x, y, z):
        clash = len(x) != 4 and len(y) != 5 and len(x) != len(y)
        return x.sum(0) + y.sum(0), z * (3 if clash else 2)

    monkeypatch.setattr(artifact.graph.model, "forward", moved)
    found = probe(artifact)
    assert not found
    assert all(found.dimensions)
    assert repr(found).startswith("BROKEN: 3 dynamic dimensions, each kept alone")
    assert "\nat x.shape[0] = 2 and y.shape[0] = 3: differs: " in repr(found)


# ---------------------------------------------------------------- not kept, and who did it


class Frozen(nn.Module):
    """The second input meets a table of five rows; ``first`` says what the first one does."""

    def __init__(self, first):
        super().__init__()
        self.first, self.table = first, nn.Parameter(torch.rand(5, 8))

    def forward(self, x, y):
        z = y + self.table
        return self.first(x, z), z


@pytest.mark.parametrize("labels", [("n", "n"), ("a", "b"), (Dim.DYNAMIC, Dim.DYNAMIC)])
def test_of_two_inputs_of_one_size_the_one_that_meets_the_table_is_blamed(labels):
    call, dynamic = (torch.rand(5, 8),) * 2, {"x": {0: labels[0]}, "y": {0: labels[1]}}
    found = probe(Frozen(lambda x, _: x * 2).eval(), call, dynamic_shapes=dynamic)
    innocent, guilty = found.dimensions
    assert (bool(innocent), innocent.verdict, innocent.line) == (True, "kept", None)
    assert (guilty.verdict, guilty.line.text) == ("refused by capture", "z = y + self.table")
    assert set(guilty.locals) == {"y", "self.table"}


def test_an_input_that_must_follow_the_frozen_one_is_shown_the_line_that_froze_it():
    call, dynamic = (torch.rand(5, 8),) * 2, {"x": {0: "n"}, "y": {0: "n"}}
    found = probe(Frozen(lambda x, z: z * x).eval(), call, dynamic_shapes=dynamic)
    assert verdicts(found) == ["refused by capture"] * 2
    assert {d.line.text for d in found.dimensions} == {"z = y + self.table"}


@pytest.mark.parametrize(
    ("model", "x", "axis", "text", "answers", "repair"),
    [
        (Table, X, 1, "return x + self.positions", {1, 16}, "fixed size"),
        (Loop, torch.rand(5, 3), 0, "for row in range", {1, 2, 13}, "loop"),
        (Int, torch.rand(5, 3), 0, "int(x.shape[0])", {1, 2, 13}, "int()"),
        (Counted, torch.rand(5, 3), 0, "range(len(x))", {1, 2, 13}, "loop"),
        (Recurrent, torch.rand(5, 3), 0, "self.rnn(x)", {1, 2, 13}, "apart"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_who_froze_a_dimension_is_named_with_line_locals_and_repair(
    model, x, axis, text, answers, repair
):
    size, dynamic = x.shape[axis], {"x": {axis: "n"}}
    dimension = only(found := probe(model().eval(), x, dynamic_shapes=dynamic))
    assert not found
    assert (dimension.verdict, dimension.promised) == ("refused by capture", "")
    assert dimension.constraint == f"only {size}"
    assert text in dimension.line.text
    lines, first = inspect.getsourcelines(model.forward)
    assert text in lines[dimension.line.number - first]
    assert dimension.guard.words == f"x.shape[{axis}] == {size}"
    assert f"x.shape[{axis}]" in dimension.locals["x"]
    assert repair in dimension.repair
    assert answers <= set(sizes(dimension, "the model answers"))


def test_the_attributes_of_the_line_stand_beside_its_locals_and_no_property_is_called():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.size, self.name = 5, "rows"

        @property
        def asked(self):
            raise AssertionError("called")

        def forward(self, x):
            return x if (x.shape[0] == self.size and self.name) or self.asked else x + 1

    dimension = only(probe(Reads().eval(), torch.rand(5, 3), dynamic_shapes=ROWS))
    assert (dimension.locals["self.size"], dimension.locals["self.name"]) == ("5", "'rows'")
    assert not {"self.asked", "x.shape"} & set(dimension.locals)


def test_wrong_numbers_beyond_a_decision_are_found_with_the_decision():
    dimension = only(found := probe(Decides().eval(), torch.rand(6, 8), dynamic_shapes=ROWS))
    assert not found
    assert (dimension.verdict, dimension.constraint) == ("kept within [5, ...]", "5 or more")
    assert sizes(dimension, "differs") == [1, 2, 3, 4]
    assert dimension.line.text == "if x.shape[0] > 4:"
    assert "decision" in dimension.repair


def test_auto_that_gave_up_is_a_number_in_the_file_and_silently_specialized(tmp_path):
    dynamic = {"x": {0: Dim.AUTO, 1: Dim.AUTO}}
    artifact = export(Table().eval(), X, tmp_path / "m.onnx", dynamic_shapes=dynamic)
    assert artifact.inputs[0].shape == artifact.outputs[0].shape == ("x_0", 16, 8)
    kept, dimension = (found := probe(artifact)).dimensions
    assert not found
    assert (kept.verdict, kept.promised) == ("kept", "x_0")
    assert (dimension.verdict, dimension.promised) == ("silently specialized", 16)
    assert dimension.line.text == "return x + self.positions"


def test_an_artifact_brings_model_arguments_and_dimensions_along(tmp_path):
    artifact = export(Limited().eval(), X, tmp_path / "m.onnx", dynamic_shapes={"x": {1: "words"}})
    assert only(probe(artifact)).verdict == "kept within [1, 32]"
    dimension = only(found := probe(artifact, dynamic_shapes={"x": {0: "batch"}}))
    assert not found
    assert (dimension.verdict, dimension.promised) == ("silently specialized", 2)


def test_sizes_that_must_be_equal_and_have_two_names_get_a_repair():
    dynamic = {"x": {0: Dim("a")}, "y": {0: Dim("b")}}
    with pytest.raises(CaptureError) as caught:
        capture(Sum().eval(), (torch.rand(5, 8), torch.rand(5, 8)), dynamic_shapes=dynamic)
    assert "shape[0] == " in str(caught.value)
    assert "one name" in caught.value.hint


# ---------------------------------------------------------------- a file alone


@pytest.mark.parametrize(
    ("label", "verdict", "runs"),
    [(Dim("words"), "silently specialized", [16]), (Dim.AUTO, "advertised but broken", [1, 16])],
)
def test_a_file_of_torch_that_breaks_its_promise(label, verdict, runs, tmp_path):
    path = tmp_path / "m.onnx"
    with quiet():
        shapes = {"x": {1: label}}
        torch.onnx.export(Table().eval(), (X,), path, dynamic_shapes=shapes, verbose=False)
    dimension = only(found := probe(load(path), X, dynamic_shapes={"x": {1: "words"}}))
    assert not found
    assert not found.compared
    assert (dimension.verdict, dimension.constraint) == (verdict, "unknown")
    assert sizes(dimension, "runs") == runs


@pytest.mark.parametrize(
    ("model", "verdict"),
    [(nn.ReLU(), "runs, numbers unknown"), (Limited(), "runs within [1, 32]")],
    ids=["ReLU", "Limited"],
)
def test_a_file_alone_is_never_said_to_be_right(model, verdict, tmp_path):
    made = export(model.eval(), X, tmp_path / "r.onnx", dynamic_shapes=({1: "n"},))
    found = probe(load(made.path), X)
    assert only(found).verdict == verdict
    assert not found
    assert repr(found).startswith("NOT PROVEN: 1 dynamic dimension; the numbers cannot be checked")


def test_names_shared_in_a_file_vary_together(tmp_path):
    y, dynamic = torch.rand(5, 8), {"x": {0: "n"}, "y": {0: "n"}}
    made = export(Sum().eval(), (y, y), tmp_path / "m.onnx", dynamic_shapes=dynamic)
    found = probe(load(made.path), (y, y), dynamic_shapes=ROWS)
    assert only(found).verdict == "runs, numbers unknown"


def test_a_declared_shape_of_a_loaded_file_is_held_against_what_comes_out(tmp_path):
    path = tmp_path / "m.onnx"
    export(nn.ReLU().eval(), torch.rand(4, 3), path, dynamic_shapes={"input": {0: "n"}})
    proto = onnx.load(path)
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "2*n - 4"
    onnx.save(proto, path)
    dimension = only(probe(load(path), torch.rand(4, 3)))
    assert sizes(dimension, "runs") == [4]
    assert 3 in sizes(dimension, "declares another shape")


# ---------------------------------------------------------------- without a guard


def test_a_file_that_answers_with_other_numbers_is_broken(tmp_path, monkeypatch):
    """Nothing of it is in a guard: the file was made of another model."""
    artifact = export(nn.ReLU().eval(), X, tmp_path / "m.onnx", dynamic_shapes={"input": {0: "n"}})
    monkeypatch.setattr(artifact.graph.model, "forward", lambda input: input * len(input) / 2)
    dimension = only(found := probe(artifact))
    assert not found
    assert dimension.verdict == "advertised but broken"
    assert sizes(dimension, "agrees") == [2]


@torch.library.custom_op("contract_tests::summed", mutates_args=())
def summed(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    assert int(lengths[0]) == 7 * len(x)
    return x * 2


@torch.library.custom_op("contract_tests::doubled", mutates_args=())
def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@torch.library.custom_op("contract_tests::padded", mutates_args=())
def padded(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, x[:1]])


summed.register_fake(lambda x, lengths: torch.empty_like(x))
doubled.register_fake(lambda x: torch.empty(4, 3))
padded.register_fake(torch.empty_like)

OPS = torch.ops.contract_tests
TRANSLATIONS = {
    OPS.summed.default: lambda x, lengths: op.Add(x, x),
    OPS.doubled.default: lambda x: op.Add(x, x),
    OPS.padded.default: lambda x: op.Concat(
        x, op.Slice(x, op.Constant(value_ints=[0]), op.Constant(value_ints=[1])), axis=0
    ),
}


class Lengths(nn.Module):
    def forward(self, x, lengths):
        return summed(x, lengths)


def test_a_size_that_cannot_be_made_up_is_no_fault_of_the_file_and_is_told():
    call, options = (torch.rand(9), torch.tensor([63])), {"dynamic_shapes": ROWS}
    found = probe(Lengths().eval(), call, custom_translation_table=TRANSLATIONS, **options)
    assert not found
    assert only(found).verdict.startswith("not tried")
    assert "lengths" in only(found).repair
    assert repr(found).startswith("NOT PROVEN")


class Lies(nn.Module):
    def __init__(self, operator):
        super().__init__()
        self.operator = operator

    def forward(self, x):
        y = x + 1
        y = self.operator(y)  # lie
        return y


AUDIT = {
    "custom_translation_table": TRANSLATIONS,
    "skip": {"opsets", "size", "latency", "hot lines"},
}


@pytest.mark.parametrize("name", ["doubled", "padded"])
def test_a_fake_that_says_another_shape_is_named_with_its_line(name):
    model = Lies(getattr(OPS, name)).eval()
    report = audit(model, torch.rand(4, 3), dynamic_shapes=ROWS, **AUDIT)
    (fault,) = report.faults
    assert (fault.stage, fault.verdict) == ("contract", "wrong")
    assert f"contract_tests::{name}" in fault.sentence
    assert fault.line.text.endswith("# lie")
    assert "register_fake" in fault.repair


@pytest.mark.parametrize(("rows", "sound"), [(4, True), (6, False)])
def test_a_fake_that_lies_at_the_size_of_the_example_fails_the_audit_of_fixed_sizes(rows, sound):
    report = audit(Lies(OPS.doubled).eval(), torch.rand(rows, 3), **AUDIT)
    assert bool(report) is sound, report
    assert [finding.stage for finding in report.faults] == ["contract"] * (not sound)


class Step(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, x):
        y = x * 2
        z = self.step(y)  # step
        return z + 1


def of_five(x):
    return op.Mul(op.Tanh(x), op.Div(op.CastLike(op.Size(x), x), op.CastLike(15.0, x)))


@pytest.mark.parametrize(
    ("step", "x", "axis", "said"),
    [
        (lambda y: F.adaptive_avg_pool1d(y, 4), torch.rand(2, 8, 12), 2, "pool"),
        (lambda y: F.adaptive_avg_pool2d(y[None], (2, 3)), torch.rand(2, 8, 12), 2, "pool"),
        (torch.tanh, torch.rand(5, 3), 0, ""),
    ],
    ids=["pool 1d", "pool 2d", "translation"],
)
def test_a_step_that_is_right_at_the_size_of_the_example_alone_has_its_line(step, x, axis, said):
    table = {torch.ops.aten.tanh.default: of_five}
    dynamic = {"x": {axis: "w"}}
    found = probe(Step(step).eval(), x, dynamic_shapes=dynamic, custom_translation_table=table)
    dimension = only(found)
    assert not found
    assert dimension.guard is None
    assert "# step" in dimension.line.text or "adaptive_avg_pool" in dimension.line.text
    assert dimension.fault.reason
    assert said in dimension.repair
    assert "Give probe() the model" not in dimension.repair


# ---------------------------------------------------------------- the call and the report


def test_a_training_model_is_warned_of_once_and_put_back():
    model = nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.5)).train()
    with pytest.warns(TrainingModeWarning):
        found = probe(model, torch.rand(5, 8), dynamic_shapes={"input": {0: "n"}})
    assert found
    assert model.training


def test_the_arguments_of_the_caller_are_left_alone():
    class InPlace(nn.Module):
        """Frozen, so that it is the model alone that is run at the other sizes."""

        def forward(self, x, y):
            return x.add_(int(x.shape[0])) + y.mul_(2)

    x, y = torch.ones(3, 2), torch.ones(2)
    probe(InPlace().eval(), (x, y), dynamic_shapes=ROWS)
    assert x.unique().tolist() == y.unique().tolist() == [1]


@pytest.mark.parametrize("dynamic", [None, {}, {"input": {0: None}}, {"input": {0: Dim.STATIC}}])
def test_nothing_asked_is_an_error(dynamic):
    with pytest.raises(InputError, match="no dynamic dimension"):
        probe(nn.ReLU().eval(), X, dynamic_shapes=dynamic)


def test_a_model_that_cannot_be_captured_at_all_is_the_error_of_capture():
    with pytest.raises(CaptureError):
        probe(Branch().eval(), X, dynamic_shapes=ROWS)


def test_the_report_is_short_and_its_html_is_escaped():
    dynamic = {"x": {0: "<b>", 1: "words"}}
    found = probe(Table().eval(), X, dynamic_shapes=dynamic)
    lines = repr(found).splitlines()
    assert lines[0] == "BROKEN: 1 of 2 dynamic dimensions"
    assert len(lines) == 9
    assert lines[7] == "    self.positions = Tensor[16, 8]"
    assert re.match(r"x\.shape\[1\]: x\.shape\[1\] == 16, assumed at models\.py:\d+ ", lines[5])
    html = found._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html


def test_torchs_trace_of_guards_is_where_this_looks_for_it():
    """Private API of torch: when this fails, see torch.export.draft_export for where it moved."""
    with guards.listening() as heard:
        capture(Table().eval(), X, dynamic_shapes={"x": {1: Dim.AUTO}})
    (guard,) = [guard for guard in heard if guard.freezes]
    assert re.fullmatch(r"Eq\(s\d+, 16\)", guard.expression)
    assert list(guard.sources.values()) == ["L['x'].size()[1]"]
    assert guard.line.text == "return x + self.positions"
    count = len(heard)
    capture(Table().eval(), X, dynamic_shapes={"x": {1: Dim.AUTO}})
    assert len(heard) == count, "it has stopped listening"


# ---------------------------------------------------------------- observed calls


def seen_of(model, *calls):
    with observe(model) as seen:
        for args in calls:
            model(*args)
    return seen


def test_what_changed_between_the_calls_is_dynamic_and_nothing_else():
    model = Sum().eval()
    rows = {n: torch.ones(n, 3) for n in (1, 2, 4)}
    seen = seen_of(model, (rows[2], rows[2]), (rows[4], rows[1]), (rows[4], rows[4]))
    assert seen.dynamic_shapes == {"x": {0: "x_0"}, "y": {0: "y_0"}}
    assert repr(seen).splitlines() == [
        "3 calls",
        "input  example        dynamic",
        "-----  -------------  ---------------",
        "x      float32[2, 3]  float32[x_0, 3]",
        "y      float32[2, 3]  float32[y_0, 3]",
    ]
    seen = seen_of(model, *((rows[n], torch.ones(3)) for n in (2, 4)))
    assert seen.dynamic_shapes == {"x": {0: "x_0"}, "y": None}
    assert probe(model, (), seen.kwargs, dynamic_shapes=seen.dynamic_shapes)


def test_nested_dimensions_of_the_same_sizes_have_one_name_and_numbers_may_be_positional():
    model = Nested().eval()
    calls = [({"a": torch.ones(n, 3), "b": [torch.ones(n, 3)]}, 3) for n in (2, 4)]
    seen = seen_of(model, *calls)
    assert seen.dynamic_shapes["batch"] == {"a": {0: "batch_a_0"}, "b": [{0: "batch_a_0"}]}
    assert seen.kwargs["scale"] == 3
    assert "batch['b'][0]" in repr(seen)
    graph = capture(model, (), seen.kwargs, dynamic_shapes=seen.dynamic_shapes)
    assert graph.axes == ({0: "batch_a_0"}, {0: "batch_a_0"})


class Nameless(nn.Module):
    def forward(self, x, /, y, *rest, scale):
        return (x + y) * scale + sum(tensor.sum() for tensor in rest)


def test_arguments_without_a_name_are_seen_too():
    model = Nameless().eval()
    with observe(model) as seen:
        for rows, length in ((2, 4), (3, 5)):
            x = torch.ones(rows, 8)
            model(x, x, torch.ones(6), torch.ones(length), scale=x)
    rows, length = {0: "x_0"}, {0: "rest_1_0"}
    assert seen.dynamic_shapes == {"x": rows, "y": rows, "rest": (None, length), "scale": rows}
    assert [tuple(tensor.shape[1:]) for tensor in seen.args] == [(8,), (8,), (), ()]
    graph = capture(model, seen.args, seen.kwargs, dynamic_shapes=seen.dynamic_shapes)
    assert graph.labels == [rows, rows, {}, length, rows]


@pytest.mark.parametrize(
    ("calls", "noun"),
    [
        ([], "not called"),
        ([(torch.ones(2), torch.ones(2)), (torch.ones(2, 2), torch.ones(2))], "x has a different"),
    ],
    ids=["none", "another rank"],
)
def test_calls_that_do_not_fit_together_are_told_when_the_answer_is_asked_for(calls, noun):
    seen = seen_of(Sum().eval(), *calls)
    with pytest.raises(InputError, match=noun):
        _ = seen.dynamic_shapes


def test_a_model_is_watched_no_longer_than_asked():
    model = Sum().eval()
    with pytest.raises(RuntimeError), observe(model) as seen:
        model(torch.ones(2), torch.ones(3))
    model(torch.ones(2), torch.ones(2))
    assert len(seen.calls) == 1
    with observe(model, calls=1) as seen:
        for rows in (2, 3):
            model(torch.ones(rows), torch.ones(rows))
    assert len(seen.calls) == 1
