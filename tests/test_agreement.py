import math

import pytest
import torch
from torch import nn

from onnx_workbench import verify
from onnx_workbench.errors import InputError

INF, NAN = math.inf, math.nan


def same(a, b, **kwargs):
    return verify(lambda: a, lambda: b, **kwargs)


def test_the_worst_number_is_named_with_its_place():
    a = torch.zeros(2, 3)
    b = a.clone()
    b[1, 2] = 0.5
    agreement = same({"x": (a, a)}, {"x": (a, b)})
    assert not agreement
    assert agreement.worst.path == "result['x'][1]"
    assert (agreement.worst.worst, agreement.worst.index) == (0.5, (1, 2))
    assert agreement.worst.reason == "1 of 6 differ"
    assert repr(agreement).startswith("DIFFERENT: 1 of 2 outputs differs\n")


def test_shapes_are_never_broadcast():
    agreement = same(torch.zeros(2, 3), torch.zeros(1, 3))
    assert not agreement
    assert agreement.worst.reason == "a is float32[2, 3], b is float32[1, 3]"
    assert not same(torch.zeros(()), torch.zeros(1))


def test_dtypes_must_agree():
    assert same(torch.zeros(2), torch.zeros(2).double()).worst.reason == (
        "a is float32[2], b is float64[2]"
    )


def test_structures_must_agree():
    agreement = same({"a": torch.zeros(1)}, (torch.zeros(1), None))
    assert agreement.worst.reason == "a is dict(a: Tensor), b is tuple(Tensor, NoneType)"


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([NAN, INF, -INF], [NAN, INF, -INF], True),
        ([1.0], [NAN], False),
        ([NAN], [1.0], False),
        ([INF], [-INF], False),
        ([INF], [1e38], False),
        ([1e38], [INF], False),
        ([0.0], [-0.0], True),
        ([], [], True),
    ],
)
def test_nan_agrees_with_nan_and_an_infinity_with_itself(a, b, verdict):
    assert bool(same(torch.tensor(a), torch.tensor(b))) is verdict


def test_no_tolerance_is_so_wide_that_infinities_of_other_signs_agree():
    assert not same(torch.tensor([INF]), torch.tensor([-INF]), tolerance=(2.0, 0.0))


@pytest.mark.parametrize(
    ("dtype", "fine", "wrong"),
    [
        (torch.float64, 1 + 5e-8, 1 + 5e-7),
        (torch.float32, 1 + 5e-5, 1 + 5e-4),
        (torch.float16, 1 + 5e-3, 1 + 5e-2),
        (torch.bfloat16, 1 + 4e-2, 1 + 4e-1),
    ],
)
def test_the_tolerance_goes_by_dtype(dtype, fine, wrong):
    one = torch.ones(1, dtype=dtype)
    assert same(one, torch.tensor([fine], dtype=dtype))
    assert not same(one, torch.tensor([wrong], dtype=dtype))


def test_the_tolerance_is_printed_and_can_be_given():
    agreement = same(torch.ones(1), torch.tensor([1.05]), tolerance=(0.1, 0.0))
    assert agreement
    assert "1e-01,0e+00" in repr(agreement)


def test_whole_numbers_agree_exactly_even_beyond_what_a_double_holds():
    big = torch.tensor([2**60])
    assert same(big, big.clone())
    assert not same(big, big + 1)
    assert not same(torch.tensor([True]), torch.tensor([False]))


def test_a_large_error_that_is_allowed_does_not_hide_a_small_one_that_is_not():
    agreement = same(torch.tensor([1e6, 0.0]), torch.tensor([1e6 + 10, 1.0]))
    assert agreement.worst.index == (1,)


def test_leaves_that_are_no_tensors_are_compared_too():
    assert same((torch.ones(1), None, 3), (torch.ones(1), None, 3))
    assert same((None, 3), (None, 4)).worst.reason == "a is 3, b is 4"


def test_a_callable_that_changes_its_input_does_not_disturb_the_other():
    x = torch.ones(2)
    assert not verify(lambda x: x.mul_(2), lambda x: x, x)
    assert torch.equal(x, torch.ones(2))


def test_modules_are_compared_in_eval_mode_and_left_as_they_were():
    model = nn.Dropout(0.5)
    with pytest.warns(UserWarning, match="training mode"):
        assert verify(model, lambda x: x, torch.ones(100))
    assert model.training


def test_something_that_cannot_be_called():
    with pytest.raises(InputError) as caught:
        verify(torch.relu, torch.ones(1), torch.ones(1))
    assert str(caught.value) == (
        "verify() was given a Tensor as 'b', and it takes two callables and their arguments: "
        "verify(model, artifact, x)."
    )
