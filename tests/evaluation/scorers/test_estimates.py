"""Scores and their standard errors, against the textbook's and a bootstrap's."""

import math
import random
import statistics

import pytest

from xgenmm_jax.evaluation.scorers.estimates import Term, average, combine, mean, ratio

VALUES = [1.0, 0.0, 1.0, 1.0, 0.0, 0.3, 1.0, 0.9]


def test_a_mean_has_the_standard_error_of_the_mean():
    estimate = mean(VALUES)
    assert estimate.value == pytest.approx(100 * statistics.fmean(VALUES))
    assert estimate.stderr == pytest.approx(100 * statistics.stdev(VALUES) / math.sqrt(len(VALUES)))


def test_examples_that_hang_together_count_as_one():
    """Each example twice in one group: the error is that of the examples alone, not smaller by the root of two."""
    doubled = mean([value for value in VALUES for _ in range(2)], [index for index in range(8) for _ in range(2)])
    assert doubled.stderr == pytest.approx(mean(VALUES).stderr)
    assert doubled.items == 16


def test_f1_has_the_error_that_a_bootstrap_over_groups_has():
    rng = random.Random(0)
    groups = [[(rng.random() < 0.7, rng.random() < 0.5) for _ in range(4)] for _ in range(200)]

    def f1(groups):
        pairs = [pair for group in groups for pair in group]
        hits = sum(said and true for said, true in pairs)
        return 2 * hits / (sum(said for said, _ in pairs) + sum(true for _, true in pairs))

    terms = [
        Term(number, 2.0 * (said and true), float(said) + float(true))
        for number, group in enumerate(groups)
        for said, true in group
    ]
    estimate = ratio(terms, scale=1.0)
    assert estimate.value == pytest.approx(f1(groups))
    draws = [f1(rng.choices(groups, k=len(groups))) for _ in range(400)]
    assert estimate.stderr == pytest.approx(statistics.stdev(draws), rel=0.15)


def test_scores_over_the_same_groups_combine_with_their_covariance():
    """A score and its own negative have no error; independent ones add in squares."""
    one = mean(VALUES)
    assert combine([(1.0, one), (-1.0, one)]).stderr == pytest.approx(0.0)
    other = mean(VALUES, [f"other {index}" for index in range(8)])
    both = average([one, other])
    assert both.value == pytest.approx(one.value)
    assert both.stderr == pytest.approx(one.stderr / math.sqrt(2), rel=0.05)


def test_nothing_to_divide_by_is_zero_and_one_group_has_no_error():
    assert ratio([]).value == 0.0
    assert math.isnan(mean([1.0]).stderr)
