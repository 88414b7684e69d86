"""What one answer is asked for, checked on the device before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segue_protocol.identity import ModelIdentity
from segue_protocol.sampling_options import Sampling
from segue_protocol.timeline import DeviceProfile
from segue_protocol.version import protocol_version
from segue_protocol.wire import public

# The pace to assume until the cloud has sent its advice.
DEFAULT_INTERVAL_S = 0.05


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
    # Leading tokens of the prompt that the engine holds from the turn before.
    cached_tokens: int = 0
    # The engine begins only once the cloud is lost.
    device_standby: bool = False

    @property
    def show_interval_s(self) -> float:
        """Never faster than this device will decode."""
        decode_s = self.profile.decode_s if self.profile is not None else 0.0
        return max(DEFAULT_INTERVAL_S, decode_s)

    def start_message(self, output_prefix: Sequence[int] = ()) -> public.Start:
        """The first message of a stream, with the tokens of the answer there are already."""
        start = public.Start(
            request_id=self.request_id,
            protocol=protocol_version(),
            model=self.model,
            sampling=self.sampling.to_wire(),
            limits=public.Limits(max_tokens=self.max_tokens),
            output_prefix=output_prefix,
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
        start.cached_tokens = self.cached_tokens
        if self.credit_through is not None:
            start.credit.through = self.credit_through
        return start
