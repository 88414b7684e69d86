"""How often something may happen: pure arithmetic, the time is given."""

from __future__ import annotations

from collections.abc import Sequence

from segue_cloud.config import TenantConfig
from segue_protocol.errors import InvalidRequest, Overloaded


class TokenBucket:
    """Lets `rate_per_s` through in the long run and `burst` at once."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._level = burst
        self._filled_s: float | None = None  # any clock will do, so its zero is unknown

    def take(self, now_s: float) -> float:
        """Take one; returns 0, or the seconds until there is one (then nothing was taken)."""
        if self._filled_s is not None:
            gained = max(0.0, now_s - self._filled_s) * self._rate_per_s
            self._level = min(self._burst, self._level + gained)
        self._filled_s = now_s
        if self._level >= 1.0:
            self._level -= 1.0
            return 0.0
        return (1.0 - self._level) / self._rate_per_s


class RequestRates:
    """`requests_per_s` of every tenant; a second's worth may come at once."""

    def __init__(self, tenants: Sequence[TenantConfig] = ()) -> None:
        """Raises InvalidRequest on a negative rate."""
        for tenant in tenants:
            if not tenant.requests_per_s >= 0:
                raise InvalidRequest(
                    f"requests_per_s of tenant {tenant.name!r} is {tenant.requests_per_s}, "
                    "expected 0 (no limit) or more"
                )
        self._buckets = {
            tenant.name: TokenBucket(tenant.requests_per_s, max(1.0, tenant.requests_per_s))
            for tenant in tenants
            if tenant.requests_per_s
        }

    def require(self, tenant: str, now_s: float) -> None:
        """Count one new answer. Raises Overloaded with the seconds to wait."""
        bucket = self._buckets.get(tenant)
        wait_s = bucket.take(now_s) if bucket is not None else 0.0
        if wait_s:
            raise Overloaded(
                "this tenant asks more often than it may; wait, or ask whoever runs this cloud",
                reason="RATE_LIMITED",
                retry_after_s=wait_s,
            )
