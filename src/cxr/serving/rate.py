"""How often somebody may ask: a bucket of tokens each, in the memory of one process.

Knows nothing of keys, addresses or HTTP. Several worker processes each keep buckets of their own, so together they let
through as many times the rate as there are of them.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_ROUNDING = 1e-6
"""What sums of times lose: who waited as long as told is not sent away for a millionth of a token."""


@dataclass
class _Bucket:
    tokens: float
    at: float


class RateLimiter:
    """Token buckets, one for each name; those that were not asked of for longest are forgotten first.

    Args:
        per_second: Tokens that come back each second.
        burst: Tokens of a full bucket, at least one.
        most: Names that are remembered; one that is forgotten has a full bucket.
        clock: Seconds that never go back.
    """

    def __init__(
        self, per_second: float, burst: int, most: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if per_second <= 0 or burst < 1 or most < 1:
            raise ValueError(
                f"expected per_second > 0, burst >= 1 and most >= 1, got {per_second}, {burst}, {most}; use larger ones"
            )
        self.per_second, self.burst, self.most, self.clock = per_second, burst, most, clock
        self.buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, name: str) -> float:
        """Take a token.

        Args:
            name: Whose.

        Returns:
            0 where there was one; else the seconds until there will be, and none is taken.
        """
        bucket = self._filled(name)
        if bucket.tokens >= 1 - _ROUNDING:
            bucket.tokens = max(0.0, bucket.tokens - 1)
            return 0.0
        return (1 - bucket.tokens) / self.per_second

    def _filled(self, name: str) -> _Bucket:
        now = self.clock()
        bucket = self.buckets.pop(name, None)
        if bucket is None:
            bucket = _Bucket(self.burst, now)
        bucket.tokens = min(self.burst, bucket.tokens + (now - bucket.at) * self.per_second)
        bucket.at = now
        self.buckets[name] = bucket
        if len(self.buckets) > self.most:
            self.buckets.popitem(last=False)
        return bucket
