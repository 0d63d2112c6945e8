"""Dynamic shapes from real calls."""

import pytest
import torch
from torch import nn

from onnx_workbench import capture, observe, probe
from onnx_workbench.errors import InputError


class Nested(nn.Module):
    def forward(self, batch, scale=2, **rest):
        return batch["a"] * scale + batch["b"][0]


class Sum(nn.Module):
    def forward(self, x, y):
        return x + y


def batch(rows):
    return {"a": torch.ones(rows, 3), "b": [torch.ones(rows, 3)]}


def test_what_changed_between_the_calls_is_dynamic_and_nothing_else():
    model = Sum().eval()
    with observe(model) as seen:
        model(torch.ones(2, 3), torch.ones(2, 3))
        model(torch.ones(4, 3), torch.ones(1, 3))
        model(torch.ones(4, 3), y=torch.ones(4, 3))
    assert seen.dynamic_shapes == {"x": {0: "x_0"}, "y": {0: "y_0"}}
    assert repr(seen).splitlines() == [
        "3 calls",
        "input  example        dynamic",
        "-----  -------------  ---------------",
        "x      float32[2, 3]  float32[x_0, 3]",
        "y      float32[2, 3]  float32[y_0, 3]",
    ]


def test_an_input_that_never_changed_is_left_out():
    model = Sum().eval()
    with observe(model) as seen:
        for rows in (2, 4):
            model(torch.ones(rows, 3), torch.ones(3))
    assert seen.dynamic_shapes == {"x": {0: "x_0"}, "y": None}
    assert probe(model, (), seen.kwargs, dynamic_shapes=seen.dynamic_shapes)


def test_nested_dimensions_of_the_same_sizes_have_one_name_and_numbers_may_be_positional():
    model = Nested().eval()
    with observe(model) as seen:
        model(batch(2), 3)
        model(batch(4), scale=3)
    assert seen.dynamic_shapes["batch"] == {"a": {0: "batch_a_0"}, "b": [{0: "batch_a_0"}]}
    assert seen.kwargs["scale"] == 3
    assert "batch['b'][0]" in repr(seen)
    graph = capture(model, (), seen.kwargs, dynamic_shapes=seen.dynamic_shapes)
    assert graph.axes == ({0: "batch_a_0"}, {0: "batch_a_0"})


def test_the_model_is_given_back_as_it_was():
    model = Sum().eval()
    with pytest.raises(RuntimeError), observe(model):
        model(torch.ones(2), torch.ones(3))
    assert "forward" not in vars(model)

    def own(x, y):
        return x

    model.forward = own
    with observe(model):
        model(torch.ones(2), torch.ones(2))
    assert model.forward is own


def test_no_call_is_told_when_the_answer_is_asked_for():
    with observe(Sum().eval()) as seen:
        pass
    with pytest.raises(InputError) as caught:
        _ = seen.dynamic_shapes
    assert str(caught.value) == (
        "No dynamic shapes can be inferred from what was seen of Sum: No inputs were captured.\n"
        "Call it inside `with observe(model) as seen:` at least twice, with other sizes and with "
        "the same arguments otherwise."
    )


class Nameless(nn.Module):
    def forward(self, x, /, y, *rest, scale):
        return (x + y) * scale + sum(tensor.sum() for tensor in rest)


def test_arguments_without_a_name_are_seen_too():
    model = Nameless().eval()
    with observe(model) as seen:
        for rows, length in ((2, 4), (3, 5)):
            x = torch.ones(rows, 8)
            assert model(x, x, torch.ones(6), torch.ones(length), scale=x).shape == (rows, 8)
    rows, length = "x_0", "rest_1_0"
    assert seen.dynamic_shapes == {
        "x": {0: rows},
        "y": {0: rows},
        "rest": (None, {0: length}),
        "scale": {0: rows},
    }
    assert [tuple(tensor.shape[1:]) for tensor in seen.args] == [(8,), (8,), (), ()]
    assert "rest[1]" in repr(seen)
    graph = capture(model, seen.args, seen.kwargs, dynamic_shapes=seen.dynamic_shapes)
    assert graph.labels == [{0: rows}, {0: rows}, {}, {0: length}, {0: rows}]
    assert "forward" not in vars(model)
