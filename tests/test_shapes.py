"""Shapes promised against shapes kept: models that break their promise in a known way."""

import inspect

import onnx
import pytest
import torch
import torch.nn.functional as F
from models import ODD, Branch, Table, checked, module, padded
from onnxscript import opset20 as op
from torch import nn
from torch.export import Dim

from onnx_workbench import capture, export, load, observe, probe
from onnx_workbench.errors import CaptureError, InputError, TrainingModeWarning

X = torch.ones(2, 16, 8) + torch.arange(16.0)[:, None]
FIVE, SIX = torch.rand(5, 8), torch.rand(6, 8)
ROWS = ({0: "n"},)
LIMITED = module(
    lambda self, x: x + self.table[: x.shape[1]], table=nn.Parameter(torch.ones(32, 8))
)
PAIRS = module(lambda self, x: x.reshape(-1, 2, x.shape[-1]).sum(1))
SUM = module(lambda self, x, y: x + y)


@module
def decides(self, x):
    if x.shape[0] > 4:
        x = x * 2
    return x


@module
def limited(self, x):
    if not torch.compiler.is_exporting() and x.shape[0] > 8:
        raise ValueError("at most 8 rows")
    return x * 2


@module
def cache(self, x, past, mask):
    """One dimension is the sum of two others, as in a decoder with a cache."""
    return x @ torch.cat([past, x], 1).transpose(1, 2) + mask[:, None, :]


NESTED = module(lambda self, b, scale=2, **rest: b["a"].float() * scale + b["b"][0].sum())
EMBEDDED = module(  # indices, and positions that are made from the length
    lambda self, ids: self.words(ids) + self.places(torch.arange(ids.shape[1])),
    words=nn.Embedding(5, 8),
    places=nn.Embedding(12, 8),
)
BAGS = module(  # `offsets` says where in `ids` each bag begins, as in a recommendation model
    lambda self, ids, offsets: self.bag(ids, offsets), bag=nn.EmbeddingBag(20, 4, mode="sum")
)
PICKS = module(lambda self, x, index: x[index])


def only(found):
    (dimension,) = found.dimensions
    return dimension


def sizes(dimension, outcome):
    return sorted(trial.size for trial in dimension.trials if trial.outcome == outcome)


def verdicts(found):
    return [dimension.verdict for dimension in found.dimensions]


# Kept

FIRST = module(lambda self, x: x.topk(2, 1))
ENTROPY = module(lambda self, x: nn.functional.binary_cross_entropy(x, x, reduction="none"))
LINEAR, BOUNDED = nn.Linear(8, 4).eval(), Dim("n", min=5, max=16)
KEPT = {
    "batch of one": (LINEAR, FIVE[:1], 0, "n", "kept", {1, 2, 3, 7, 13}, set()),
    "bound of the model": (LIMITED, X, 1, "n", "kept within [1, 32]", {1, 32}, {33}),
    "even sizes": (PAIRS, SIX, 0, "n", "kept", {2, 6, 12}, {1, 3, 5, 7}),
    "bounds of a Dim": (decides, SIX, 0, BOUNDED, "kept within [5, 16]", {5, 16}, {1, 4, 17}),
    "far bound": (LINEAR, FIVE, 0, Dim("n", max=4096), "kept", {1}, {4096}),
    "probabilities": (ENTROPY, FIVE / FIVE.max(), 0, "n", "kept", {6, 10, 11}, set()),
    "float8": (nn.Identity().eval(), FIVE.to(torch.float8_e4m3fn), 0, "n", "kept", {2, 7}, set()),
    "order of ties": (FIRST, FIVE, 1, "n", "kept within [2, ...]", {16, 17}, {1}),
    "check of the model": (limited, FIVE, 0, "n", "kept within [1, 8]", {1, 8}, {9}),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_dimension_is_kept_where_the_model_answers(name):
    model, x, axis, label, verdict, agrees, never = KEPT[name]
    found = probe(model, x, dynamic_shapes=({axis: label},))
    dimension = only(found)
    assert found
    assert found.compared
    assert (dimension.verdict, dimension.declared) == (verdict, "n")
    assert agrees <= set(sizes(dimension, "agrees"))
    assert not never & set(sizes(dimension, "agrees"))
    if model is LINEAR:
        assert (dimension.line, dimension.repair, dimension.locals) == (None, "", {})
    if model is LIMITED:
        assert 33 in sizes(dimension, "the model refuses"), "the bound is found to the row"
    if model is limited:
        assert 9 in sizes(dimension, "the model refuses, the file answers")
    if label is BOUNDED:
        assert dimension.constraint == "5 to 16"


@pytest.mark.parametrize("labels", [(Dim.DYNAMIC, Dim.DYNAMIC), ("a", "b")])
def test_dimensions_that_must_be_equal_vary_together(labels):
    found = probe(SUM, (FIVE, FIVE), dynamic_shapes=tuple({0: label} for label in labels))
    assert found
    for dimension in found.dimensions:
        assert len(sizes(dimension, "agrees")) == len(dimension.trials) > 5


def test_the_bounds_of_one_dimension_hold_for_those_that_are_equal_to_it():
    found = probe(SUM, (FIVE, FIVE), dynamic_shapes=({0: Dim("n", max=8)}, {0: Dim.AUTO}))
    assert verdicts(found) == ["kept within [1, 8]"] * 2
    assert max(trial.size for trial in found.dimensions[0].trials) == 8


@module
def ignores(self, x, mask):
    """torch.export cannot know that the rows of both are the same."""
    return x * 2, mask[: x.shape[0]].sum() + x.new_zeros(x.shape[0]) * mask.shape[0]


def test_dimensions_with_one_name_vary_together_where_torch_does_not_tie_them():
    x, mask = torch.rand(2, 8), torch.rand(2, 8)
    given = []
    ignores.register_forward_pre_hook(lambda _, args: given.append(args))
    assert probe(ignores, (x, mask), dynamic_shapes={"x": {0: "n"}, "mask": {0: "n"}})
    tried = {len(x): x for x, mask in given if type(x.shape[0]) is int and len(x) == len(mask)}
    assert len(tried) > 5
    # the example's own rows, in turn, but without ties
    assert torch.equal(tried[4], torch.cat([x, x * (1 + 2**-10)]))


def test_a_dimension_that_is_the_sum_of_two_others_follows_both():
    call = torch.rand(2, 3, 8), torch.rand(2, 5, 8), torch.rand(2, 8)
    found = probe(cache, call, dynamic_shapes=({1: "new"}, {1: "old"}, {1: "all"}))
    assert verdicts(found)[:2] == ["kept", "kept"]
    total = found.dimensions[2]
    assert total.constraint == "past.shape[1] + x.shape[1]"
    assert not sizes(total, "the model refuses")
    assert {5 + 1, 3 + 1, 5 + 13, 3 + 13} <= set(sizes(total, "agrees"))


OFFSETS = torch.arange(9) * 2, torch.tensor([0, 2, 5, 8])
INDEX = torch.rand(6, 3), torch.tensor([5, 0, 3])
BATCH = {"a": torch.randint(5, (3, 4)), "b": [torch.rand(2)]}


@pytest.mark.parametrize(
    ("model", "call", "dynamic", "expected"),
    [
        (BAGS, OFFSETS, ({0: "n"}, {0: "bags"}), ["kept", "kept"]),
        (PICKS, INDEX, ({0: "rows"}, {0: "picked"}), ["kept", "kept"]),
        (EMBEDDED, torch.randint(5, (2, 6)), ({0: "b", 1: "n"},), ["kept", "kept within [1, 12]"]),
        (NESTED, BATCH, {"b": {"a": {0: "rows"}, "b": [{0: "k"}]}}, ["kept", "kept"]),
    ],
    ids=["offsets", "indices into what shrinks", "indices into a table", "nested"],
)
def test_offsets_stay_in_order_indices_in_range_and_containers_are_opened(
    model, call, dynamic, expected
):
    kwargs = {"scale": 3} if model is NESTED else {}
    found = probe(model, (call,) if model is NESTED else call, kwargs, dynamic_shapes=dynamic)
    assert verdicts(found) == expected
    assert {1, 2, 3} <= set(sizes(found.dimensions[0], "agrees"))
    if model is NESTED:
        assert [(d.name, d.axis) for d in found.dimensions] == [("rows", 0), ("k", 0)]


def test_boundaries_stay_in_order_beside_infinity(monkeypatch):
    model, seen = module(lambda self, x: x * 2), []
    file = export(model, torch.tensor([0.0, 1.0, torch.inf, torch.inf]), dynamic_shapes=({0: "n"},))
    monkeypatch.setattr(model, "forward", lambda x: seen.append(x) or x * 2)
    assert probe(file)
    assert {1, 2, 3} <= {len(x) for x in seen}
    assert all(x.equal(x.sort().values) for x in seen)


# Moved together


def test_dimensions_that_are_kept_only_while_they_are_equal_are_found_and_named():
    square = module(lambda self, x, y: (x * 2 if x.shape[0] == x.shape[1] else x * 3, y + 1))
    dynamic = {"x": {0: "batch", 1: "length"}, "y": {0: "free"}}
    found = probe(square, (torch.rand(4, 4), torch.rand(3)), dynamic_shapes=dynamic)
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


def test_dimensions_move_together_up_and_down_to_sizes_that_differ(monkeypatch):
    model = module(lambda self, x, y, z: (x.sum(0) + y.sum(0), z * 2))
    call = torch.rand(4, 3), torch.rand(5, 3), torch.rand(4, 3)
    artifact = export(model, call, dynamic_shapes=({0: "a"}, {0: "b"}, {0: "a"}))
    found = probe(artifact)
    assert found
    assert [one.dimensions for one in found.joints] == [("x.shape[0]", "y.shape[0]")] * 2
    (a, b), (c, d) = (one.sizes for one in found.joints)
    assert a < b
    assert c > d

    def moved(x, y, z):
        clash = len(x) != 4 and len(y) != 5 and len(x) != len(y)
        return x.sum(0) + y.sum(0), z * (3 if clash else 2)

    monkeypatch.setattr(model, "forward", moved)
    found = probe(artifact)
    assert not found
    assert all(found.dimensions)
    assert repr(found).startswith("BROKEN: 3 dynamic dimensions, each kept alone")
    assert "\nat x.shape[0] = 2 and y.shape[0] = 3: differs: " in repr(found)


# Not kept, and who did it


def frozen(first):
    """The second input meets a table of five rows; ``first`` says what the first one does."""

    def forward(self, x, y):
        z = y + self.table
        return first(x, z), z

    return module(forward, table=nn.Parameter(torch.rand(5, 8)))


@pytest.mark.parametrize("labels", [("n", "n"), ("a", "b")])
def test_of_two_inputs_of_one_size_the_one_that_meets_the_table_is_blamed(labels):
    dynamic = tuple({0: label} for label in labels)
    found = probe(frozen(lambda x, _: x * 2), (FIVE, FIVE), dynamic_shapes=dynamic)
    innocent, guilty = found.dimensions
    assert (bool(innocent), innocent.verdict, innocent.line) == (True, "kept", None)
    assert (guilty.verdict, guilty.line.text) == ("refused by capture", "z = y + self.table")
    assert set(guilty.locals) == {"y", "self.table"}
    if labels == ("n", "n"):  # an input that must follow is shown the line that froze the other
        found = probe(frozen(lambda x, z: z * x), (FIVE, FIVE), dynamic_shapes=dynamic)
        assert verdicts(found) == ["refused by capture"] * 2
        assert {d.line.text for d in found.dimensions} == {"z = y + self.table"}


def test_a_decision_on_two_sizes_is_blamed_and_not_the_memory_that_both_tensors_share():
    longer = module(lambda self, x, y: (x * 2, y) if x.shape[0] > y.shape[0] else (x, y))
    found = probe(longer, (SIX, SIX[:5]), dynamic_shapes=({0: "n"}, {0: "m"}))
    assert {d.guard.words for d in found.dimensions} == {"x.shape[0] > y.shape[0]"}


INT = module(lambda self, x: x * int(x.shape[0]))
COUNTED = module(lambda self, x: sum(x[row] for row in range(len(x))))
RECURRENT = module(lambda self, x: self.rnn(x)[0], rnn=nn.RNN(8, 2))
TABLE = Table().eval()


@pytest.mark.parametrize(
    ("model", "x", "axis", "text", "answers", "repair"),
    [
        (INT, FIVE, 0, "int(x.shape[0])", {1, 2, 13}, "int()"),
        (COUNTED, FIVE, 0, "range(len(x))", {1, 2, 13}, "loop"),
        (RECURRENT, FIVE, 0, "self.rnn(x)", {1, 2, 13}, "splits"),
    ],
    ids=["int", "len", "recurrent"],
)
def test_who_froze_a_dimension_is_named_with_line_locals_and_repair(
    model, x, axis, text, answers, repair
):
    dimension = only(found := probe(model, x, dynamic_shapes=({axis: "n"},)))
    assert not found
    assert (dimension.verdict, dimension.declared) == ("refused by capture", "")
    assert dimension.constraint == f"only {x.shape[axis]}"
    assert text in dimension.line.text
    lines, first = inspect.getsourcelines(model.forward)
    assert text in lines[dimension.line.number - first]
    assert dimension.guard.words == f"x.shape[{axis}] == {x.shape[axis]}"
    assert f"x.shape[{axis}]" in dimension.locals["x"]
    assert repair in dimension.repair
    assert answers <= set(sizes(dimension, "the model answers"))


def test_the_repair_of_a_table_holds_to_the_letter():
    """Sliced, with an example as long as the table, it fails before torch 2.15, and the repair says
    why."""
    table = nn.Parameter(torch.rand(16, 8))
    sliced = module(lambda self, x: x + self.table[: x.shape[1]], table=table)
    indexed = module(lambda self, x: x + self.table[torch.arange(x.shape[1])], table=table)
    words = {"dynamic_shapes": ({1: "words"},)}
    dimension = only(probe(sliced, X, **words))
    if torch.__version__ < "2.15":
        assert dimension.verdict == "advertised but broken"
        assert dimension.guard.words == "x.shape[1] == Min(16, x.shape[1])"
        assert "a shorter example, or take the rows by index" in dimension.repair
    else:
        assert dimension.verdict == "kept within [1, 16]"
    assert probe(sliced, X[:, :12], **words)
    assert probe(indexed, X, **words)


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

    dimension = only(probe(Reads().eval(), FIVE, dynamic_shapes=ROWS))
    assert (dimension.locals["self.size"], dimension.locals["self.name"]) == ("5", "'rows'")
    assert not {"self.asked", "x.shape"} & set(dimension.locals)


def test_wrong_numbers_beyond_a_decision_are_found_with_the_decision():
    dimension = only(found := probe(decides, SIX, dynamic_shapes=ROWS))
    assert not found
    assert (dimension.verdict, dimension.constraint) == ("kept within [5, ...]", "5 or more")
    assert sizes(dimension, "differs") == [1, 2, 3, 4]
    assert dimension.line.text == "if x.shape[0] > 4:"
    assert "decision" in dimension.repair


def test_an_artifact_brings_model_call_and_dimensions_along_and_auto_may_have_given_up():
    artifact = export(TABLE, X, dynamic_shapes=({0: Dim.AUTO, 1: Dim.AUTO},))
    assert artifact.inputs[0].shape == artifact.outputs[0].shape == ("x_0", 16, 8)
    kept, dimension = (found := probe(artifact)).dimensions
    assert not found
    assert (kept.verdict, kept.declared) == ("kept", "x_0")
    assert (dimension.verdict, dimension.declared) == ("silently specialized", 16)
    assert dimension.line.text == "return x + self.positions"
    dimension = only(probe(export(TABLE, X), dynamic_shapes={"x": {0: "batch"}}))
    assert (dimension.verdict, dimension.declared) == ("silently specialized", 2)


# A file alone


RUNS = "runs, numbers unknown"


@pytest.mark.parametrize(
    ("model", "call", "shapes", "asked", "verdict"),
    [
        (LIMITED, (X,), ({1: "n"},), None, "runs within [1, 32]"),
        (LIMITED, (X,), ({1: "n"},), ({-2: "m"},), "runs within [1, 32]"),
        # one name, which must vary together
        (SUM, (FIVE, FIVE), ({0: "n"}, {0: "n"}), {"x": {0: "n"}}, RUNS),
    ],
    ids=["bound", "in order", "one name"],
)
def test_a_file_alone_is_never_said_to_be_right(model, call, shapes, asked, verdict, tmp_path):
    made = export(model, call, tmp_path / "r.onnx", dynamic_shapes=shapes)
    assert only(found := probe(load(made.path), call, dynamic_shapes=asked)).verdict == verdict
    assert not found
    assert repr(found).startswith("NOT PROVEN: 1 dynamic dimension; the numbers cannot be checked")


def test_a_declared_shape_of_a_loaded_file_is_held_against_what_comes_out(tmp_path):
    made = export(nn.ReLU().eval(), X[0, :4], tmp_path / "m.onnx", dynamic_shapes=ROWS)
    proto = onnx.load(made.path)
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "2*n - 4"
    onnx.save(proto, made.path)
    dimension = only(probe(load(made.path), X[0, :4]))
    assert sizes(dimension, "runs") == [4]
    assert 3 in sizes(dimension, "declares another shape")


# Without a guard


def test_a_file_that_answers_with_other_numbers_is_broken(monkeypatch):
    """Nothing of it is in a guard: the file was made of another model."""
    artifact = export(nn.ReLU().eval(), X, dynamic_shapes=ROWS)
    monkeypatch.setattr(artifact.graph.model, "forward", lambda input: input * len(input) / 2)
    dimension = only(found := probe(artifact))
    assert not found
    assert dimension.verdict == "advertised but broken"
    assert sizes(dimension, "agrees") == [2]


def test_a_size_that_cannot_be_made_up_is_no_fault_of_the_file_and_is_told():
    model, call = module(lambda self, x, lengths: checked(x, lengths)), (FIVE[0], torch.tensor([8]))
    shapes = {"x": {0: "n"}, "lengths": None}
    found = probe(model, call, custom_translation_table=ODD, dynamic_shapes=shapes)
    assert not found
    assert only(found).verdict.startswith("not tried")
    assert "lengths" in only(found).repair
    assert repr(found).startswith("NOT PROVEN")


def test_a_fake_that_says_another_shape_is_named_with_its_line():
    def lies(self, x):
        y = x + 1
        y = padded(y)  # lie
        return y

    x = torch.rand(4, 3)
    found = probe(module(lies), x, dynamic_shapes=ROWS, custom_translation_table=ODD)
    fault = only(found).fault
    assert not found
    assert "odd::padded" in fault.reason
    assert fault.line.text.endswith("# lie")
    assert "register_fake" in fault.repair


def of_fifteen(x):
    return op.Mul(op.Tanh(x), op.Div(op.CastLike(op.Size(x), x), op.CastLike(40.0, x)))


WIDE = torch.rand(2, 8, 12)


@pytest.mark.parametrize(
    ("step", "x", "axis", "said"),
    [
        (lambda y: F.adaptive_avg_pool1d(y, 4), WIDE, 2, "pool"),
        (torch.tanh, FIVE, 0, ""),
    ],
    ids=["pool", "translation"],
)
def test_a_step_that_is_right_at_the_size_of_the_example_alone_has_its_line(step, x, axis, said):
    def forward(self, x):
        y = x * 2
        z = step(y)  # step
        return z + 1

    table = {torch.ops.aten.tanh.default: of_fifteen}
    found = probe(module(forward), x, dynamic_shapes=({axis: "w"},), custom_translation_table=table)
    dimension = only(found)
    assert not found
    assert dimension.guard is None
    assert "# step" in dimension.line.text or "adaptive_avg_pool" in dimension.line.text
    assert dimension.fault.reason
    assert said in dimension.repair
    assert "Give probe() the model" not in dimension.repair


# The call and the report


def test_a_training_model_is_warned_of_and_put_back_and_arguments_are_left_alone():
    # frozen, so that it is the model alone that is run at the other sizes
    model = module(lambda self, x, y: x.add_(int(x.shape[0])) + y.mul_(2)).train()
    x, y = torch.ones(3, 2), torch.ones(2)
    with pytest.warns(TrainingModeWarning):
        probe(model, (x, y), dynamic_shapes={"x": {0: "n"}, "y": None})
    assert model.training
    assert x.unique().tolist() == y.unique().tolist() == [1]


def test_nothing_asked_is_an_error_and_so_is_what_cannot_be_captured():
    for dynamic in (None, {"input": {0: Dim.STATIC}}):
        with pytest.raises(InputError, match="no dynamic dimension"):
            probe(nn.ReLU().eval(), X, dynamic_shapes=dynamic)
    with pytest.raises(CaptureError):
        probe(Branch().eval(), X, dynamic_shapes=ROWS)


def test_the_report_names_values_and_its_html_is_escaped():
    found = probe(TABLE, X, dynamic_shapes={"x": {0: "<b>", 1: "words"}})
    assert "\n    self.positions = Tensor[16, 8]\n" in repr(found)
    html = found._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html


# Observed calls


def seen_of(model, *calls):
    with observe(model) as seen:
        for args in calls:
            model(*args)
    return seen


def test_what_changed_between_the_calls_is_dynamic_and_nothing_else():
    rows = {n: torch.ones(n, 3) for n in (1, 2, 4)}
    seen = seen_of(SUM, (rows[2], rows[2]), (rows[4], rows[1]), (rows[4], rows[4]))
    assert seen.dynamic_shapes == {"x": {0: "x_0"}, "y": {0: "y_0"}}
    seen = seen_of(SUM, *((rows[n], torch.ones(3)) for n in (2, 4)))
    assert seen.dynamic_shapes == {"x": {0: "x_0"}, "y": None}


def test_nested_dimensions_of_the_same_sizes_have_one_name_and_numbers_may_be_positional():
    calls = [({"a": torch.ones(n, 3), "b": [torch.ones(n, 3)]}, 3) for n in (2, 4)]
    seen = seen_of(NESTED, *calls)
    assert seen.dynamic_shapes["b"] == {"a": {0: "b_a_0"}, "b": [{0: "b_a_0"}]}
    assert seen.kwargs["scale"] == 3
    assert "b['b'][0]" in repr(seen)
    graph = capture(NESTED, (), seen.kwargs, dynamic_shapes=seen.dynamic_shapes)
    assert graph.axes == ({0: "b_a_0"}, {0: "b_a_0"})


def test_arguments_without_a_name_are_seen_too():
    @module
    def model(self, x, /, y, *rest, scale):
        return (x + y) * scale + sum(tensor.sum() for tensor in rest)

    with observe(model) as seen:
        for rows, length in ((2, 4), (3, 5)):
            x = torch.ones(rows, 8)
            model(x, x, torch.ones(6), torch.ones(length), scale=x)
    rows, length = {0: "x_0"}, {0: "rest_1_0"}
    assert seen.dynamic_shapes == {"x": rows, "y": rows, "rest": (None, length), "scale": rows}
    assert [tuple(tensor.shape[1:]) for tensor in seen.args] == [(8,), (8,), (), ()]
    graph = capture(model, seen.args, seen.kwargs, dynamic_shapes=seen.dynamic_shapes)
    assert graph.labels == [rows, rows, {}, length, rows]


ONES = torch.ones(2)


def test_calls_that_do_not_fit_together_are_told_when_the_answer_is_asked_for():
    pairs = [(ONES, ONES), (torch.ones(2, 2), ONES)]
    for calls, noun in (([], "not called"), (pairs, "x has a different")):
        with pytest.raises(InputError, match=noun):
            _ = seen_of(SUM, *calls).dynamic_shapes


def test_calls_after_a_look_at_the_result_count_too():
    with observe(SUM) as seen:
        SUM(ONES, ONES)
        assert "x_0" not in repr(seen)
        SUM(torch.ones(3), torch.ones(3))
    assert seen.dynamic_shapes == {"x": {0: "x_0"}, "y": {0: "x_0"}}


def test_a_model_is_watched_no_longer_than_asked():
    with pytest.raises(RuntimeError), observe(SUM) as seen:
        SUM(torch.ones(2), torch.ones(3))
    SUM(ONES, ONES)
    assert len(seen.calls) == 1
    with observe(SUM, calls=1) as seen:
        for rows in (2, 3):
            SUM(torch.ones(rows), torch.ones(rows))
    assert len(seen.calls) == 1
