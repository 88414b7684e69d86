"""One assignment of a request to workers: reserve, forward, prefill, transfer, decode.

An attempt reports what happens to an :class:`Observer` (the session), which
owns the log. It ends by returning an outcome; a lost worker is an outcome too,
because the session answers it with another attempt under a new epoch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

import anyio

from segue_cloud.cluster.forwarding import nobody_there
from segue_cloud.cluster.links import DecodeStream
from segue_cloud.cluster.members import Member, Membership
from segue_cloud.gateway.assignment import Assignment
from segue_cloud.gateway.pairing import forward
from segue_cloud.gateway.silence import unless_silent
from segue_cloud.gateway.state import RequestState
from segue_protocol.errors import (
    Aborted,
    Cancelled,
    DeadlineExceeded,
    Overloaded,
    ProtocolError,
    SegueError,
    TransferError,
    Unavailable,
)
from segue_protocol.wire import private, public

# How long a refused extension waits before it is asked for again.
EXTENSION_RETRY_S = 0.05


class Outcome(Enum):
    """How an attempt ended."""

    COMPLETE = auto()  # stop token or limit
    EVICTED = auto()  # parked pages went to somebody else
    LOST = auto()  # a worker died, froze or moved wrong bytes


@dataclass(frozen=True, slots=True)
class Budget:
    """Named time budgets of the cloud side."""

    first_token_s: float = 30.0
    inter_token_s: float = 10.0


class Observer(Protocol):
    """What an attempt tells the session, and asks it."""

    @property
    def credit(self) -> int: ...

    def enter(self, state: RequestState) -> None: ...

    def step(self, name: str, pid: int) -> None:
        """A named step in the life of the answer, taken by process `pid`."""
        ...

    def append(
        self, epoch: int, index: int, ids: Sequence[int], logprobs: Sequence[float]
    ) -> None: ...

    def complete_after(self, ids: Sequence[int]) -> public.FinishReason | None:
        """Why the answer is complete if these ids were its output."""
        ...

    def observe_prefill(self, prefilled: private.Prefilled) -> None: ...

    def observe_refined(self, refined: private.Refined) -> None: ...

    def observe_transfer(self, pulled: private.Pulled) -> None: ...

    def decoding_on(self, stream: DecodeStream | None) -> None:
        """Where credits go from now on."""
        ...


async def run_attempt(
    membership: Membership,
    assignment: Assignment,
    observer: Observer,
    budget: Budget,
    *,
    may_wait_for_workers: bool,
) -> Outcome:
    """Serve until the answer is complete, evicted or a worker is lost.

    Raises Overloaded when nobody accepted within the first-token budget,
    Unavailable when there is nobody to ask.
    """
    observer.enter(RequestState.WAITING)
    scope = assignment.scope
    # What is reserved is admitted; a credit raised meanwhile is an extension.
    reserved_credit = min(observer.credit, assignment.max_tokens)
    tokens = len(assignment.token_ids)
    prefix_keys = assignment.prefix_keys()
    async with AsyncExitStack() as held, AsyncExitStack() as held_prefill:
        try:
            with anyio.fail_after(budget.first_token_s):
                # An answer that somebody is reading already goes ahead of new ones.
                with membership.line(scope.group).place(
                    scope.tenant, tokens, urgent=may_wait_for_workers
                ) as place:
                    decoder, decode, prefiller, prefill = await forward(
                        membership,
                        assignment,
                        reserved_credit,
                        prefix_keys,
                        place,
                        held,
                        held_prefill,
                        may_be_absent=may_wait_for_workers,
                    )
                observer.step("forward", os.getpid())
                observer.enter(RequestState.PREFILLING)
                with _losing(membership, prefiller):
                    answer = await prefill.receive()
                while answer is not None and not answer.HasField("prefilled"):
                    if answer.HasField("refined"):
                        observer.observe_refined(answer.refined)
                    elif answer.HasField("started"):
                        with _losing(membership, decoder):
                            await decode.send(prefetch_message(answer.started))
                    else:
                        break
                    with _losing(membership, prefiller):
                        answer = await prefill.receive()
        except TimeoutError:
            absent = membership.absent_role(scope.group)
            if absent is not None:
                raise nobody_there(absent, scope.group) from None
            raise Overloaded(
                f"no first token within {budget.first_token_s} s: every worker is busy or slow; "
                "try again later or add prefill workers",
                reason="TTFT_DEADLINE",
                retry_after_s=1.0,
            ) from None
        except (_Lost, TransferError):  # the latter: the reservation ended before its prefill
            return Outcome.LOST
        if answer is None or not answer.HasField("prefilled"):
            raise ProtocolError(f"{prefiller.name} sent {answer!r}, expected `prefilled`")
        first = answer.prefilled
        observer.step("prefill", prefiller.pid)
        observer.observe_prefill(first)
        prefiller.prefixes.remember(prefix_keys)
        output = [*assignment.output_ids, first.token_id]
        observer.append(first.epoch, first.index, [first.token_id], [first.logprob])
        observer.enter(RequestState.KV_READY)
        if observer.complete_after(output) is not None:
            return Outcome.COMPLETE
        observer.enter(RequestState.TRANSFERRING)
        try:
            with _losing(membership, decoder, budget.inter_token_s):
                await decode.send(assignment.admit(first, reserved_credit))
                pulled = await decode.receive()
            if pulled is None or not pulled.HasField("pulled"):
                raise ProtocolError(f"{decoder.name} sent {pulled!r}, expected `pulled`")
            observer.step("transfer", decoder.pid)
            observer.observe_transfer(pulled.pulled)
            with _losing(membership, prefiller):
                await prefill.send(private.PrefillRequest(release=private.ReleaseKv()))
        except _Lost as lost:
            # The KV has left a prefill worker that dies only now: nothing is lost.
            if lost.member is decoder:
                return Outcome.LOST
        # From here on it is not one of the prefiller's open streams any more.
        await held_prefill.aclose()
        observer.enter(RequestState.DECODING)
        observer.decoding_on(decode)
        try:
            if observer.credit > reserved_credit:
                with _losing(membership, decoder):
                    await decode.send(credit_message(observer.credit))
            return await _follow(membership, decoder, decode, observer, budget)
        except _Lost:
            return Outcome.LOST
        finally:
            observer.decoding_on(None)


async def _follow(
    membership: Membership,
    decoder: Member,
    decode: DecodeStream,
    observer: Observer,
    budget: Budget,
) -> Outcome:
    """Read one decode stream to its end."""
    parked = streaming = False
    with (
        _losing(membership, decoder),
        unless_silent(decoder.name, budget.inter_token_s) as silence,
    ):
        while True:
            event = await decode.receive()
            silence.heard()
            if event is None:
                raise ProtocolError(f"{decoder.name} ended a stream without `ended` or `evicted`")
            kind = event.WhichOneof("message")
            if kind == "tokens":
                if not streaming:
                    streaming = True
                    observer.step("stream", decoder.pid)
                if parked:
                    parked = False
                    silence.expect(True)
                    observer.enter(RequestState.DECODING)
                tokens = event.tokens
                observer.append(tokens.epoch, tokens.index, tokens.ids, tokens.logprobs)
            elif kind == "parked":
                parked = True
                silence.expect(False)  # by design; a running one is not silent
                membership.line(decoder.group).wake_first()  # its pages can be had
                observer.enter(RequestState.PARKED)
            elif kind == "ended":
                return Outcome.COMPLETE
            elif kind == "evicted":
                return Outcome.EVICTED
            elif kind == "extension_refused":
                await anyio.sleep(EXTENSION_RETRY_S)
                await decode.send(credit_message(observer.credit))
            else:
                raise ProtocolError(f"{decoder.name} sent {kind!r} in mid-answer")


class _Lost(Exception):
    """A worker cannot go on with this request."""

    def __init__(self, member: Member, cause: SegueError) -> None:
        super().__init__(str(cause))
        self.member = member
        self.cause = cause


@contextmanager
def _losing(
    membership: Membership, member: Member, within_s: float | None = None
) -> Iterator[None]:
    """Turn the errors and the silence of a vanished worker into :class:`_Lost`."""
    try:
        with anyio.fail_after(within_s):
            yield
    except TimeoutError as error:
        silent = DeadlineExceeded(f"{member.name} was silent for {within_s} s")
        raise _Lost(member, silent) from error
    except Unavailable as error:
        membership.remove(member, "UNREACHABLE")
        raise _Lost(member, error) from error
    except TransferError as error:
        membership.watch.transfer_failed(member, error.reason)
        raise _Lost(member, error) from error
    except (DeadlineExceeded, Cancelled, Aborted) as error:
        raise _Lost(member, error) from error


def prefetch_message(started: private.Started) -> private.DecodeRequest:
    """The message that lets a decode worker copy layers while others are computed."""
    return private.DecodeRequest(prefetch=private.Prefetch(ticket=started.ticket))


def credit_message(through: int) -> private.DecodeRequest:
    """The message that lets a decode worker produce output indices < through."""
    return private.DecodeRequest(credit=public.Credit(through=through))
