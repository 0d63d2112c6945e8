"""What is said of times, where the truth is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from onnx_workbench.timing.statistics import Ratio, holm, ratios, welch

ROUNDS = 20


def constant(*seconds, rounds=ROUNDS):
    """Replicates whose rounds all took the same."""
    return [np.full(rounds, value) for value in seconds]


@pytest.mark.parametrize(
    ("value", "low", "high", "differs", "said"),
    [
        (1.10, 1.04, 1.20, True, "faster"),
        (0.90, 0.80, 0.96, True, "slower"),
        (1.00, 0.98, 1.02, False, "same"),
        (1.02, 1.015, 1.025, True, "same"),
        (1.10, 1.01, 1.20, False, "undecided"),  # Holm's correction says no
        (1.02, 1.005, 1.06, True, "undecided"),  # it differs, by less than what matters
        (1.00, 0.80, 1.25, False, "noisy"),
    ],
)
def test_verdict_needs_interval_and_difference_that_matters(value, low, high, differs, said):
    ratio = Ratio(value, low, high, differs=differs)
    assert ratio.verdict == said
    for bar in ("contended", "untrusted"):
        barred = replace(ratio, bar=bar)
        assert barred.verdict == bar
        assert bar in barred.sentence("b", "a")
    assert replace(ratio, matters=0.3).verdict == "same"


@pytest.mark.parametrize(("count", "freedom"), [(3, 2), (4, 3), (5, 3), (6, 4)])
def test_interval_is_students_and_stopping_on_width_costs_one_degree(count, freedom):
    logs = np.array([0.10, 0.14, 0.09, 0.12, 0.11, 0.13][:count])
    found = ratios(constant(*[1e-3] * count), {"b": constant(*(1e-3 / np.exp(logs)))}, 0.03)["b"]
    half = stats.t.ppf(0.975, freedom) * logs.std(ddof=1) / math.sqrt(count)
    middle = logs.mean()
    assert np.log([found.value, found.low, found.high]) == pytest.approx(
        [middle, middle - half, middle + half]
    )


def test_what_a_round_does_to_both_does_not_count():
    hit = np.array([1, 1, 5, 1, 1, 9, 1, 2.0])
    slow = [1e-3 * hit, 3e-3 * hit]
    found = ratios(slow, {"b": [times / 2 for times in slow]}, 0.03)["b"]
    assert (found.low, found.high) == pytest.approx((2.0, 2.0))


def test_one_replicate_has_a_wider_interval_of_its_median():
    found = ratios(constant(4e-3), {"b": constant(1e-3)}, 0.03)["b"]
    assert (found.value, found.low, found.high) == pytest.approx((4, 4 / 1.03, 4 * 1.03))


def simulated(rng, count, truth, spread=0.01, noise=0.02):
    """Replicates of a baseline and of what takes ``truth`` times as long.

    Processes differ by ``spread``, rounds drift for both alike, and blocks are noisy.
    """
    drift = np.exp(np.cumsum(rng.normal(0, 0.01, (count, ROUNDS)), axis=1))
    pair = []
    for factor in (1.0, truth):
        process, block = rng.normal(0, spread, (count, 1)), rng.normal(0, noise, drift.shape)
        pair.append(list(1e-3 * factor * drift * np.exp(process + block)))
    return pair


def races(count, truth, times=300):
    rng = np.random.default_rng(count)
    pairs = [simulated(rng, count, truth) for _ in range(times)]
    return [ratios(one, {"b": other}, 0.03)["b"] for one, other in pairs]


@pytest.mark.parametrize("count", [3, 6])
def test_interval_covers_the_truth_and_verdicts_are_seldom_false(count):
    found = races(count, truth=1.0)
    assert np.mean([ratio.low <= 1.0 <= ratio.high for ratio in found]) > 0.915  # 0.95 - 3 sd
    assert np.mean([ratio.verdict in ("faster", "slower") for ratio in found]) < 0.02


def test_difference_of_five_percent_is_found():
    found = races(8, truth=1.05, times=100)
    assert np.mean([ratio.verdict == "slower" for ratio in found]) > 0.9


def test_holm_tests_the_smallest_p_hardest_and_stops_at_the_first_that_stands():
    assert holm({"a": 0.03, "b": 0.02, "c": 0.04}) == set()
    assert holm({"a": 0.001, "b": 0.02, "c": 0.04}) == {"a", "b", "c"}
    assert holm({"a": 0.001, "b": 0.03, "c": 0.04}) == {"a"}


def test_welch_compares_races_that_share_no_process():
    then, now = constant(1.00, 1.01, 0.99), constant(0.50, 0.505, 0.495)
    found = welch(then, now, 0.03)
    logs = [np.log([times[0] for times in each]) for each in (then, now)]
    low, high = stats.ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
    assert (found.value, found.verdict) == (pytest.approx(2.0), "faster")
    assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)))
    single = welch(constant(1.0), constant(0.5), 0.03)
    assert (single.low, single.high) == pytest.approx((2 / 1.03, 2 * 1.03))
