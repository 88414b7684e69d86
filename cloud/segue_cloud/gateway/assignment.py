"""What the workers are asked to do for one attempt, and the messages that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segue_cloud.cluster.groups import DEFAULT_GROUP
from segue_cloud.kv.prefixes import BLOCK_TOKENS, block_ends, block_keys
from segue_cloud.worker.cells import cells_needed
from segue_protocol.sampling import Sampling
from segue_protocol.wire import private


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose workers serve a request, and with whom it shares them.

    `tenant` is "" where nobody is asked who they are. KV of equal prompt
    beginnings is shared by requests with one `cache_salt` (b"": with none),
    that of the first `shared_tokens` by all.
    """

    group: str = DEFAULT_GROUP
    tenant: str = ""
    cache_salt: bytes = b""
    shared_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Assignment:
    """One answer from where its log stands, under one epoch."""

    generation_id: str
    epoch: int
    prompt_ids: Sequence[int]
    output_ids: Sequence[int]
    sampling: Sampling
    max_tokens: int
    scope: Scope
    # Below 1: the prompt is refined on the way.
    keep_ratio: float = 1.0

    @property
    def token_ids(self) -> Sequence[int]:
        """What is prefilled: prompt, then output."""
        return [*self.prompt_ids, *self.output_ids]

    def prefix_keys(self) -> list[bytes]:
        """By what the gateway remembers who has prefilled such a beginning."""
        ids = self.token_ids
        return block_keys(
            ids,
            block_ends(len(ids), BLOCK_TOKENS)[:-1],
            salt=self.scope.cache_salt,
            shared_tokens=self.scope.shared_tokens,
        )

    def reserve(self, credit: int) -> private.DecodeRequest:
        """Ask for room to make output indices < `credit`."""
        return private.DecodeRequest(
            reserve=private.Reserve(
                generation_id=self.generation_id,
                tokens=cells_needed(len(self.prompt_ids), credit),
            )
        )

    def job(self, reserved: private.Reserved) -> private.PrefillRequest:
        """Ask for the next token and the KV of all before it, in place where that is shared."""
        return private.PrefillRequest(
            job=private.PrefillJob(
                generation_id=self.generation_id,
                epoch=self.epoch,
                token_ids=self.token_ids,
                prompt_tokens=len(self.prompt_ids),
                sampling=self.sampling.to_wire(),
                cache_salt=self.scope.cache_salt,
                shared_tokens=self.scope.shared_tokens,
                keep_ratio=self.keep_ratio if self.keep_ratio < 1 else 0.0,
                place=reserved.place if reserved.HasField("place") else None,
            )
        )

    def admit(self, first: private.Prefilled, credit: int) -> private.DecodeRequest:
        """Let the holder of the reservation go on behind the prefilled token."""
        return private.DecodeRequest(
            admit=private.Admit(
                epoch=self.epoch,
                ticket=first.ticket,
                token_ids=[*self.token_ids, first.token_id],
                prompt_tokens=len(self.prompt_ids),
                sampling=self.sampling.to_wire(),
                credit_through=credit,
                max_tokens=self.max_tokens,
            )
        )
