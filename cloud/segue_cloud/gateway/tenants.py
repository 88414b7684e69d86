"""What one tenant may ask for at once."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence

from segue_cloud.config import TenantConfig
from segue_cloud.gateway.session import Session
from segue_cloud.gateway.state import RequestState
from segue_protocol.errors import InvalidRequest, Overloaded

RETRY_AFTER_S = 1.0
SALT_BYTES = 16

_BEFORE_DECODE = (RequestState.WAITING, RequestState.PREFILLING)


class Tenants:
    """Limits by name; a name without limits has none. Counts nothing itself: sessions are."""

    def __init__(self, configs: Sequence[TenantConfig] = ()) -> None:
        self._configs = {config.name: config for config in configs}
        # New in every process: a salt says nothing about a tenant's name.
        self._secret = secrets.token_bytes(32)

    def require_room(self, name: str, prompt_tokens: int, sessions: Iterable[Session]) -> None:
        """Raise Overloaded when one more request is too much beside the running `sessions`.

        Raises InvalidRequest for a prompt that alone exceeds its tenant's limit.
        """
        config = self._configs.get(name)
        if config is None:
            return
        running = [each for each in sessions if each.scope.tenant == name and not each.finished]
        if 0 < config.max_requests <= len(running):
            raise Overloaded(
                f"tenant {name!r} has {len(running)} requests running, at most "
                f"{config.max_requests} are allowed; wait for one to end",
                reason="TENANT_REQUESTS",
                retry_after_s=RETRY_AFTER_S,
            )
        limit = config.max_prefill_tokens
        if 0 < limit < prompt_tokens:
            raise InvalidRequest(
                f"the prompt has {prompt_tokens} tokens, tenant {name!r} may have {limit} in "
                "prefill at once; shorten it",
                reason="TENANT_PREFILL_TOKENS",
            )
        waiting = sum(
            len(each.request.prompt_ids) for each in running if each.state in _BEFORE_DECODE
        )
        if 0 < limit < waiting + prompt_tokens:
            raise Overloaded(
                f"tenant {name!r} has {waiting} prompt tokens waiting for or in prefill, with "
                f"{prompt_tokens} more they exceed {limit}; wait for one to be prefilled",
                reason="TENANT_PREFILL_TOKENS",
                retry_after_s=RETRY_AFTER_S,
            )

    def cache_salt(self, name: str) -> bytes:
        """What keeps the cached KV of a tenant apart from that of the others."""
        return hashlib.blake2b(name.encode(), key=self._secret, digest_size=SALT_BYTES).digest()
