"""Rates against known values and against brute force in exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest

from projections.rates import binomial_cdf, lower95, rate_ratio, sample_under, upper95


def exact_cdf(count: int, of: int, rate: Fraction) -> Fraction:
    return sum((comb(of, k) * rate**k * (1 - rate) ** (of - k) for k in range(count + 1)), Fraction(0))


@pytest.mark.parametrize("of", [1, 7, 60, 400])
@pytest.mark.parametrize("percent", [1, 30, 50, 99])
def test_the_binomial_distribution_is_the_exact_one(of: int, percent: int) -> None:
    for count in {0, of // 50, of // 3, of // 2, of - 1, of}:
        exact = float(exact_cdf(count, of, Fraction(percent, 100)))
        assert binomial_cdf(count, of, percent / 100) == pytest.approx(exact, rel=1e-9, abs=1e-12)


def test_long_samples_lose_nothing() -> None:
    assert binomial_cdf(5_000, 10_000, 0.5) == pytest.approx(0.5 + comb(10_000, 5_000) / 2**10_001, rel=1e-9)
    assert upper95(30_000, 40_000) == pytest.approx(0.75355, abs=5e-5)


@pytest.mark.parametrize(("count", "of", "bound"), [(0, 20, 0.1391), (0, 59, 0.0495), (1, 20, 0.2161), (20, 20, 1)])
def test_bounds_that_are_in_tables(count: int, of: int, bound: float) -> None:
    assert upper95(count, of) == pytest.approx(bound, abs=5e-5)


def test_the_lower_bound_is_the_upper_one_of_the_rest() -> None:
    assert lower95(20, 20) == pytest.approx(0.05 ** (1 / 20))
    assert lower95(0, 20) == 0
    assert upper95(0, 0) is lower95(0, 0) is None


@pytest.mark.parametrize("count", [0, 1, 5])
def test_the_sample_that_would_show_it_is_the_smallest_one(count: int) -> None:
    needed = sample_under(count, 0.05)
    assert needed is not None
    assert (upper95(count, needed) or 1) < 0.05 <= (upper95(count, needed - 1) or 0)
    assert sample_under(0, 0.05) == 59
    assert sample_under(0, 1e-9) is None


def test_the_ratio_of_two_rates_has_the_exact_conditional_interval() -> None:
    """Of 60 in 100 the exact 95 % interval is 0.4972 to 0.6967."""
    found = rate_ratio(60, 10, 40, 10)
    assert found is not None
    assert found.ratio == 1.5
    assert (found.low, found.high) == (pytest.approx(0.4972 / 0.5028, rel=1e-3), pytest.approx(2.2971, rel=1e-3))
    assert found.rose is None


def test_the_interval_has_its_level_at_either_end() -> None:
    for now, before, hours in ((9, 2, 3.0), (2, 9, 1.0), (25, 4, 0.5)):
        found = rate_ratio(now, hours, before, 1.0)
        assert found is not None
        assert found.high is not None
        low, high = (ratio * hours / (ratio * hours + 1) for ratio in (found.low, found.high))
        assert 1 - exact_cdf(now - 1, now + before, Fraction(low)) == pytest.approx(0.025)
        assert exact_cdf(now, now + before, Fraction(high)) == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("now", "before", "rose"), [(5, 0, None), (6, 0, True), (0, 5, None), (0, 6, False), (0, 0, None), (30, 10, True)]
)
def test_it_rose_only_where_the_interval_excludes_one(now: int, before: int, rose: bool | None) -> None:
    found = rate_ratio(now, 1, before, 1)
    assert found is not None
    assert found.rose is rose


def test_twice_as_many_in_twice_the_time_is_no_rise() -> None:
    found = rate_ratio(200, 20, 100, 10)
    assert found is not None
    assert found.ratio == 1
    assert rate_ratio(5, 10, 3, 0) is None
