"""capture(): the table, the modes, and why torch refuses a model."""

import warnings
from dataclasses import dataclass

import pytest
import torch
from models import Branch, Cond, Scores, Table, caching, module
from torch import nn
from torch.export import Dim

from onnx_workbench import capture, trace
from onnx_workbench.errors import CaptureError, InputError, TrainingModeWarning

X = torch.ones(2, 1, 8, 8)


SUM = module(lambda self, *parts: parts[0] + parts[1])
PAIR = module(lambda self, x, y: x + y)


def test_table_has_the_lines_of_the_model_and_the_names_of_its_dimensions():
    batch = {0: "batch"}
    graph = capture(
        Scores().eval(),
        (X, 3),
        {"mask": torch.ones(2, 10)},
        dynamic_shapes={"images": batch, "mask": batch},
    )
    rows = {node.name: node for node in graph.nodes}
    conv, linear = rows["conv2d"], rows["linear"]
    assert (conv.value, conv.target) == ("float32[batch, 4, 6, 6]", "aten.conv2d.default")
    assert conv.line.text == "hidden = self.norm(self.conv(images)).relu()"
    assert linear.line.place.startswith("models.py:")
    assert "p_conv_weight" not in rows
    assert repr(graph).startswith("Scores: 8 operations, 6 parameters (1,498 numbers)\n")


def test_an_input_whose_name_begins_as_a_parameters_is_a_row():
    graph = capture(module(lambda self, x, c_last, p_keep: x * p_keep + c_last), (X[0],) * 3)
    assert {"x", "c_last", "p_keep"} <= {node.name for node in graph.nodes}


def test_both_branches_of_cond_are_rows_and_markup_stays_text():
    evil = type("<script>alert(1)</script>", (Cond,), {})
    graph = capture(evil().eval(), torch.ones(3))
    assert {"aten.add.Tensor", "aten.sub.Tensor", "cond"} <= {n.target for n in graph.nodes}
    assert "<script>" not in graph._repr_html_()


def test_long_graph_is_cut_in_the_repr_and_whole_in_nodes():
    graph = capture(module(lambda self, x: sum([x] * 201)), torch.ones(1))
    assert len(graph.nodes) == 203
    assert "... 143 more nodes: see .nodes" in repr(graph)
    assert len(repr(graph).splitlines()) < 70


def test_model_is_left_as_it_was_found():
    model = Scores()
    model.head.eval()
    model.conv.register_forward_hook(lambda *_: None)
    with pytest.warns(TrainingModeWarning, match=r"Scores.*scores\.eval") as caught:
        graph = capture(model, X)
    assert caught[0].filename == __file__
    dropout = next(n for n in graph.program.graph.nodes if n.name == "dropout")
    assert dropout.args[2] is False
    assert (model.training, model.conv.training, model.head.training) == (True, True, False)
    assert len(model.conv._forward_hooks) == 1
    assert all(type(p) is nn.Parameter and p.requires_grad for p in model.parameters())
    assert model.norm.num_batches_tracked == 0


@dataclass(frozen=True)
class Kept:
    all: list


def test_a_capture_leaves_no_tensor_without_numbers_in_an_object_of_the_users():
    model = caching()
    with pytest.warns(UserWarning, match=r"assigns tensors to Cache\.\w+ in each call"):
        capture(model, X)
    assert (model.cache.last, model.cache.all) == (None, [])
    kept = Kept([])  # refuses setattr
    with pytest.warns(UserWarning, match=r"Kept\.all"):
        capture(module(lambda self, x: self.kept.all.append(x * 2) or x, kept=kept), X)
    assert kept.all == []


def test_failed_capture_gives_mode_and_gradients_back_and_eval_mode_gets_no_warning(capfd):
    model = nn.Sequential(nn.Linear(3, 3), Branch())
    with pytest.warns(TrainingModeWarning), pytest.raises(CaptureError) as caught:
        capture(model, torch.ones(3))
    assert "With strict=True: Unsupported: Data-dependent branching" in caught.value.reason
    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())
    assert capfd.readouterr() == ("", "")
    with warnings.catch_warnings(action="error"):
        capture(Scores().eval(), X)


def test_dimension_that_the_model_fixes_is_an_error_not_a_static_graph():
    with pytest.raises(CaptureError) as caught:
        capture(Table().eval(), torch.ones(2, 16, 8), dynamic_shapes={"x": {1: "length"}})
    error = caught.value
    assert error.line.number == Table.forward.__code__.co_firstlineno + 1
    assert error.reason.endswith(
        "x.shape[1] == 16; here x = Tensor[2, x.shape[1], 8], self.positions = Tensor[16, 8]."
    )
    assert "table[: x.shape[1]]" in error.hint
    assert "`dynamic_shapes`" in error.hint


@pytest.mark.parametrize("strict", [None, True])
@pytest.mark.parametrize(
    "at",
    [lambda n: n == 6, lambda n: n * (10 - n) == 24, lambda n: n * n == 36],
    ids=["6", "4 or 6", "once"],
)
def test_a_decision_of_python_that_fixes_a_dimension_has_its_line_and_its_own_hint(at, strict):
    model = module(lambda self, x: x * 2 if at(x.shape[0]) else x)
    with pytest.raises(CaptureError) as caught:
        capture(model, torch.ones(6, 4), dynamic_shapes={"x": {0: "n"}}, strict=strict)
    assert caught.value.line.file == __file__
    assert caught.value.hint.startswith("A Python decision")
    assert "assumes x.shape[0]" in caught.value.reason


def test_dimension_that_fits_at_one_size_only_is_an_error_too():
    pairs = module(lambda self, x: x.view(-1, 2, 4).sum(1))
    whole = module(lambda self, x: x * (2 if (x.shape[0] - 1) % 100 == 0 else 3))
    near = module(lambda self, x: x * (2 if 100 // (x.shape[0] - 5) > 20 else 3))  # not at 5
    apart = module(lambda self, x: x * (2 if max(x.shape[0] - 7, 7 - x.shape[0]) == 1 else 3))
    three = module(lambda self, x: x.view(-1, 2, 4).sum(1) + torch.ones(3, 4))
    named, auto = {"x": {0: "n"}}, {"x": {0: Dim.AUTO}}
    x = torch.ones(6, 4)
    for model, example in ((pairs, x), (whole, torch.ones(201, 1)), (near, x), (apart, x)):
        assert 0 in capture(model, example, dynamic_shapes=named).symbolic[0]
    assert capture(three, x, dynamic_shapes=auto)
    with pytest.raises(CaptureError, match=r"fixes x.shape\[0\] to 6") as caught:
        capture(three, x, dynamic_shapes=named)
    assert "(x.shape[0]//2) == 3" in caught.value.reason
    assert "stops" in repr(trace(caught.value))
    assert caught.value.line.file == __file__


class Stranger:
    def __init__(self, x):
        self.x = x


class Nameless(Stranger):
    pass


torch.utils._pytree.register_pytree_node(
    Nameless, lambda s: ([s.x], None), lambda leaves, _: Nameless(*leaves)
)


def lengths(self, x):
    rows = nn.utils.rnn.pack_padded_sequence(x[:, None, None], torch.ones(3).long(), True)
    return self.gru(rows)[0].data


def broken(self, x):
    raise RuntimeError("boom")


NUMPY = module(lambda self, x: torch.tensor(x.numpy() * 2))
UNPACKS = module(lambda self, x, boxes: x + boxes[0].x)


@pytest.mark.parametrize(
    ("model", "more", "reason", "hint"),
    [
        (Branch(), (), "Python needs a value", "torch.cond"),
        (NUMPY, (), "NumPy", "torch operations"),
        (module(lambda self, x: Stranger(x)), (), "Stranger", "register_dataclass(Stranger)"),
        (UNPACKS, ([Stranger(X)],), "'boxes' is or contains a Stranger", "node(Stranger, "),
        (module(lambda self, x, to: x.to(to)), (torch.float16,), "a dtype", "__init__"),
        (module(lambda self, x, rows: x[rows]), (slice(1),), "a slice", "__init__"),
        (UNPACKS, ([Nameless(X)],), "names of its tensors", "flatten_with_keys_fn"),
        (module(broken), (), "RuntimeError: boom", "Run the model itself"),
        (module(lengths, gru=nn.GRU(1, 1, batch_first=True)), (), "packed sequence", "mask"),
    ],
    ids=["branch", "NumPy", "result", "argument", "dtype", "slice", "nameless", "raises", "packed"],
)
def test_each_refusal_has_a_reason_and_a_hint(model, more, reason, hint):
    with pytest.raises(CaptureError) as caught:
        capture(model.eval(), (torch.ones(3), *more), strict=False)
    assert reason in caught.value.reason
    assert "Tensor," not in caught.value.reason, "torch's own classes are not to blame"
    assert hint in caught.value.hint
    assert caught.value.__cause__ is not None


THREE, N = torch.ones(3, 4), {0: "n"}


TENSORS = (THREE, THREE)
CALLS = [
    (torch.relu, X, {}, "builtin_function", "forward()"),
    (Branch(), (X, X), {"kwargs": {"y": 1}}, "(Tensor, Tensor, y=)", "(x)"),
    (Table(), X.to("meta"), {}, "meta", ".to('cpu')"),
    (Branch(), X, {"dynamic_shapes": {"y": N}}, "'y'", "'x'"),
    (Branch(), X, {"dynamic_shapes": "batch"}, "'batch'", "a dict by argument"),
    (SUM, TENSORS, {"dynamic_shapes": (N,)}, "{0: 'n'} for 'parts'", "a tuple of 2"),
    (SUM, TENSORS, {"dynamic_shapes": (N, N)}, "2 entries", "1 argument: 'parts'", "one tuple"),
    (PAIR, TENSORS, {"dynamic_shapes": ("n", None)}, "'n' for the tensor 'x'", "{0: 'batch'}"),
    (PAIR, TENSORS, {"dynamic_shapes": ({0: "n", -2: "m"}, None)}, "axis -2", "each once"),
    (PAIR, (THREE, 2), {"dynamic_shapes": (None, N)}, "'y'", "no tensor", "register_pytree_node"),
]


@pytest.mark.parametrize("call", CALLS)
def test_call_that_does_not_fit_says_what_was_passed_and_expected(call):
    model, args, options, *nouns = call
    with pytest.raises(InputError) as caught:
        capture(model.eval() if isinstance(model, nn.Module) else model, args, **options)
    for noun in nouns:
        assert noun in str(caught.value)


def test_hint_gets_the_name_that_the_user_gave_the_same_size_else_input_and_axis():
    model, x, auto = PAIR, torch.rand(4, 8), {0: Dim.AUTO, 1: Dim.AUTO}
    graph = capture(model, (x, x), dynamic_shapes={"x": auto, "y": N})
    assert graph.labels == [N, N]
    hinted = {0: Dim.DYNAMIC, 1: Dim.AUTO}
    graph = capture(model, (x, x), dynamic_shapes={"x": hinted, "y": hinted})
    assert graph.labels == [{0: "x_0", 1: "x_1"}] * 2
