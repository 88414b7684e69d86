"""Tokens, finish, takeover, credit and cut in any order: the log keeps its laws."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from segue_cloud.gateway.admission import Request
from segue_cloud.gateway.session import Session
from segue_cloud.gateway.state import RequestState
from segue_device import FinishReason, Pacing, Sampling, Source
from segue_device.answer import Answer
from segue_device.cloud_messages import CloudMessages
from segue_device.request import AnswerRequest
from segue_device.state import DeviceState
from segue_protocol.errors import OutOfRange, ProtocolError, SegueError, Unavailable
from segue_protocol.prefix import prefix_hash
from segue_protocol.reference import reference_identity
from segue_protocol.wire import public
from tests.virtual_clock import run_virtual

PROMPT = (65, 66, 67)
MAX_TOKENS = 12
small = st.integers(0, MAX_TOKENS + 2)
ids = st.lists(st.integers(0, 255), min_size=1, max_size=4)

responses = st.one_of(
    st.just(public.GenerateResponse(started=public.Started(credit_through=6))),
    st.builds(
        lambda index, tokens: public.GenerateResponse(
            tokens=public.Tokens(index=index, ids=tokens)
        ),
        small,
        ids,
    ),
    st.builds(
        lambda reason, length: public.GenerateResponse(
            finish=public.Finish(reason=reason, length=length)
        ),
        st.sampled_from([1, 2, 3, 4]),
        small,
    ),
    st.just(public.GenerateResponse(heartbeat=public.Heartbeat())),
    st.just(public.GenerateResponse(refinement=public.Refinement())),
    st.just(public.GenerateResponse()),
)
device_steps = st.lists(
    st.one_of(
        responses,
        st.sampled_from(["next tokens", "lost", "take over", "decode", "rest", "cancel", "fail"]),
    ),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(device_steps)
def test_the_device_log_keeps_its_laws(steps: list[public.GenerateResponse | str]) -> None:
    async def main() -> None:
        request = AnswerRequest("test", PROMPT, Sampling(), MAX_TOKENS)
        answer = Answer(
            request,
            DeviceState.CONNECTING,
            text=None,
            pacing=Pacing.off(),
            send=lambda _: None,
            hang_up=lambda: None,
        )
        answer.prompt.move_to(len(PROMPT))  # so that a takeover is legal once confirmed
        messages = CloudMessages(answer)
        for step in steps:
            before = tuple(answer.log.ids)
            writer, over = answer.log.writer, answer.over
            _apply_to_device(answer, messages, step)
            entries = [answer.log[index] for index in range(len(answer.log))]
            after = tuple(answer.log.ids)
            assert after[: len(before)] == before, "append-only"
            assert len(after) <= MAX_TOKENS
            assert [entry.index for entry in entries] == list(range(len(entries))), "gap-free"
            assert {each.source for each in entries[len(before) :]} <= {writer}, "one writer"
            if over:
                assert after == before, "an end is final"
                assert answer.over

    run_virtual(main())


def _apply_to_device(
    answer: Answer, messages: CloudMessages, step: public.GenerateResponse | str
) -> None:
    writable = answer.log.writer is Source.DEVICE and not answer.over
    if isinstance(step, public.GenerateResponse):
        messages.on_response(step)
    elif step == "next tokens":
        tokens = public.Tokens(index=len(answer.log), ids=[65, 66])
        messages.on_response(public.GenerateResponse(tokens=tokens))
    elif step == "lost":
        messages.on_stream_end(Unavailable("cut"))
    elif step == "take over":
        if answer.log.writer is Source.CLOUD and answer.state in (
            DeviceState.CATCHING_UP,
            DeviceState.CONNECTING,
            DeviceState.RECONNECTING,
        ):
            answer.log.take_over()
            answer.enter(DeviceState.DEVICE)
    elif step == "decode" and writable:
        answer.log.append_from_device(70, 0.0)
        answer.token_appended(70)
    elif step == "rest":
        answer.rest("it is hot")
        answer.rest(None)
        messages.first_message()  # as the peer asks after a hang-up
    elif step == "cancel":
        answer.end(FinishReason.CANCELLED)
    elif step == "fail":
        answer.fail(Unavailable("broken"))


requests = st.one_of(
    st.builds(lambda k: public.GenerateRequest(credit=public.Credit(through=k)), small),
    st.builds(
        lambda k: public.GenerateRequest(takeover=public.Takeover(index=k, prefix_hash=b"")), small
    ),
    st.just(public.GenerateRequest(progress=public.Progress(shown_tokens=1))),
    st.just(public.GenerateRequest(cancel=public.Cancel())),
    st.just(public.GenerateRequest(start=public.Start())),
    st.just(public.GenerateRequest(resume=public.Resume())),
    st.just(public.GenerateRequest()),
)
cloud_steps = st.lists(
    st.one_of(
        requests,
        st.tuples(st.integers(0, 3), small, ids),
        st.sampled_from(["next token", "new epoch", "right takeover", "finish", "fail"]),
    ),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(cloud_steps)
def test_the_cloud_log_keeps_its_laws(
    steps: list[public.GenerateRequest | tuple[int, int, list[int]] | str],
) -> None:
    async def main() -> None:
        request = Request(
            "test",
            PROMPT,
            (),
            Sampling(),
            MAX_TOKENS,
            None,
            0,
            4,
            keep_ratio=None,
            wants_text=False,
            wants_logprobs=False,
        )
        session = Session(
            "id",
            b"token",
            request,
            public.Advice(cloud_tokens=4),
            identity=reference_identity(),
            credit_cap=9,
            text=None,
        )
        session.log.begin_epoch()
        for step in steps:
            before, credit = tuple(session.log.ids), session.credit
            finished, reason = session.finished, session.finish_reason
            await _apply_to_cloud(session, step)
            after = tuple(session.log.ids)
            taken_over = session.finish_reason == public.FINISH_REASON_TAKEN_OVER
            if taken_over and not finished:
                assert after == before[: len(after)], "truncated, not rewritten"
            else:
                assert after[: len(before)] == before, "append-only"
            assert credit <= session.credit <= 9, "monotone, capped"
            if finished:
                assert session.state is RequestState.FINISHED
                assert session.finish_reason == reason, "the first end wins"
                assert after == before, "an end is final"

    run_virtual(main())


async def _apply_to_cloud(
    session: Session, step: public.GenerateRequest | tuple[int, int, list[int]] | str
) -> None:
    if isinstance(step, public.GenerateRequest):
        kind = step.WhichOneof("message")
        try:
            await session.handle(step)
        except OutOfRange:
            assert step.takeover.index > len(session.log)
        except ProtocolError:
            assert kind in (None, "start", "resume")
    elif isinstance(step, tuple):
        session.append(*step, logprobs=[-1.0] * len(step[2]))
    elif step == "next token":
        session.append(session.log.epoch, len(session.log), [65], [-1.0])
    elif step == "new epoch":
        session.log.begin_epoch()
    elif step == "right takeover":
        index = len(session.log) // 2
        digest = prefix_hash(PROMPT, session.log.ids[:index])
        mismatches = session.prefix_mismatches
        takeover = public.Takeover(index=index, prefix_hash=digest)
        await session.handle(public.GenerateRequest(takeover=takeover))
        assert session.prefix_mismatches == mismatches
    elif step == "finish":
        session.finish(public.FINISH_REASON_STOP)
    elif step == "fail":
        error: SegueError = Unavailable("broken")
        session.fail(error)
