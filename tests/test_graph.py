import re
import warnings

import pytest
import torch
from models import Branch, Cond, Scores, Table
from torch import nn
from torch.export import Dim

from onnx_workbench import capture
from onnx_workbench.errors import CaptureError, InputError, TrainingModeWarning

X = torch.ones(2, 1, 8, 8)


def test_the_table_has_the_lines_of_the_model_and_the_names_of_its_dimensions():
    graph = capture(
        Scores().eval(),
        (X, 3),
        {"mask": torch.ones(2, 10)},
        dynamic_shapes={"images": {0: "batch"}, "mask": {0: "batch"}},
    )
    rows = {node.name: node for node in graph.nodes}
    assert rows["conv2d"].value == "float32[batch, 4, 6, 6]"
    assert rows["conv2d"].target == "aten.conv2d.default"
    assert rows["conv2d"].line.text == "hidden = self.norm(self.conv(images)).relu()"
    assert rows["linear"].line.place.startswith("models.py:")
    assert "p_conv_weight" not in rows
    assert repr(graph).startswith("Scores: 8 operations, 6 parameters (1,498 values)\n")


def test_polish_shows_what_the_exporter_translates():
    polished = capture(Scores().eval(), X).polish()
    changes = {op: (was, now) for op, was, now in polished.changes()}
    assert changes["aten.dropout.default"] == (1, 0)
    assert changes["aten.batch_norm.default"] == (1, 0)
    assert "aten.conv2d.default" not in changes
    assert "polished:\ntarget" in repr(polished)


def test_both_branches_of_cond_are_rows():
    targets = [node.target for node in capture(Cond().eval(), torch.ones(3)).nodes]
    assert {"aten.add.Tensor", "aten.sub.Tensor", "cond"} <= set(targets)


def test_a_long_graph_is_cut_in_the_repr_and_whole_in_nodes():
    class Long(nn.Module):
        def forward(self, x):
            for _ in range(200):
                x = x + 1
            return x

    graph = capture(Long().eval(), torch.ones(1))
    assert len(graph.nodes) == 202
    assert "... 142 more nodes: see .nodes" in repr(graph)
    assert len(repr(graph).splitlines()) < 70


def test_markup_in_a_name_stays_text_in_html():
    evil = type("<script>alert(1)</script>", (Cond,), {})
    assert "<script>" not in capture(evil().eval(), torch.ones(3))._repr_html_()


def test_the_model_is_left_as_it_was_found():
    model = Scores()
    model.head.eval()
    seen = []
    model.conv.register_forward_hook(lambda *_: seen.append(1))
    with pytest.warns(TrainingModeWarning):
        capture(model, X)
    assert (model.training, model.conv.training, model.head.training) == (True, True, False)
    assert len(model.conv._forward_hooks) == 1
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    before = model.norm.num_batches_tracked.item()
    assert before == 0
    assert not any(type(p) is not nn.Parameter for p in model.parameters())


def test_a_model_in_training_mode_is_named_and_captured_in_eval_mode():
    message = (
        "Scores is in training mode. It is used in eval mode here and put back as it was; "
        "call scores.eval() yourself to silence this warning."
    )
    with pytest.warns(TrainingModeWarning, match=f"^{re.escape(message)}$") as caught:
        graph = capture(Scores(), X)
    assert caught[0].filename == __file__
    dropout = next(n for n in graph.program.graph.nodes if n.name == "dropout")
    assert dropout.args[2] is False


def test_a_model_in_eval_mode_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        capture(Scores().eval(), X)


def test_a_failed_capture_gives_the_mode_back_too():
    model = Branch().train()
    with pytest.warns(TrainingModeWarning), pytest.raises(CaptureError):
        capture(model, torch.ones(3))
    assert model.training


def test_a_branch_on_data_is_explained_with_its_line():
    with pytest.raises(CaptureError) as caught:
        capture(Branch().eval(), torch.ones(3))
    error = caught.value
    assert error.line.text == "if x.sum() > 0:"
    assert error.reason.startswith("Python needs a value that the graph only has when it runs")
    assert "With strict=True: Unsupported: Data-dependent branching" in error.reason
    assert "torch.cond" in error.hint
    assert error.__cause__ is not None


def test_nothing_is_printed_when_a_capture_fails(capfd):
    with pytest.raises(CaptureError):
        capture(Branch().eval(), torch.ones(3))
    assert capfd.readouterr() == ("", "")


def test_a_dimension_that_the_model_fixes_is_an_error_not_a_static_graph():
    with pytest.raises(CaptureError) as caught:
        capture(Table().eval(), torch.ones(2, 16, 8), dynamic_shapes={"x": {1: "length"}})
    error = caught.value
    assert error.line.number == Table.forward.__code__.co_firstlineno + 1
    assert error.reason == (
        "A dimension that was asked to stay dynamic is fixed by the model. There x.shape[1] == 16, "
        "where x = Tensor[2, x.shape[1], 8], self.positions = Tensor[16, 8]."
    )
    assert "table[: x.shape[1]]" in error.hint
    assert "`dynamic_shapes`" in error.hint


def test_a_dynamic_dimension_may_be_one_in_the_example():
    graph = capture(nn.ReLU().eval(), torch.ones(1, 3), dynamic_shapes={"input": {0: "batch"}})
    assert graph.nodes[0].value == "float32[batch, 3]"


class Numpy(nn.Module):
    def forward(self, x):
        return torch.tensor(x.numpy() * 2)


class Stranger:
    def __init__(self, x):
        self.x = x


class Odd(nn.Module):
    def forward(self, x):
        return Stranger(x)


class Lengths(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(1, 1, batch_first=True)

    def forward(self, x):
        rows = nn.utils.rnn.pack_padded_sequence(x[:, None, None], torch.ones(3).long(), True)
        return self.gru(rows)[0].data


class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("model", "reason", "repair"),
    [
        (
            Numpy(),
            "The model leaves torch for NumPy, and the graph ends there.",
            "Write that step with torch operations.",
        ),
        (
            Odd(),
            "An argument or a result is of a class that torch cannot take apart into tensors: "
            "Stranger.",
            "Use tensors, tuples, lists and dicts, or register the class before the call: "
            "torch.export.register_dataclass(Stranger) for a dataclass; for any other, "
            "torch.utils._pytree.register_pytree_node(Stranger, lambda c: ([c.a, c.b], None), "
            "lambda tensors, _: Stranger(*tensors), serialized_type_name='Stranger').",
        ),
        (
            Broken(),
            "RuntimeError: boom",
            "Run the model itself with these arguments: if it fails there too, mend that first. If "
            "it does not, torch.export cannot follow that line: write it with other operations.",
        ),
        (
            Lengths(),
            "Python needs a number, and what a tensor holds is not known when torch.export "
            "captures: lengths of a packed sequence, sizes or counts that are tensors.",
            "Pass it as a Python number, which is baked in, or do without: padded sequences with "
            "a mask, for example.",
        ),
    ],
    ids=["numpy", "class", "other", "number"],
)
def test_each_refusal_has_a_reason_and_a_repair(model, reason, repair):
    with pytest.raises(CaptureError) as caught:
        capture(model.eval(), torch.ones(3), strict=False)
    assert caught.value.reason == reason
    assert caught.value.hint == repair


def test_a_function_is_no_module():
    with pytest.raises(InputError) as caught:
        capture(torch.relu, X)
    assert str(caught.value) == (
        "capture() was given a builtin_function_or_method, and it takes a torch.nn.Module. "
        "Put the function into the forward() of a module, or pass the module itself."
    )


def test_arguments_that_forward_does_not_take():
    with pytest.raises(InputError) as caught:
        capture(Branch().eval(), (X, X), {"y": 1})
    assert str(caught.value) == (
        "The model was called with (Tensor, Tensor, y=) and takes (x): too many positional "
        "arguments. Pass the arguments as you would to the model itself."
    )


def test_an_input_on_another_device_is_named():
    with pytest.raises(InputError) as caught:
        capture(Table().eval(), torch.ones(2, 16, 8, device="meta"))
    assert str(caught.value) == (
        "An input lies on meta and the model on cpu; both must be on one device. "
        "Pass the input with .to('cpu'), or move the model."
    )


def test_dynamic_shapes_takes_the_names_of_forward():
    with pytest.raises(InputError) as caught:
        capture(Branch().eval(), X, dynamic_shapes={"y": {0: "batch"}})
    assert str(caught.value) == (
        "`dynamic_shapes` names 'y', and this call has the arguments 'x'. "
        "Use the names that forward() gives them."
    )
    with pytest.raises(InputError, match="takes a dict by argument"):
        capture(Branch().eval(), X, dynamic_shapes="batch")


def test_strict_capture_reads_the_bytecode_and_gives_the_same_operators():
    model = Scores().eval()
    assert capture(model, X, strict=True).operations == capture(model, X).operations


def test_a_hint_gets_the_name_that_the_user_gave_the_same_size_else_input_and_axis():
    class Sum(nn.Module):
        def forward(self, x, y):
            return x + y

    x = torch.rand(4, 8)
    graph = capture(
        Sum().eval(), (x, x), dynamic_shapes={"x": {0: Dim.AUTO, 1: Dim.AUTO}, "y": {0: "n"}}
    )
    assert graph.labels == [{0: "n"}, {0: "n"}]
    hinted = {0: Dim.DYNAMIC, 1: Dim.AUTO}
    graph = capture(Sum().eval(), (x, x), dynamic_shapes={"x": hinted, "y": hinted})
    assert graph.labels == [{0: "x_0", 1: "x_1"}] * 2


class Box:
    def __init__(self, tensor):
        self.tensor = tensor


class Unpacks(nn.Module):
    def forward(self, x, boxes):
        return x + boxes[0].tensor


def test_an_unregistered_container_is_named_with_its_argument_and_the_call_that_registers_it():
    with pytest.raises(CaptureError) as caught:
        capture(Unpacks().eval(), (torch.ones(2), [Box(torch.ones(2))]))
    assert "'boxes' is or holds one of Box." in caught.value.reason
    assert "Tensor," not in caught.value.reason, "the classes that torch knows are not to blame"
    assert "register_pytree_node(Box, " in caught.value.hint
