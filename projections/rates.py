"""Rates with what their sample shows: bounds of a share, how many more would show it, the ratio of two rates.

Exact binomial statistics (no normal approximation), for counts up to some hundred thousand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import exp, lgamma, log, log1p

TAIL = 0.05  # of a one-sided bound; the interval of a ratio has half of it on either side
LARGEST = 1_000_000  # a sample beyond which nobody is told to wait for it


@lru_cache(maxsize=1_024)
def upper95(count: int, of: int) -> float | None:
    """One-sided Clopper-Pearson 95 % upper bound of a rate of which `count` in `of` were seen; None of nothing.

    The p at which seeing `count` or fewer has probability 0.05 (Clopper and Pearson 1934), by bisection.
    """
    return None if of == 0 else _upper(count, of, TAIL)


def lower95(count: int, of: int) -> float | None:
    """The lower bound to `upper95`: the p at which seeing `count` or more has probability 0.05."""
    rest = upper95(of - count, of)
    return None if rest is None else 1 - rest


def sample_under(count: int, bound: float) -> int | None:
    """The smallest sample in which `count` seen would have an upper bound below `bound`; None beyond LARGEST.

    `sample_under(0, 0.05)` is 59: 58 without a single one still allow for 5.03 %.
    """
    low, high = count, count + 1
    while high <= LARGEST and not _under(count, high, bound):
        low, high = high, high * 2
    if high > LARGEST:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _under(count, middle, bound) else (middle, high)
    return high


def _under(count: int, of: int, bound: float) -> bool:
    return binomial_cdf(count, of, bound) < TAIL


@dataclass(frozen=True, slots=True)
class RateRatio:
    """How many times the rate before a rate is, with its 95 % interval; `high` None: no bound can be given."""

    ratio: float | None
    low: float
    high: float | None

    @property
    def rose(self) -> bool | None:
        """Whether the rate rose: None where the interval includes 1."""
        return True if self.low > 1 else False if self.high is not None and self.high < 1 else None


def rate_ratio(count: int, hours: float, before: int, hours_before: float) -> RateRatio | None:
    """The ratio of two Poisson rates, `count` in `hours` over `before` in `hours_before`; None where there is no time.

    The exact conditional 95 % interval: given their sum, `count` is binomial with p = r·h / (r·h + h0), so that the
    Clopper-Pearson limits of p are those of the ratio r (Przyborowski and Wilenski 1940; Lehmann and Romano, section
    4.5). Counts that come in bursts vary more than Poisson ones, and then it is too narrow.
    """
    if hours <= 0 or hours_before <= 0:
        return None
    both, exposure = count + before, hours_before / hours
    if not both:
        return RateRatio(None, 0.0, None)
    low, high = 1 - _upper(before, both, TAIL / 2), _upper(count, both, TAIL / 2)
    return RateRatio(
        count / before * exposure if before else None,
        low / (1 - low) * exposure,
        high / (1 - high) * exposure if high < 1 else None,
    )


def _upper(count: int, of: int, tail: float) -> float:
    if count >= of:
        return 1.0
    return _falls_to(tail, lambda rate: binomial_cdf(count, of, rate))


def _falls_to(value: float, falling: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > value else (low, middle)
    return high


def binomial_cdf(count: int, of: int, rate: float) -> float:
    """The probability of `count` or fewer in `of`, each with probability `rate`: the smaller tail, summed from its
    largest term, so that neither long samples nor small tails lose their figures."""
    if count >= of or rate <= 0:
        return 1.0
    if rate >= 1:
        return 0.0
    if count < of * rate:
        return _tail(count, of, rate)
    return 1 - _tail(of - count - 1, of, 1 - rate)


def _tail(count: int, of: int, rate: float) -> float:
    """The probability of `count` or fewer, where that is below the mean."""
    logarithm = lgamma(of + 1) - lgamma(count + 1) - lgamma(of - count + 1)
    term = total = exp(logarithm + count * log(rate) + (of - count) * log1p(-rate))
    for k in range(count, 0, -1):
        term *= k / (of - k + 1) * (1 - rate) / rate
        total += term
        if term < total * 1e-17:
            break
    return total
