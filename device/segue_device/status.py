"""Questions an app asks before it sends a prompt: will it fit, who is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio

from segue_device.device_model import DeviceModel
from segue_device.transports.base import Transport
from segue_protocol.errors import SegueError
from segue_protocol.identity import ModelIdentity, compare
from segue_protocol.wire import public


@dataclass(frozen=True, slots=True)
class Preflight:
    """Whether a prompt and its answer fit this device's context, in tokens."""

    fits: bool
    prompt_tokens: int
    # Prompt and answer together.
    limit_tokens: int
    # How much too long they are; 0 if they fit.
    deficit_tokens: int


def preflight(model: DeviceModel, prompt_ids: Sequence[int], max_tokens: int) -> Preflight:
    """Count; nothing is sent, nothing is computed."""
    limit_tokens = model.max_context_tokens
    deficit_tokens = max(0, len(prompt_ids) + max_tokens - limit_tokens)
    return Preflight(deficit_tokens == 0, len(prompt_ids), limit_tokens, deficit_tokens)


@dataclass(frozen=True, slots=True)
class SideStatus:
    """Whether one side can take an answer now; `reason` why not, None if it can."""

    reason: str | None = None

    @property
    def ready(self) -> bool:
        return self.reason is None


@dataclass(frozen=True, slots=True)
class Status:
    """Both sides, and whether they can share an answer; `warnings` about their models."""

    device: SideStatus
    cloud: SideStatus
    split: SideStatus
    warnings: Sequence[str] = ()


async def survey(
    device: SideStatus,
    model: DeviceModel | None,
    ask: Callable[[], Transport] | SideStatus,
    *,
    cloud_model: str,
    timeout_s: float | None,
) -> Status:
    """Ask the cloud what it runs and compare; `ask` is a reason where it may not be asked."""
    if isinstance(ask, SideStatus):
        return Status(device, cloud=ask, split=ask)
    try:
        with anyio.fail_after(timeout_s):
            answer = await ask().get_model(public.GetModelRequest(model=cloud_model))
        theirs = ModelIdentity.from_wire(answer.identity)
    except SegueError as error:
        lost = SideStatus(error.message)
        return Status(device, cloud=lost, split=lost)
    except TimeoutError:
        silent = SideStatus(f"it did not answer within {timeout_s} s")
        return Status(device, cloud=silent, split=silent)
    if model is None:
        return Status(device, cloud=SideStatus(), split=device)
    found = compare(model.identity, theirs)
    split = SideStatus("; ".join(found.fatal)) if found.fatal else device
    return Status(device, cloud=SideStatus(), split=split, warnings=found.warnings)
