"""One real request through a pair of workers, before either is offered traffic.

A process that answers is not yet a worker that works: its memory may not be
mappable for the other, its engine may fail at the first step. So a newcomer
prefills, transfers and decodes a few fixed tokens together with a partner.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

import anyio
from google.protobuf.message import Message

from segue_cloud.cluster.members import Member
from segue_cloud.gateway.assignment import Assignment, Scope
from segue_protocol.errors import DeadlineExceeded, ProtocolError, SegueError
from segue_protocol.sampling import Sampling
from segue_protocol.streams import Stream
from segue_protocol.wire import private

# One token by the prefill worker, then two decode steps.
MAX_TOKENS = 3
PROBE = Assignment(
    generation_id="probe",
    epoch=1,
    prompt_ids=(0, 1, 2, 3),
    output_ids=(),
    sampling=Sampling(),
    max_tokens=MAX_TOKENS,
    scope=Scope(),
)
# Each answer; the first step of an engine may have to compile or warm up.
ANSWER_S = 20.0

R = TypeVar("R", bound=Message)


class ProbeFailed(Exception):
    """`member` did not do its part."""

    def __init__(self, member: Member, cause: SegueError) -> None:
        super().__init__(f"the probe failed at the {member.name}: {cause.message}")
        self.member = member
        self.cause = cause


async def probe(prefiller: Member, decoder: Member) -> None:
    """Serve one fixed request with this pair. Raises ProbeFailed naming who failed."""
    async with (
        aclosing(decoder.link.decode()) as decode,
        aclosing(prefiller.link.prefill()) as prefill,
    ):
        with _part_of(decoder):
            await decode.send(PROBE.reserve(MAX_TOKENS))
            reserved = (await _answer(decode, "reserved")).reserved
        with _part_of(prefiller):
            await prefill.send(PROBE.job(reserved))
            await _answer(prefill, "accepted")
            first = (await _answer(prefill, "prefilled", after="started")).prefilled
        with _part_of(decoder):
            await decode.send(PROBE.admit(first, MAX_TOKENS))
            await _answer(decode, "pulled")
        with _part_of(prefiller):
            await prefill.send(private.PrefillRequest(release=private.ReleaseKv()))
        with _part_of(decoder):
            for _ in range(MAX_TOKENS - 1):
                await _answer(decode, "tokens")
            await _answer(decode, "ended")


@contextmanager
def _part_of(member: Member) -> Iterator[None]:
    try:
        with anyio.fail_after(ANSWER_S):
            yield
    except TimeoutError as error:
        silent = DeadlineExceeded(f"no answer within {ANSWER_S} s")
        raise ProbeFailed(member, silent) from error
    except SegueError as error:
        raise ProbeFailed(member, error) from error


async def _answer(stream: Stream[Any, R], expected: str, *, after: str = "") -> R:
    """The next answer; one of the kind `after` may come before it."""
    answer = await stream.receive()
    kind = None if answer is None else answer.WhichOneof("message")
    if after and kind == after:
        return await _answer(stream, expected)
    if answer is None or kind != expected:
        raise ProtocolError(f"expected `{expected}`, got {kind or 'the end of the stream'}")
    return answer
