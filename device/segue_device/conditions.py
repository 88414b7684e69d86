"""What the app knows about its device, and what may leave it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceConditions:
    """Reasons to spare this device, told by the app, which has its platform's sensors.

    With one of them the cloud writes, where the mode allows it; an answer
    under way is handed to the cloud, also after the takeover. Without a cloud
    the device goes on.
    """

    battery_low: bool = False
    too_hot: bool = False
    memory_low: bool = False

    @property
    def reason(self) -> str | None:
        """Why the device is to be spared; None if it is not."""
        named = (
            ("its battery is low", self.battery_low),
            ("it is too hot", self.too_hot),
            ("its memory is low", self.memory_low),
        )
        reasons = [text for text, holds in named if holds]
        return "the app says that " + " and ".join(reasons) if reasons else None


@dataclass(frozen=True, slots=True)
class Privacy:
    """What may go to the cloud.

    Tokens that the device makes are not sent while they are made. They are
    part of the next turn's prompt; `upload_history=False` keeps every turn
    after the first on the device, and never hands an answer that the device
    has begun to write back to the cloud. It holds for `messages` and sessions;
    what is inside a `prompt` or `prompt_token_ids` only the app knows.
    """

    upload_history: bool = True
