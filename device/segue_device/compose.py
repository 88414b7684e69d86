"""From an app's wish to one request: what the plan depends on, and what is sent."""

from __future__ import annotations

import dataclasses
import secrets
import uuid
from collections.abc import Callable

from segue_device.budgets import Budgets
from segue_device.device_model import DeviceModel, Match
from segue_device.modes import Plan, Situation, cloud_forbidden_by_user
from segue_device.prompts import Prompt
from segue_device.request import AnswerRequest, checked_keep_ratio
from segue_protocol.sampling_options import Sampling
from segue_protocol.text import TextStream
from segue_protocol.tuning import CloudSpeed, Network, Place, Targets, TuningView, decide, explain

# JSON numbers are exact up to here in JavaScript, where a seed may be shown and sent back.
SEED_BITS = 53


def random_seed() -> int:
    """A seed nobody can guess."""
    return secrets.randbits(SEED_BITS)


def with_seed(sampling: Sampling, draw: Callable[[], int]) -> Sampling:
    """The same with a seed, drawn if there is none."""
    return sampling if sampling.seed is not None else dataclasses.replace(sampling, seed=draw())


def situation_of(
    asked: Prompt,
    match: Match,
    model: DeviceModel | None,
    *,
    has_cloud: bool,
    upload_history: bool,
    device_spared: str | None,
    ttft_target_s: float | None,
    network: Network | None,
) -> Situation:
    """What decides, besides the mode, where this prompt is answered."""
    forbidden = cloud_forbidden_by_user()
    if forbidden is None and asked.has_history and not upload_history:
        forbidden = "the history of this conversation may not be uploaded"
    suffices = None
    if model is not None and ttft_target_s is not None:
        suffices = _alone(model, match, len(asked.ids), ttft_target_s, network)
    return Situation(
        has_device=model is not None,
        has_cloud=has_cloud,
        cloud_forbidden=forbidden,
        device_spared=device_spared,
        device_suffices=suffices,
    )


def _alone(
    model: DeviceModel,
    match: Match,
    prompt_tokens: int,
    ttft_target_s: float,
    network: Network | None,
) -> str | None:
    """The tuner's explanation if it lets the device answer alone.

    Of the cloud only the way there is known before it is asked.
    """
    view = TuningView(
        device=model.profile,
        cloud=CloudSpeed(ttft_s=0.0, decode_s=0.0),
        prompt_tokens=prompt_tokens,
        max_tokens=1,
        cached_tokens=match.tokens,
        network=network or Network(),
        targets=Targets(ttft_s=ttft_target_s),
    )
    decision = decide(view)
    return explain(view, decision) if decision.place is Place.DEVICE else None


def request_for(
    asked: Prompt,
    match: Match,
    chosen: Plan,
    model: DeviceModel | None,
    *,
    sampling: Sampling,
    max_tokens: int,
    credit_through: int | None,
    keep_ratio: float | None,
    upload_history: bool,
    logprobs: bool,
    budgets: Budgets,
    ttft_target_s: float | None,
    network: Network | None,
    cloud_model: str,
    label: str,
) -> AnswerRequest:
    """The request. Raises InvalidRequest on options outside their bounds, Unsupported."""
    sampling.validate(model.identity.vocab_size if model is not None else None)
    own_stops = model.identity.stop_token_ids if model is not None else ()
    stop_ids = sorted({*sampling.stop_token_ids, *own_stops})
    one_side = not (chosen.device and chosen.cloud) or chosen.standby
    return AnswerRequest(
        request_id=str(uuid.uuid4()),
        prompt_ids=asked.ids,
        text=asked.text,
        messages=asked.messages,
        sampling=dataclasses.replace(sampling, stop_token_ids=tuple(stop_ids)),
        max_tokens=max_tokens,
        model=cloud_model,
        label=label,
        identity=model.identity if model is not None else None,
        profile=model.profile if model is not None else None,
        credit_through=max_tokens if one_side else credit_through,
        keep_ratio=checked_keep_ratio(keep_ratio, model),
        cached_tokens=match.tokens,
        cached_cells=match.cells,
        device_standby=chosen.standby,
        placement_reason=chosen.reason,
        upload_history=upload_history,
        logprobs=logprobs,
        budgets=budgets,
        ttft_target_s=ttft_target_s,
        network=network,
        explanation=chosen.explanation,
    )


def text_stream(model: DeviceModel | None, sampling: Sampling) -> TextStream | None:
    """Text of one answer; None when it comes from the cloud, or there is none."""
    vocabulary = model.vocabulary if model is not None else None
    return TextStream(vocabulary, sampling.stop) if vocabulary is not None else None
