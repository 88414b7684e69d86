"""What one answer is asked for, checked on the device before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from segue_device.budgets import Budgets
from segue_device.device_model import DeviceModel
from segue_protocol.errors import ContextTooLong, InvalidRequest, Unsupported
from segue_protocol.identity import ModelIdentity
from segue_protocol.sampling_options import Sampling
from segue_protocol.timeline import DeviceProfile
from segue_protocol.tuning import DEFAULT_PACE_S, Network
from segue_protocol.version import protocol_version
from segue_protocol.wire import public


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A request in the device's own terms.

    With `identity` (a device that has a tokenizer) `prompt_ids` is the prompt;
    without, `text` or `messages` go to the cloud and the answer is cloud-only.
    `credit_through` None leaves the first credit to the cloud's advice and lets
    this device extend it; a number is kept as it is.
    """

    request_id: str
    prompt_ids: Sequence[int]
    sampling: Sampling
    max_tokens: int
    model: str = ""
    identity: ModelIdentity | None = None
    text: str | None = None
    messages: Sequence[tuple[str, str]] = ()
    profile: DeviceProfile | None = None
    credit_through: int | None = None
    # Share of the prompt to be told to keep; None: the cloud's advice, 1: all.
    keep_ratio: float | None = None
    # Leading tokens of the prompt that the engine holds from the turn before, in
    # as many cells, or fewer if that prompt was refined.
    cached_tokens: int = 0
    cached_cells: int = 0
    # The engine rests as long as the cloud can go on.
    device_standby: bool = False
    # Tokens that this device made may go to the cloud, if the device cannot go on.
    upload_history: bool = True
    # Names a scenario for which the cloud may keep workers of its own.
    label: str = ""
    # Why the answer does not run where its mode would have it.
    placement_reason: str | None = None
    logprobs: bool = False
    budgets: Budgets = field(default_factory=Budgets)
    ttft_target_s: float | None = None
    # None: nothing is known of it yet.
    network: Network | None = None
    # Why no cloud is asked, if the tuner decided that.
    explanation: str = ""

    @property
    def show_interval_s(self) -> float:
        """The pace until the cloud has sent its advice: never faster than this device decodes."""
        decode_s = self.profile.decode_s if self.profile is not None else 0.0
        return max(DEFAULT_PACE_S, decode_s)

    def start_message(
        self, output_prefix: Sequence[int] = (), credit_through: int = 1
    ) -> public.Start:
        """The first message of a stream, with the tokens of the answer there are already.

        `credit_through`: what the device has asked for since; 1 is nothing.
        """
        start = public.Start(
            request_id=self.request_id,
            protocol=protocol_version(),
            model=self.model,
            label=self.label,
            sampling=self.sampling.to_wire(),
            limits=public.Limits(max_tokens=self.max_tokens),
            output_prefix=output_prefix,
            logprobs=self.logprobs,
        )
        if self.identity is not None:
            start.identity.CopyFrom(self.identity.to_wire())
            start.prompt_token_ids.ids.extend(self.prompt_ids)
            del start.sampling.stop[:]  # this device finds stop strings itself
        elif self.text is not None:
            start.prompt_text = self.text
        else:
            start.messages.messages.extend(
                public.ChatMessage(role=role, content=content) for role, content in self.messages
            )
        if self.profile is not None:
            start.profile.CopyFrom(self.profile.to_wire())
        if self.ttft_target_s is not None:
            start.slo.ttft_s = self.ttft_target_s
        if self.network is not None:
            start.network.added_s = self.network.added_s
            start.network.deviation_s = self.network.deviation_s
        start.cached_tokens = self.cached_tokens
        if self.keep_ratio is not None:
            start.keep_ratio = self.keep_ratio
        if self.credit_through is not None or credit_through > 1:
            start.credit.through = max(self.credit_through or 1, credit_through)
        return start


def checked_keep_ratio(keep_ratio: float | None, device: DeviceModel | None) -> float | None:
    """What to ask the cloud for. An engine that cannot leave gaps asks for none.

    Raises InvalidRequest on a ratio that makes no sense, Unsupported on one
    that this engine cannot serve.
    """
    if keep_ratio is not None and not 0 < keep_ratio <= 1:
        raise InvalidRequest(
            f"keep_ratio is {keep_ratio}, expected a share above 0 and up to 1", param="keep_ratio"
        )
    if device is None or device.runner.capabilities.positions == "exact":
        return keep_ratio
    if keep_ratio not in (None, 1):
        raise Unsupported(
            "this device's engine takes a prompt only without gaps; leave keep_ratio out, or "
            "convert the model again for one that takes positions",
            reason="POSITIONS_COMPACT",
            param="keep_ratio",
        )
    return 1.0


def require_fit(max_tokens: int | None, prompt_tokens: int, device: DeviceModel | None) -> int:
    """How long the answer may become; None fills the context of `device`.

    Raises ContextTooLong, or InvalidRequest on a number that makes no sense.
    """
    if max_tokens is None:
        if device is None:
            raise InvalidRequest(
                "max_tokens is needed where no device model says what fits; pass it",
                param="max_tokens",
            )
        max_tokens = max(1, device.max_context_tokens - prompt_tokens)
    if max_tokens < 1:
        raise InvalidRequest(f"max_tokens is {max_tokens}, expected at least 1", param="max_tokens")
    limit = device.max_context_tokens if device is not None else math.inf
    if prompt_tokens + max_tokens > limit:
        raise ContextTooLong(
            f"{prompt_tokens} prompt tokens and up to {max_tokens} output tokens exceed this "
            f"device's context of {limit} by {prompt_tokens + max_tokens - limit}; shorten the "
            "prompt, lower max_tokens, or use Mode.ONLY_IN_CLOUD"
        )
    return max_tokens
