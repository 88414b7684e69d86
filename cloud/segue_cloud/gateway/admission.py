"""From a `Start` message to a request that can be served, or a typed refusal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from segue_protocol.errors import ContextTooLong, InvalidRequest, NotFound, Unsupported
from segue_protocol.identity import ModelIdentity, require_shared_log
from segue_protocol.sampling import Sampling
from segue_protocol.timeline import DeviceProfile
from segue_protocol.tokenizer import ChatTokenizer
from segue_protocol.tuning import Network, Targets
from segue_protocol.version import PROTOCOL_MAJOR
from segue_protocol.wire import public

MAX_REQUEST_ID_CHARACTERS = 256
# No tokenizer in use has longer tokens, save for a few of blanks only.
MAX_CHARACTERS_PER_TOKEN = 256


@dataclass(frozen=True, slots=True)
class Request:
    """A checked `Start`."""

    request_id: str
    prompt_ids: Sequence[int]
    output_prefix: Sequence[int]
    sampling: Sampling
    max_tokens: int
    profile: DeviceProfile | None
    # Leading tokens of the prompt that the device need not prefill.
    cached_tokens: int
    # None: the cloud's advice is the first credit.
    credit_through: int | None
    # None: what the cloud advises; 1: the prompt is not to be refined.
    keep_ratio: float | None
    # The client has no tokenizer: text goes out with the ids, and stop strings
    # are looked for here.
    wants_text: bool
    wants_logprobs: bool
    warnings: tuple[str, ...] = ()
    # None: the device does not know its network yet.
    network: Network | None = None
    # 0: the group's target.
    ttft_s: float = 0.0
    tpot_s: float = 0.0

    def targets_over(self, group: Targets) -> Targets:
        """The group's targets, but for those that this request names."""
        return replace(
            group, ttft_s=self.ttft_s or group.ttft_s, tpot_s=self.tpot_s or group.tpot_s
        )


def admit(
    start: public.Start,
    identity: ModelIdentity,
    max_context_tokens: int,
    tokenizer: ChatTokenizer | None,
) -> Request:
    """Check everything that can be checked before any resource is touched.

    Raises InvalidRequest, ContextTooLong, NotFound (model), IdentityMismatch
    (the factor is named) or Unsupported.
    """
    if start.protocol.major != PROTOCOL_MAJOR:
        raise Unsupported(
            f"protocol version {start.protocol.major}.{start.protocol.minor} is not served here, "
            f"expected {PROTOCOL_MAJOR}.x; update the older side",
            reason="PROTOCOL_VERSION",
        )
    if start.model and start.model != identity.model:
        raise NotFound(
            f"unknown model {start.model!r}; this cloud serves {identity.model!r}",
            reason="UNKNOWN_MODEL",
        )
    _require_bounded(start, max_context_tokens)
    warnings: tuple[str, ...] = ()
    has_model = start.HasField("identity")
    if has_model:
        warnings = require_shared_log(identity, ModelIdentity.from_wire(start.identity))
    prompt_ids = _prompt_ids(start, has_model, tokenizer)
    sampling = Sampling.from_wire(start.sampling)
    sampling.validate(identity.vocab_size)
    if sampling.stop and has_model:
        raise InvalidRequest(
            "stop strings were sent together with a model identity; a device that has the "
            "tokenizer looks for stop strings itself"
        )
    output_prefix = list(start.output_prefix)
    _require_ids("prompt_token_ids", prompt_ids, identity.vocab_size)
    _require_ids("output_prefix", output_prefix, identity.vocab_size)
    max_tokens = start.limits.max_tokens
    if max_tokens <= len(output_prefix):
        raise InvalidRequest(
            f"limits.max_tokens is {max_tokens} and output_prefix holds {len(output_prefix)} "
            "tokens; expected at least one token to make"
        )
    if len(prompt_ids) + max_tokens > max_context_tokens:
        over = len(prompt_ids) + max_tokens - max_context_tokens
        raise ContextTooLong(
            f"{len(prompt_ids)} prompt tokens and up to {max_tokens} output tokens exceed the "
            f"context of {max_context_tokens} by {over}; shorten the prompt or lower max_tokens"
        )
    if start.cached_tokens >= len(prompt_ids):
        raise InvalidRequest(
            f"cached_tokens is {start.cached_tokens}, the prompt has {len(prompt_ids)}; at least "
            "the last token is always prefilled"
        )
    if start.HasField("keep_ratio") and not 0 < start.keep_ratio <= 1:
        raise InvalidRequest(
            f"keep_ratio is {start.keep_ratio}, expected a share of the prompt above 0 and up to 1"
        )
    profile = DeviceProfile.from_wire(start.profile) if start.HasField("profile") else None
    if profile is not None:
        profile.validate()
    return Request(
        request_id=start.request_id,
        prompt_ids=prompt_ids,
        output_prefix=output_prefix,
        sampling=sampling,
        max_tokens=max_tokens,
        profile=profile,
        cached_tokens=start.cached_tokens,
        credit_through=start.credit.through if start.HasField("credit") else None,
        keep_ratio=start.keep_ratio if start.HasField("keep_ratio") else None,
        wants_text=not has_model,
        wants_logprobs=start.logprobs,
        warnings=warnings,
        network=_network(start),
        ttft_s=_seconds("slo.ttft_s", start.slo.ttft_s),
        tpot_s=_seconds("slo.tpot_s", start.slo.tpot_s),
    )


def _network(start: public.Start) -> Network | None:
    if not start.HasField("network"):
        return None
    return Network(
        added_s=_seconds("network.added_s", start.network.added_s),
        deviation_s=_seconds("network.deviation_s", start.network.deviation_s),
    )


def _seconds(name: str, value: float) -> float:
    if not math.isfinite(value) or value < 0:
        raise InvalidRequest(f"{name} is {value}, expected a finite number of seconds >= 0")
    return value


def _require_bounded(start: public.Start, max_context_tokens: int) -> None:
    """Refuse by its size what would take long to look at, before looking at it."""
    if len(start.request_id) > MAX_REQUEST_ID_CHARACTERS:
        raise InvalidRequest(
            f"request_id has {len(start.request_id)} characters, expected at most "
            f"{MAX_REQUEST_ID_CHARACTERS}"
        )
    characters = len(start.prompt_text) + sum(
        len(message.role) + len(message.content) for message in start.messages.messages
    )
    for name, count, most in (
        # Those that are a little too long are told by how much, further on.
        ("prompt_token_ids", len(start.prompt_token_ids.ids), 4 * max_context_tokens),
        ("output_prefix", len(start.output_prefix), 4 * max_context_tokens),
        ("messages", len(start.messages.messages), max_context_tokens),
        ("the prompt's text", characters, max_context_tokens * MAX_CHARACTERS_PER_TOKEN),
    ):
        if count > most:
            raise ContextTooLong(
                f"{name} holds {count} entries or characters, more than the {most} that can fit "
                f"a context of {max_context_tokens} tokens; shorten it"
            )


def _prompt_ids(
    start: public.Start, has_model: bool, tokenizer: ChatTokenizer | None
) -> Sequence[int]:
    kind = start.WhichOneof("prompt")
    if kind is None:
        raise InvalidRequest(
            "the start message has no prompt; expected prompt_token_ids, prompt_text or messages"
        )
    if kind == "prompt_token_ids":
        if not has_model:
            raise InvalidRequest(
                "prompt_token_ids came without a model identity, so nobody knows which "
                "vocabulary they are from; send the identity, or send prompt_text or messages"
            )
        ids: Sequence[int] = list(start.prompt_token_ids.ids)
    elif tokenizer is None:
        raise Unsupported("this cloud has no tokenizer; send prompt_token_ids and an identity")
    elif kind == "prompt_text":
        ids = tokenizer.encode(start.prompt_text)
    else:
        ids = tokenizer.encode_chat(
            [{"role": m.role, "content": m.content} for m in start.messages.messages]
        )
    if not ids:
        raise InvalidRequest(f"{kind} is empty; expected at least one token")
    return ids


def _require_ids(name: str, ids: Sequence[int], vocab_size: int) -> None:
    for place, token in enumerate(ids):
        if token >= vocab_size:
            raise InvalidRequest(
                f"{name}[{place}] is {token}, outside the vocabulary of {vocab_size} ids"
            )
