"""The difference of two measured values. Knows nothing of how it was measured."""

import math
from dataclasses import dataclass

from scipy.stats import norm

ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Difference:
    """How much larger the first of two values is.

    Attributes:
        value: First minus second; nan where it cannot be measured.
        low: Lower end of its 95% interval; nan where there is none.
        high: Upper end; nan where there is none.
        p_value: Two-sided, of no difference; nan where it cannot be tested.
        standard_error: Of `value`; nan where it is not known.
        method: How interval and p-value were made, or why there are none.
    """

    value: float
    low: float
    high: float
    p_value: float
    standard_error: float
    method: str

    @property
    def smallest(self) -> float:
        """The smallest true difference that these rows would show with 80% power at a two-sided 5%.

        (1.96 + 0.84) standard errors, as in the usual sample size formula turned round (Obuchowski 1998, Statistical
        Methods in Medical Research 7:371).
        """
        return float(norm.ppf(1 - ALPHA / 2) + norm.ppf(POWER)) * self.standard_error


def untested(value: float, reason: str) -> Difference:
    """A difference without an interval; its p-value is 1 if there is no difference, else nan.

    Args:
        value: First minus second.
        reason: Why it has no interval.
    """
    return Difference(value, math.nan, math.nan, 1.0 if value == 0 else math.nan, math.nan, reason)
