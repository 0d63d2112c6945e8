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

from onnx_workbench import audit, capture, export, load, probe
from onnx_workbench.errors import CaptureError, InputError, TrainingModeWarning
from onnx_workbench.graph import guards
from onnx_workbench.torch_state import quiet

X = torch.ones(2, 16, 8) + torch.arange(16.0)[:, None]


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
    def forward(self, batch, scale=2):
        return batch["ids"].float() * scale + batch["more"][0].sum()


class Looked(nn.Module):
    """Indices, and positions that are made from the length."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(5, 8)
        self.places = nn.Embedding(12, 8)

    def forward(self, ids):
        return self.words(ids) + self.places(torch.arange(ids.shape[1]))


def only(found):
    (dimension,) = found.dimensions
    return dimension


def sizes(dimension, outcome):
    return sorted(trial.size for trial in dimension.trials if trial.outcome == outcome)


def offset(function, wanted):
    """The line of a function that holds a text, counted from its ``def``."""
    source, first = inspect.getsourcelines(function)
    return first + next(i for i, text in enumerate(source) if wanted in text)


# ---------------------------------------------------------------- kept


@pytest.mark.parametrize("rows", [1, 5])
def test_a_true_dimension_is_kept_at_every_size_also_from_a_batch_of_one(rows):
    found = probe(
        nn.Linear(8, 4).eval(), torch.rand(rows, 8), dynamic_shapes={"input": {0: "batch"}}
    )
    assert found
    assert found.compared
    dimension = only(found)
    assert (dimension.verdict, dimension.promised, dimension.constraint) == (
        "kept",
        "batch",
        "any size",
    )
    assert {1, 2, 3, 7, 13, rows, rows + 1, 2 * rows} <= set(sizes(dimension, "agrees"))
    assert dimension.line is None
    assert dimension.repair == ""
    assert dimension.locals == {}


def test_a_bound_of_the_model_is_found_to_the_row_and_is_no_fault_of_the_file():
    dimension = only(found := probe(Limited().eval(), X, dynamic_shapes={"x": {1: "words"}}))
    assert found
    assert dimension.verdict == "kept within [1, 32]"
    assert 32 in sizes(dimension, "agrees")
    assert 33 in sizes(dimension, "the model refuses")


def test_sizes_that_the_model_refuses_in_between_are_no_bounds():
    dimension = only(probe(Pairs().eval(), torch.rand(6, 8), dynamic_shapes={"x": {0: "n"}}))
    assert dimension
    assert dimension.verdict == "kept"
    assert sizes(dimension, "agrees") == [2, 6, 12]


def test_a_dim_with_bounds_is_tried_at_its_bounds_and_not_beyond():
    dynamic = {"x": {0: Dim("n", min=5, max=16)}}
    dimension = only(found := probe(Decides().eval(), torch.rand(6, 8), dynamic_shapes=dynamic))
    assert found
    assert dimension.verdict == "kept within [5, 16]"
    assert dimension.name == "n"
    assert dimension.constraint == "5 to 16"
    assert [min(sizes(dimension, "agrees")), max(sizes(dimension, "agrees"))] == [5, 16]


def test_a_high_bound_is_tried_only_where_the_example_is_not_far_below_it():
    for high, tried in ((64, True), (4096, False)):
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
    calls, given = [], []
    model = Ignores().eval()
    model.register_forward_pre_hook(lambda _, args: calls.append([a.shape[0] for a in args]))
    model.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    found = probe(model, (x, mask), dynamic_shapes={"x": {0: "n"}, "mask": {0: "n"}})
    assert found
    tried = [rows for rows in calls if all(type(size) is int for size in rows)]
    assert len(tried) > 5
    assert all(rows == marks for rows, marks in tried)
    four = next(x for x, rows in zip(given, calls, strict=True) if rows == [4, 4])
    assert torch.equal(four, torch.cat([x, x]))  # the example's own rows, in turn


def test_a_dimension_that_is_the_sum_of_two_others_follows_both():
    x, past, mask = torch.rand(2, 3, 8), torch.rand(2, 5, 8), torch.rand(2, 8)
    dynamic = {"x": {1: "new"}, "past": {1: "old"}, "mask": {1: "all"}}
    found = probe(Cache().eval(), (x, past, mask), dynamic_shapes=dynamic)
    assert [d.verdict for d in found.dimensions[:2]] == ["kept", "kept"]
    total = found.dimensions[2]
    assert {"the model refuses"}.isdisjoint(trial.outcome for trial in total.trials)
    assert {5 + 1, 3 + 1, 5 + 13, 3 + 13} <= set(sizes(total, "agrees"))


def test_indices_stay_in_range_and_dicts_lists_and_keywords_are_taken_apart():
    found = probe(
        Looked().eval(), torch.randint(5, (2, 6)), dynamic_shapes={"ids": {0: "b", 1: "n"}}
    )
    assert found
    assert found.dimensions[1].verdict == "kept within [1, 12]"
    batch = {"ids": torch.randint(5, (3, 4)), "more": [torch.rand(2)]}
    dynamic = {"batch": {"ids": {0: "rows"}, "more": [{0: "k"}]}}
    found = probe(Nested().eval(), batch, {"scale": 3}, dynamic_shapes=dynamic)
    assert found
    assert [(d.name, d.axis) for d in found.dimensions] == [("rows", 0), ("k", 0)]


class Square(nn.Module):
    """Two dimensions are equal in the example, and a decision rests on it."""

    def forward(self, x, y):
        return (x * 2 if x.shape[0] == x.shape[1] else x * 3), y + 1


def test_dimensions_that_are_kept_only_while_they_are_equal_are_found_and_named():
    dynamic = {"x": {0: "batch", 1: "length"}, "y": {0: "free"}}
    found = probe(Square().eval(), (torch.rand(4, 4), torch.rand(3)), dynamic_shapes=dynamic)
    batch, length, free = found.dimensions
    assert not found
    assert (batch.verdict, length.verdict, free.verdict) == (
        "kept as equal to x.shape[1]",
        "kept as equal to x.shape[0]",
        "kept",
    )
    assert "x.shape[0] == x.shape[1]" in batch.line.text
    assert batch.repair.startswith("Give both one name, or the same Dim.")
    (clash,) = found.clashes
    assert clash.dimensions == ("x.shape[0]", "x.shape[1]")
    assert str(clash).startswith("at x.shape[0] = 2 and x.shape[1] = 3: the file fails: ")
    assert str(clash).endswith(", and only where both are equal it agrees")


def test_dimensions_move_together_upwards_and_downwards_and_never_to_one_size():
    x, y, z = torch.rand(4, 3), torch.rand(5, 3), torch.rand(6, 3)

    class Apart(nn.Module):
        def forward(self, x, y, z):
            return x.sum(0) + y.sum(0), z * 2

    dynamic = {"x": {0: "a"}, "y": {0: "b"}, "z": {0: "a"}}
    found = probe(Apart().eval(), (x, y, z[:4]), dynamic_shapes=dynamic)
    assert found
    assert [one.dimensions for one in found.joints] == [("x.shape[0]", "y.shape[0]")] * 2
    (a, b), (c, d) = (one.sizes for one in found.joints)
    assert a < b
    assert c > d


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
    x, y = torch.rand(5, 8), torch.rand(5, 8)
    dynamic = {"x": {0: labels[0]}, "y": {0: labels[1]}}
    found = probe(Frozen(lambda x, _: x * 2).eval(), (x, y), dynamic_shapes=dynamic)
    innocent, guilty = found.dimensions
    assert (bool(innocent), innocent.verdict, innocent.line) == (True, "kept", None)
    assert (guilty.verdict, guilty.line.text) == ("refused by capture", "z = y + self.table")
    assert set(guilty.locals) == {"y", "self.table"}


def test_an_input_that_must_follow_the_frozen_one_is_shown_the_line_that_froze_it():
    x, y = torch.rand(5, 8), torch.rand(5, 8)
    dynamic = {"x": {0: "n"}, "y": {0: "n"}}
    found = probe(Frozen(lambda x, z: x + z).eval(), (x, y), dynamic_shapes=dynamic)
    assert [d.verdict for d in found.dimensions] == ["refused by capture"] * 2
    assert {d.line.text for d in found.dimensions} == {"z = y + self.table"}


class Bags(nn.Module):
    """``offsets`` says where in ``ids`` each bag begins, as in a recommendation model."""

    def __init__(self, last):
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 4, mode="sum", include_last_offset=last)

    def forward(self, ids, offsets):
        return self.bag(ids, offsets)


def test_offsets_into_another_input_stay_in_order_and_in_range():
    ids, offsets = torch.arange(9) * 2, torch.tensor([0, 2, 5, 8])
    dynamic = {"ids": {0: "n"}, "offsets": {0: "bags"}}
    found = probe(Bags(False).eval(), (ids, offsets), dynamic_shapes=dynamic)
    assert found
    for dimension in found.dimensions:
        assert dimension.verdict == "kept"
        assert {trial.outcome for trial in dimension.trials} == {"agrees"}


class Picks(nn.Module):
    def forward(self, x, index):
        return x[index]


def test_an_index_into_an_input_that_shrinks_stays_in_range():
    x, index = torch.rand(6, 3), torch.tensor([5, 0, 3])
    dynamic = {"x": {0: "rows"}, "index": {0: "picked"}}
    found = probe(Picks().eval(), (x, index), dynamic_shapes=dynamic)
    assert [dimension.verdict for dimension in found.dimensions] == ["kept", "kept"]
    assert {1, 2, 3} <= set(sizes(found.dimensions[0], "agrees"))


@torch.library.custom_op("contract_tests::summed", mutates_args=())
def summed(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    assert int(lengths[0]) == 7 * len(x)
    return x * 2


@summed.register_fake
def _(x, lengths):
    return torch.empty_like(x)


class Lengths(nn.Module):
    def forward(self, x, lengths):
        return summed(x, lengths)


def test_a_size_that_cannot_be_made_up_is_no_fault_of_the_file_and_is_told():
    x, lengths = torch.rand(9), torch.tensor([63])
    dimension = only(
        found := probe(
            Lengths().eval(),
            (x, lengths),
            dynamic_shapes={"x": {0: "n"}},
            custom_translation_table={
                torch.ops.contract_tests.summed.default: lambda x, lengths: op.Add(x, x)
            },
        )
    )
    assert not found
    assert dimension.verdict == "not tried: the model refuses all other sizes"
    assert "lengths" in dimension.repair
    assert repr(found).startswith("NOT PROVEN")


def test_dimensions_that_fail_together_without_being_equal_are_told(monkeypatch, tmp_path):
    x, y = torch.rand(4, 3), torch.rand(5, 3)

    class Two(nn.Module):
        def forward(self, x, y):
            return x * 2, y * 2

    dynamic = {"x": {0: "a"}, "y": {0: "b"}}
    artifact = export(Two().eval(), (x, y), tmp_path / "m.onnx", dynamic_shapes=dynamic)

    def moved(x, y):
        clash = len(x) != 4 and len(y) != 5 and len(x) != len(y)
        return x * (3 if clash else 2), y * 2

    monkeypatch.setattr(artifact.graph.model, "forward", moved)
    found = probe(artifact)
    assert not found
    assert all(found.dimensions)
    assert repr(found).startswith(
        "BROKEN: 2 dynamic dimensions, kept one at a time and not together\n"
    )
    assert "\nat x.shape[0] = 2 and y.shape[0] = 3: differs: 6 of 6 differ, by " in repr(found)


# ---------------------------------------------------------------- not kept, and who did it

FROZEN = [
    (Table, X, 1, "return x + self.positions", "16", "Something of a fixed size"),
    (Loop, torch.rand(5, 3), 0, "for row in range", "5", "A Python loop over a size"),
    (Int, torch.rand(5, 3), 0, "int(x.shape[0])", "5", "int(), float() and len()"),
    (Counted, torch.rand(5, 3), 0, "range(len(x))", "5", "A Python loop over a size"),
    (Recurrent, torch.rand(5, 3), 0, "self.rnn(x)", "5", "This line takes the dimension apart"),
]


@pytest.mark.parametrize(("model", "x", "axis", "text", "size", "repair"), FROZEN)
def test_who_froze_a_dimension_is_named_with_line_constraint_locals_and_repair(
    model, x, axis, text, size, repair
):
    dimension = only(found := probe(model().eval(), x, dynamic_shapes={"x": {axis: "n"}}))
    assert not found
    assert dimension.verdict == "refused by capture"
    assert dimension.constraint == f"{size} alone"
    assert dimension.promised == ""
    assert text in dimension.line.text
    assert dimension.line.number == offset(model.forward, text)
    assert dimension.guard.words == f"x.shape[{axis}] == {size}"
    assert f"x.shape[{axis}]" in dimension.locals["x"]
    assert dimension.repair.startswith(repair)


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

    dimension = only(probe(Reads().eval(), torch.rand(5, 3), dynamic_shapes={"x": {0: "n"}}))
    assert dimension.locals["self.size"] == "5"
    assert dimension.locals["self.name"] == "'rows'"
    assert not {"self.asked", "x.shape"} & set(dimension.locals)


def test_what_a_model_would_do_at_other_sizes_is_told_beside_the_refusal():
    loop = only(probe(Loop().eval(), torch.rand(5, 3), dynamic_shapes={"x": {0: "n"}}))
    assert {1, 2, 13} <= set(sizes(loop, "the model answers"))
    table = only(probe(Table().eval(), X, dynamic_shapes={"x": {1: "n"}}))
    assert sizes(table, "the model answers") == [1, 16]


def test_a_frozen_dimension_does_not_hide_what_becomes_of_the_others():
    found = probe(Table().eval(), X, dynamic_shapes={"x": {0: "batch", 1: "words"}})
    assert [d.verdict for d in found.dimensions] == ["kept", "refused by capture"]
    assert found.dimensions[0].line is None


def test_wrong_numbers_beyond_a_decision_are_found_with_the_decision():
    dimension = only(
        found := probe(Decides().eval(), torch.rand(6, 8), dynamic_shapes={"x": {0: "n"}})
    )
    assert not found
    assert dimension.verdict == "kept within [5, ...]"
    assert dimension.constraint == "5 or more"
    assert sizes(dimension, "differs") == [1, 2, 3, 4]
    assert dimension.line.text == "if x.shape[0] > 4:"
    assert dimension.repair.startswith("A Python decision on a size is taken once")


def test_auto_that_gave_up_is_a_number_in_the_file_and_static_in_silence(tmp_path):
    dynamic = {"x": {0: Dim.AUTO, 1: Dim.AUTO}}
    artifact = export(Table().eval(), X, tmp_path / "m.onnx", dynamic_shapes=dynamic)
    assert [value.shape for value in artifact.inputs] == [("x_0", 16, 8)]
    assert [value.shape for value in artifact.outputs] == [("x_0", 16, 8)]
    kept, dimension = (found := probe(artifact)).dimensions
    assert not found
    assert (kept.verdict, kept.promised) == ("kept", "x_0")
    assert (dimension.verdict, dimension.promised) == ("static in silence", 16)
    assert dimension.line.text == "return x + self.positions"


def test_an_artifact_brings_model_arguments_and_dimensions_along(tmp_path):
    artifact = export(Limited().eval(), X, tmp_path / "m.onnx", dynamic_shapes={"x": {1: "words"}})
    assert only(probe(artifact)).verdict == "kept within [1, 32]"
    dimension = only(found := probe(artifact, dynamic_shapes={"x": {0: "batch"}}))
    assert not found
    assert dimension.verdict == "static in silence"
    assert dimension.promised == 2


# ---------------------------------------------------------------- a file alone


def raw(path, label):
    shapes = {"x": {1: label}}
    with quiet():
        torch.onnx.export(Table().eval(), (X,), path, dynamic_shapes=shapes, verbose=False)
    return load(path)


def test_torchs_own_dim_is_static_in_silence(tmp_path):
    file = raw(tmp_path / "m.onnx", Dim("words"))
    dimension = only(found := probe(file, X, dynamic_shapes={"x": {1: "words"}}))
    assert not found
    assert not found.compared
    assert (dimension.verdict, dimension.promised) == ("static in silence", 16)
    assert sizes(dimension, "runs") == [16]


def test_torchs_own_auto_is_advertised_and_breaks(tmp_path):
    dimension = only(probe(raw(tmp_path / "m.onnx", Dim.AUTO), X))
    assert dimension.verdict == "advertised but broken"
    assert dimension.constraint == "unknown"
    assert sizes(dimension, "runs") == [1, 16]


def test_a_file_alone_is_never_said_to_be_right(tmp_path):
    made = export(nn.ReLU().eval(), X, tmp_path / "r.onnx", dynamic_shapes={"input": {1: "n"}})
    found = probe(load(made.path), X)
    assert only(found).verdict == "runs, numbers unknown"
    assert not found
    assert repr(found).startswith("NOT PROVEN: 1 dynamic dimension; without the model nobody")
    made = export(Limited().eval(), X, tmp_path / "m.onnx", dynamic_shapes={"x": {1: "n"}})
    assert only(probe(load(made.path), X)).verdict == "runs within [1, 32]"


def test_names_shared_in_a_file_vary_together(tmp_path):
    y = torch.rand(5, 8)
    dynamic = {"x": {0: "n"}, "y": {0: "n"}}
    made = export(Sum().eval(), (y, y), tmp_path / "m.onnx", dynamic_shapes=dynamic)
    found = probe(load(made.path), (y, y), dynamic_shapes={"x": {0: "n"}})
    assert only(found).verdict == "runs, numbers unknown"


# ---------------------------------------------------------------- the rest


def test_a_file_that_answers_with_other_numbers_is_broken(tmp_path, monkeypatch):
    """Nothing of it is in a guard: the file was made of another model."""
    artifact = export(nn.ReLU().eval(), X, tmp_path / "m.onnx", dynamic_shapes={"input": {0: "n"}})
    monkeypatch.setattr(artifact.graph.model, "forward", lambda input: input * len(input) / 2)
    dimension = only(found := probe(artifact))
    assert not found
    assert dimension.verdict == "advertised but broken"
    assert sizes(dimension, "agrees") == [2]


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
    probe(InPlace().eval(), (x, y), dynamic_shapes={"x": {0: "n"}})
    assert x.unique().tolist() == y.unique().tolist() == [1]


def test_nothing_asked_is_an_error():
    for dynamic in (None, {}, {"input": {0: None}}, {"input": {0: Dim.STATIC}}):
        with pytest.raises(InputError) as caught:
            probe(nn.ReLU().eval(), X, dynamic_shapes=dynamic)
    assert str(caught.value) == (
        "probe() was asked for no dynamic dimension. Name what may change, for example "
        "dynamic_shapes={'x': {0: 'batch'}}."
    )


def test_a_model_that_cannot_be_captured_at_all_is_the_error_of_capture():
    with pytest.raises(CaptureError):
        probe(Branch().eval(), X, dynamic_shapes={"x": {0: "n"}})
    assert probe(Cond().eval(), X, dynamic_shapes={"x": {0: "n"}})


def test_the_report_is_short_and_its_html_is_escaped():
    dynamic = {"x": {0: "<b>", 1: "words"}}
    found = probe(Table().eval(), X, dynamic_shapes=dynamic)
    lines = repr(found).splitlines()
    assert lines[0] == "BROKEN: 1 of 2 dynamic dimensions"
    assert len(lines) == 9
    assert lines[7] == "    self.positions = Tensor[16, 8]"
    assert re.match(
        r"x\.shape\[1\]: x\.shape\[1\] == 16, assumed at models\.py:\d+  return", lines[5]
    )
    html = found._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html


def test_sizes_that_must_be_equal_and_have_two_names_get_a_line_and_a_repair():
    x, y = torch.rand(5, 8), torch.rand(5, 8)
    with pytest.raises(CaptureError) as caught:
        capture(Sum().eval(), (x, y), dynamic_shapes={"x": {0: Dim("a")}, "y": {0: Dim("b")}})
    assert "There y.shape[0] == x.shape[0]" in str(caught.value) or (
        "There x.shape[0] == y.shape[0]" in str(caught.value)
    )
    assert "give them one name, or the same Dim." in str(caught.value)


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
    assert len(heard) == count  # it has stopped listening


class Follows(nn.Module):
    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(7, 4))

    def forward(self, x, mask):
        x = x + self.positions  # freezes
        return x * mask[..., None]  # has to follow


def test_dimensions_of_one_name_have_the_line_that_froze_the_first():
    dynamic = {"x": {1: "words"}, "mask": {1: "words"}}
    contract = probe(
        Follows().eval(), (torch.ones(2, 7, 4), torch.ones(2, 7)), dynamic_shapes=dynamic
    )
    assert [d.line.text for d in contract.dimensions] == ["x = x + self.positions  # freezes"] * 2


# ---------------------------------------------------------------- without a guard


@torch.library.custom_op("contract_tests::doubled", mutates_args=())
def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@doubled.register_fake
def _(x):
    return torch.empty(4, 3)


@torch.library.custom_op("contract_tests::padded", mutates_args=())
def padded(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, x[:1]])


@padded.register_fake
def _(x):
    return torch.empty_like(x)


TRANSLATIONS = {
    torch.ops.contract_tests.doubled.default: lambda x: op.Add(x, x),
    torch.ops.contract_tests.padded.default: lambda x: op.Concat(
        x, op.Slice(x, op.Constant(value_ints=[0]), op.Constant(value_ints=[1])), axis=0
    ),
}


class Lies(nn.Module):
    def __init__(self, operator):
        super().__init__()
        self.operator = operator

    def forward(self, x):
        y = x + 1
        y = self.operator(y)  # lie
        return y


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        (torch.ops.contract_tests.doubled, "contract_tests::doubled"),
        (torch.ops.contract_tests.padded, "contract_tests::padded"),
    ],
)
def test_a_fake_that_says_another_shape_is_named_with_its_line(operator, name):
    model, x = Lies(operator).eval(), torch.rand(4, 3)
    options = {"dynamic_shapes": {"x": {0: "n"}}, "custom_translation_table": TRANSLATIONS}
    found = probe(model, x, **options)
    dimension = only(found)
    assert not found
    assert name in dimension.fault.reason
    assert dimension.line.text.endswith("# lie")
    assert "register_fake" in dimension.repair
    report = audit(model, x, **options, skip={"opsets", "size", "latency", "hot lines"})
    (finding,) = report.faults
    assert (finding.stage, finding.verdict) == ("contract", "wrong")
    assert name in finding.sentence


@pytest.mark.parametrize(("rows", "sound"), [(4, True), (6, False)])
def test_a_fake_that_lies_at_the_size_of_the_example_fails_the_audit_of_fixed_sizes(rows, sound):
    model = Lies(torch.ops.contract_tests.doubled).eval()
    skip = {"opsets", "size", "latency", "hot lines"}
    report = audit(model, torch.rand(rows, 3), custom_translation_table=TRANSLATIONS, skip=skip)
    assert bool(report) is sound, report
    assert [finding.stage for finding in report.faults] == ["contract"] * (not sound)


class Adaptive(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def forward(self, x):
        y = x * 2
        z = self.pool(y)
        return z + 1


@pytest.mark.parametrize(
    "pool",
    [lambda y: F.adaptive_avg_pool1d(y, 4), lambda y: F.adaptive_avg_pool2d(y[None], (2, 3))],
)
def test_a_step_that_is_right_at_the_size_of_the_example_alone_has_its_line(pool):
    found = probe(Adaptive(pool).eval(), torch.rand(2, 8, 12), dynamic_shapes={"x": {2: "w"}})
    dimension = only(found)
    assert not found
    assert "adaptive_avg_pool" in dimension.line.text
    assert dimension.guard is None
    assert "Give probe() the model" not in dimension.repair
    assert "pool" in dimension.repair


def test_a_translation_for_one_size_has_the_line_of_its_operator():
    class Means(nn.Module):
        def forward(self, x):
            y = torch.tanh(x)  # tanh
            return y + 1

    def of_five(x):
        return op.Mul(op.Tanh(x), op.Div(op.CastLike(op.Size(x), x), op.CastLike(15.0, x)))

    table = {torch.ops.aten.tanh.default: of_five}
    found = probe(
        Means().eval(),
        torch.rand(5, 3),
        dynamic_shapes={"x": {0: "n"}},
        custom_translation_table=table,
    )
    assert only(found).line.text.endswith("# tanh")
    assert only(found).fault.reason


def test_a_declared_shape_of_a_loaded_file_is_held_against_what_comes_out(tmp_path):
    export(
        nn.ReLU().eval(), torch.rand(4, 3), tmp_path / "m.onnx", dynamic_shapes={"input": {0: "n"}}
    )
    proto = onnx.load(tmp_path / "m.onnx")
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "n + 1"
    onnx.save(proto, tmp_path / "m.onnx")
    found = probe(load(tmp_path / "m.onnx"), torch.rand(4, 3))
    assert sizes(only(found), "declares another shape")
