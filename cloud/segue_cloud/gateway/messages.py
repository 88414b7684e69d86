"""What a session tells its readers."""

from __future__ import annotations

from segue_cloud.gateway.session import Session
from segue_protocol.version import protocol_version
from segue_protocol.wire import public


def started(session: Session) -> public.Started:
    """What every reader learns first."""
    return public.Started(
        generation_id=session.generation_id,
        resume_token=session.resume_token,
        protocol=protocol_version(),
        identity=session.identity.to_wire(),
        advice=session.advice,
        credit_through=session.credit,
        credit_cap=session.cap,
        prompt_tokens=len(session.request.prompt_ids),
    )


def tokens(session: Session, start: int) -> public.Tokens:
    """The log from `start` to its present end, with what this client asked for beside ids."""
    return public.Tokens(
        index=start,
        ids=session.log.ids[start:],
        text=session.text_from(start),
        logprobs=session.log.logprobs(start) if session.request.wants_logprobs else [],
    )


def finish(session: Session) -> public.Finish:
    """What every reader learns last."""
    assert session.finish_reason is not None
    log = session.log
    return public.Finish(
        reason=session.finish_reason,
        length=len(log),
        usage=public.CloudUsage(
            prompt_tokens=len(session.request.prompt_ids),
            cloud_tokens=len(log) + session.discarded - log.prefix_length,
            recomputed_tokens=session.measured.recomputed_tokens,
            cached_tokens=min(session.measured.cached_tokens, len(session.request.prompt_ids)),
        ),
        timings=session.measured.timings(),
    )
