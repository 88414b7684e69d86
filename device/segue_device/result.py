"""The account of a whole answer."""

from __future__ import annotations

from segue_device.answer import Answer
from segue_device.events import Result, Usage
from segue_device.timings import measure
from segue_device.token_log import Source
from segue_protocol.wire import public


def result_of(answer: Answer, ended_s: float, cloud: public.Finish | None) -> Result:
    """Ids, text and figures of an answer that is over and shown; `ended_s` on its clock."""
    log = answer.log
    entries = [log[index] for index in range(len(log))]
    assert answer.reason is not None
    return Result(
        token_ids=tuple(log.ids),
        text="".join(answer.display.shown_text),
        logprobs=[each.logprob for each in entries] if answer.request.logprobs else None,
        finish_reason=answer.reason,
        seed=answer.request.sampling.seed or 0,
        usage=Usage(
            prompt_tokens=len(answer.request.prompt_ids),
            cached_tokens=answer.request.cached_tokens,
            cloud_tokens=log.count(Source.CLOUD),
            device_tokens=log.count(Source.DEVICE),
            discarded_tokens=log.discarded,
            kept_tokens=answer.prompt.kept_tokens if answer.prompt.refined else None,
        ),
        timings=measure(
            answer.started_s,
            ended_s,
            answer.display.shown_s,
            [each.t_received_s for each in entries],
            log.takeover_index,
        ),
        takeover_index=log.takeover_index,
        min_margin=answer.min_margin,
        cloud=cloud,
        explanation=answer.explanation,
    )
