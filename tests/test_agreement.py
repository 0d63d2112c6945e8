"""verify(): two results, leaf by leaf."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from onnx_workbench import verify
from onnx_workbench.errors import InputError

INF, NAN = math.inf, math.nan
BIG = torch.tensor([2**60])


def same(a, b, **kwargs):
    return verify(lambda: a, lambda: b, (), **kwargs)


def test_the_worst_number_is_named_with_its_place():
    a = torch.zeros(2, 3)
    b = a.clone()
    b[1, 2] = 0.5
    agreement = same({"x": (a, a)}, {"x": (a, b)})
    worst = agreement.worst
    assert not agreement
    assert (worst.path, worst.worst, worst.index) == ("result['x'][1]", 0.5, (1, 2))
    assert worst.reason == "1 of 6 differ"
    assert worst.summary.startswith("1 of 6 differ, by up to 5.0e-01 (relative 5.")
    assert repr(agreement).startswith("DIFFERENT: 1 of 2 outputs differs\n")


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (torch.zeros(2, 3), torch.zeros(1, 3), "a is float32[2, 3], b is float32[1, 3]"),
        (torch.zeros(()), torch.zeros(1), "a is float32[], b is float32[1]"),
        (torch.zeros(2), torch.zeros(2).double(), "a is float32[2], b is float64[2]"),
        ({"a": torch.zeros(1)}, (None,), "a is dict(a: Tensor), b is tuple(NoneType)"),
        ((None, 3), (None, 4), "a is 3, b is 4"),
        (torch.ones(2, dtype=torch.complex64), torch.ones(2, 2), "real and imaginary parts"),
    ],
)
def test_structure_shapes_and_dtypes_must_agree_and_nothing_is_broadcast(a, b, reason):
    assert reason in same(a, b).worst.reason


VERDICTS = [
    *(
        (torch.tensor(a), torch.tensor(b), verdict)
        for a, b, verdict in [
            ([NAN, INF, -INF], [NAN, INF, -INF], True),
            ([1.0], [NAN], False),
            ([NAN], [1.0], False),
            ([INF], [-INF], False),
            ([INF], [1e38], False),
            ([1e38], [INF], False),
            ([0.0], [-0.0], True),
            ([], [], True),
            ([True], [False], False),
        ]
    ),
    (BIG, BIG.clone(), True),
    (BIG, BIG + 1, False),  # which a double does not hold
    ((torch.ones(1), None, 3), (torch.ones(1), None, 3), True),
    (torch.ones(2), 1.0, False),
    (3.0, torch.tensor(3.0), False),
    (torch.ones(2), np.ones(2, np.float32), True),
    (np.ones((2, 2)), np.zeros((2, 2)), False),
    (np.array(["a"]), np.array(["a"]), True),
    (0.1 + 0.2, 0.3, True),
    (0.1, 0.2, False),
    (NAN, NAN, True),
    ({"x": object}, {"x": object}, True),
    (2, "2", False),
    (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),) * 2 + (True,),
    (torch.eye(2).to_sparse(), torch.eye(2).to_sparse(), True),
]


@pytest.mark.parametrize(("a", "b", "verdict"), VERDICTS)
def test_results_of_any_kind_get_a_verdict(a, b, verdict):
    found = same(a, b)
    assert bool(found) is verdict
    assert verdict or found.worst.reason


def test_a_large_tensor_is_compared_to_its_end_and_an_infinity_hides_no_error():
    a = torch.full((100_000,), 2.0)
    a[:3] = torch.tensor([INF, -INF, NAN])
    b = a.clone()
    assert same(a, b)
    b[-1] = 2.02
    leaf = same(a, b).worst
    assert (leaf.index, leaf.reason) == ((99_999,), "1 of 100,000 differ")
    assert leaf.relative == pytest.approx(0.02 / 2.2, rel=1e-3)
    b[-1], b[0] = 2.0, -INF
    assert same(a, b).worst.index == (0,)
    assert "agree, but no number is finite" in repr(same(a[:3], a[:3]))
    assert "agree, but empty" in repr(same(a[:0], a[:0]))
    # a large error that is allowed does not hide a small one that is not
    assert same(torch.tensor([1e6, 0.0]), torch.tensor([1e6 + 90, 20.0])).worst.index == (1,)


def test_a_callable_may_change_its_input_and_a_module_is_compared_in_eval_mode():
    x = torch.ones(2)
    assert not verify(lambda x: x.mul_(2), lambda x: x, x)
    assert torch.equal(x, torch.ones(2))
    model = nn.Dropout(0.5)
    with pytest.warns(UserWarning, match="training mode"):
        assert verify(model, lambda x: x, torch.ones(100))
    assert model.training
    whole = nn.Sequential(nn.Dropout(0.5)).eval()
    whole[0].train()
    with pytest.warns(UserWarning, match="A part of Sequential"):
        assert verify(whole, lambda x: x, torch.ones(100))
    assert [module.training for module in whole.modules()] == [False, True]


def test_what_cannot_be_called_or_refuses_the_arguments_is_named_with_its_line():
    def takes_two(x, y):
        return x @ y

    def fails(x):
        return x @ torch.ones(5, 5)

    with pytest.raises(InputError, match="a Tensor as 'b'"):
        verify(torch.relu, torch.ones(1), torch.ones(1))
    for one, other, name in ((torch.relu, takes_two, "'b'"), (fails, torch.relu, "'a'")):
        with pytest.raises(InputError, match=f"called {name}, a function") as caught:
            verify(one, other, torch.ones(2, 3))
        assert caught.value.__cause__ is not None
    assert caught.value.line.text == "return x @ torch.ones(5, 5)"


NESTED = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)


@pytest.mark.parametrize("value", [NESTED, torch.ones(2, device="meta")], ids=["nested", "meta"])
def test_a_tensor_without_numbers_at_equal_places_is_refused(value):
    for args in ((), value):  # as a result, as an argument
        with pytest.raises(InputError, match=r"a nested tensor|on the meta device") as caught:
            verify(lambda *args: value, lambda *args: value, args)
        assert "unbind" in caught.value.hint or "device='cpu'" in caught.value.hint


# Tolerance


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


@pytest.mark.parametrize("given", [1e-3, (1e-3, 1e-4), [1e-3, 1e-4], np.float64(1e-3)])
def test_a_tolerance_is_a_pair_or_the_relative_one_alone_and_is_printed(given):
    agreement = same(torch.ones(2), torch.tensor([1.0, 1.0005]), tolerance=given)
    assert (agreement.worst.tolerance, agreement.worst.reason) == ((1e-3, 1e-4), "")
    assert "1e-03,1e-04" in repr(agreement)
    assert not same(torch.ones(2), torch.tensor([1.0, 1.005]), tolerance=given)
    assert not same(torch.tensor([INF]), torch.tensor([-INF]), tolerance=(2.0, 0.0))
    most = torch.tensor([1e308], dtype=torch.float64)  # twice as much is an infinity
    assert not same(most, most + INF, tolerance=(2.0, 0.0))


NO_TOLERANCES = [[], (1e-3,), (1, 2, 3), NAN, -1e-3, INF, (1e-3, NAN), (-1, 0), True, "1e-3", {}]


def test_what_is_no_tolerance_is_refused_before_anything_runs():
    def never(x):
        raise AssertionError

    for given, values in product(NO_TOLERANCES, (False, True)):
        with pytest.raises(InputError, match="tolerance"):
            verify(never, never, torch.ones(1), tolerance=given, values=values)


def test_numbers_near_zero_have_the_scale_of_their_tensor():
    a = torch.tensor([1000.0, 0.0, 1e-6])
    assert same(a, a + torch.tensor([0.0, 1e-4, 1e-4]))
    assert not same(a, a + torch.tensor([0.0, 1.0, 0.0]))
    tiny = torch.tensor([1e-9, 3e-9])
    assert not same(tiny, torch.zeros(2)), "a tensor of small numbers is not zero"
    assert same(tiny, tiny * (1 + 1e-5))
    assert same(torch.zeros(2), torch.tensor([0.0, 1e-8]))


@pytest.mark.parametrize("fill", [-1e4, -1e9, torch.finfo(torch.float32).min])
def test_what_a_mask_fills_in_hides_no_error(fill):
    a = torch.tensor([fill, fill, 2.5, 1.0])
    assert not same(a, a + torch.tensor([0.0, 0.0, 0.01, 0.0]))
    assert same(a, a + torch.tensor([0.0, 0.0, 1e-5, 0.0]))
    assert not same(a, torch.tensor([fill, 0.0, 2.5, 1.0]))


@pytest.mark.parametrize(
    ("inside", "outside", "error"),
    [
        (torch.float16, torch.float32, 3e-3),
        (torch.bfloat16, torch.float32, 2e-2),
        (torch.float32, torch.float64, 3e-5),
    ],
)
def test_the_tolerance_is_that_of_the_computation(inside, outside, error):
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 64).to(inside), torch.randn(4, 64)

    def model(x):  # one result looks as exact as float32, or float64, and a second one is
        return layer(x.to(inside)).to(outside), x * 2

    def off(part, error=error):
        return lambda x: tuple(y * (1 + error * (i == part)) for i, y in enumerate(model(x)))

    assert verify(model, off(0), x)
    assert not verify(model, off(0, 20 * error), x)
    if inside != torch.float32:
        assert not verify(model, off(1), x), "the other result is computed in float32"


def test_a_lookup_in_a_coarse_table_rounds_nothing():
    table = torch.randn(10, 8).half()

    def looks(index):
        return table[index].float() * 2

    def adds(index):
        return (table[index] + table[0]).float()

    index = torch.tensor([1, 3])
    assert not verify(looks, lambda index: looks(index) * (1 + 1e-3), index)
    assert verify(adds, lambda index: adds(index) * (1 + 1e-3), index)
