"""The gateway: every session of one cloud, and the four public calls.

The calls speak messages and raise typed errors; :mod:`segue_cloud.gateway.server`
puts them on gRPC and WebSocket, tests call them directly.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field

from segue_cloud.cluster.groups import Groups
from segue_cloud.cluster.members import Membership
from segue_cloud.cluster.survey import survey
from segue_cloud.gateway.admission import admit
from segue_cloud.gateway.assignment import Scope
from segue_cloud.gateway.attempt import Budget
from segue_cloud.gateway.reader import Reader
from segue_cloud.gateway.refinement import keep_ratio_for, qualities
from segue_cloud.gateway.session import Session
from segue_cloud.gateway.steering import first_message, steer
from segue_cloud.gateway.tenants import Tenants
from segue_cloud.security.rates import RequestRates
from segue_cloud.tuner.advice import CloudEstimate, advise
from segue_cloud.watch.trace_parent import TRACE_PARENT
from segue_protocol.errors import (
    Aborted,
    InternalError,
    InvalidRequest,
    NotFound,
    OutOfRange,
    PermissionDenied,
    SegueError,
    Unavailable,
)
from segue_protocol.text import TextStream
from segue_protocol.tokenizer import ChatTokenizer
from segue_protocol.version import protocol_version
from segue_protocol.wire import private, public


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """What one answer may take, and how long things are waited for."""

    budget: Budget = field(default_factory=Budget)
    # A cap on cloud tokens per answer for requests that name a device model.
    credit_cap: int = 2**31 - 1
    heartbeat_s: float = 5.0
    # How long a generation without a stream lives, finished or not.
    unclaimed_s: float = 30.0
    # How long a stream may stay open without a word.
    first_message_s: float = 10.0


class Gateway:
    """Sessions by generation id. One event loop; no torch in this process."""

    def __init__(
        self,
        membership: Membership,
        *,
        groups: Groups | None = None,
        tenants: Tenants | None = None,
        tokenizer: ChatTokenizer | None = None,
        limits: GatewayLimits | None = None,
        rates: RequestRates | None = None,
        group_status: Callable[[], Sequence[private.GroupStatus]] = tuple,
    ) -> None:
        """`group_status` tells what is measured of every group."""
        self.membership = membership
        self.cloud_speed = CloudEstimate()
        self._groups = groups or Groups()
        self._tenants = tenants or Tenants()
        self._tokenizer = tokenizer
        self._limits = limits or GatewayLimits()
        self._rates = rates or RequestRates()
        self._group_status = group_status
        self._sessions: dict[str, Session] = {}
        self._readers: dict[str, Reader] = {}
        self._runs: set[asyncio.Task[None]] = set()
        self._leases: dict[str, asyncio.TimerHandle] = {}
        self._closing = False

    @property
    def sessions(self) -> Collection[Session]:
        """Every session that is still known, finished ones included."""
        return self._sessions.values()

    # ---- calls; what a tenant began is unknown to every other one

    async def generate(
        self, requests: AsyncIterator[public.GenerateRequest], *, tenant: str = ""
    ) -> AsyncGenerator[public.GenerateResponse, None]:
        """One answer, or the rest of one. See the proto for the messages.

        `tenant` is who asks, "" where nobody is asked.
        """
        try:
            first = await first_message(requests, self._limits.first_message_s)
            session, cursor, credit = self._open(first, tenant)
        except SegueError as error:
            self.membership.watch.refused(error)
            raise
        reader = self._attach(session, cursor)
        steering = asyncio.create_task(steer(requests, session, reader, credit))
        try:
            async for response in reader.responses():
                yield response
        finally:
            steering.cancel()
            self._detach(session, reader)

    async def get_model(
        self, request: public.GetModelRequest, *, tenant: str = ""
    ) -> public.GetModelResponse:
        """What this cloud runs. Raises Unavailable before a worker has joined."""
        identity = self.membership.identity
        if identity is None:
            raise Unavailable("no worker has joined yet; try again later", reason="NO_WORKER")
        if request.model and request.model != identity.model:
            raise NotFound(
                f"unknown model {request.model!r}; this cloud serves {identity.model!r}",
                reason="UNKNOWN_MODEL",
            )
        return public.GetModelResponse(
            identity=identity.to_wire(),
            max_context_tokens=self.membership.max_context_tokens,
            protocol=protocol_version(),
        )

    async def cancel_generation(
        self, request: public.CancelGenerationRequest, *, tenant: str = ""
    ) -> public.CancelGenerationResponse:
        """End a generation from outside its stream. Idempotent while it is known."""
        session = self._find(request.generation_id, request.resume_token, tenant)
        session.finish(public.FINISH_REASON_CANCELLED)
        return public.CancelGenerationResponse()

    async def get_generation(
        self, request: public.GetGenerationRequest, *, tenant: str = ""
    ) -> public.GetGenerationResponse:
        """State and log of a generation."""
        session = self._find(request.generation_id, request.resume_token, tenant)
        return public.GetGenerationResponse(
            state=session.state.value,
            output=session.log.ids,
            credit_through=session.credit,
            finish_reason=session.finish_reason or public.FINISH_REASON_UNSPECIFIED,
            steps=session.measured.steps,
        )

    async def get_cluster(self, request: private.GetClusterRequest) -> private.ClusterStatus:
        """Counts of the gateway and of every member that answers."""
        members = self.membership.members
        status = private.ClusterStatus(
            gateway_pid=os.getpid(),
            sessions_running=sum(not session.finished for session in self._sessions.values()),
            tasks_running=len(self._runs),
            open_streams=sum(member.open_streams for member in members),
            dropped_tokens_total=sum(session.log.dropped for session in self._sessions.values()),
            groups=self._group_status(),
        )
        status.workers.extend(await survey(members))
        return status

    async def aclose(self) -> None:
        """End every session with Unavailable and wait until workers are let go.

        What opens from now on is refused: listeners close only after this.
        """
        self._closing = True
        for session in list(self._sessions.values()):
            session.fail(_shutting_down())
        for lease in self._leases.values():
            lease.cancel()
        if self._runs:
            await asyncio.wait(self._runs)
        self._sessions.clear()

    def check_integrity(self) -> None:
        """Raise InternalError if a finished session still has a running task."""
        running = sum(not session.finished for session in self._sessions.values())
        if len(self._runs) > running:
            raise InternalError(f"{len(self._runs)} runs for {running} unfinished sessions")

    # ---- opening

    def _open(self, first: public.GenerateRequest, tenant: str) -> tuple[Session, int, int]:
        if self._closing:
            raise _shutting_down()
        kind = first.WhichOneof("message")
        if kind == "start":
            return self._start(first.start, tenant), len(first.start.output_prefix), 0
        if kind == "resume":
            return self._resume(first.resume, tenant)
        raise InvalidRequest(
            f"the first message of a stream is {kind or 'nameless'}, expected start or resume"
        )

    def _start(self, start: public.Start, tenant: str) -> Session:
        self._rates.require(tenant, asyncio.get_running_loop().time())
        identity = self.membership.identity
        if identity is None:
            raise Unavailable("no worker has joined yet; try again later", reason="NO_WORKER")
        request = admit(start, identity, self.membership.max_context_tokens, self._tokenizer)
        group = self._groups.of(start.label, request.prompt_ids)
        length = len(request.prompt_ids)
        self._tenants.require_room(tenant, length, self._sessions.values())
        speed = self.cloud_speed.speed(length)
        advice = advise(
            request.profile,
            speed,
            prompt_tokens=length,
            cached_tokens=request.cached_tokens,
            max_tokens=request.max_tokens - len(request.output_prefix),
            network=request.network,
            targets=request.targets_over(group.targets),
            quality=qualities(request, group.quality),
        )
        advice.keep_ratio = keep_ratio_for(request, advice.keep_ratio, speed)
        text = None
        if request.wants_text and self._tokenizer is not None:
            text = TextStream(self._tokenizer.vocabulary, request.sampling.stop)
        session = Session(
            str(uuid.uuid4()),
            secrets.token_bytes(16),
            request,
            advice,
            tenant=tenant,
            identity=identity,
            credit_cap=request.max_tokens if request.wants_text else self._limits.credit_cap,
            text=text,
            scope=Scope(
                group=group.name,
                tenant=tenant,
                cache_salt=self._tenants.cache_salt(tenant),
                shared_tokens=group.shared_tokens(request.prompt_ids),
            ),
            watch=self.membership.watch,
            trace_parent=TRACE_PARENT.get(),
        )
        session.step("admit", os.getpid())
        self._sessions[session.generation_id] = session
        run = asyncio.create_task(self._run(session))
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)
        return session

    def _resume(self, resume: public.Resume, tenant: str) -> tuple[Session, int, int]:
        session = self._find(resume.generation_id, resume.resume_token, tenant)
        if resume.next_index > len(session.log):
            raise OutOfRange(
                f"resume at index {resume.next_index}, but the log has {len(session.log)} tokens; "
                "start again with output_prefix"
            )
        return session, resume.next_index, resume.credit.through

    def _find(self, generation_id: str, token: bytes, tenant: str) -> Session:
        session = self._sessions.get(generation_id)
        if session is None or session.tenant != tenant:
            raise NotFound(
                f"no generation {generation_id!r} here; it ended, expired, or this gateway was "
                "restarted: start again with output_prefix",
                reason="UNKNOWN_GENERATION",
            )
        if not secrets.compare_digest(session.resume_token, token):
            raise PermissionDenied("wrong resume token for this generation")
        return session

    async def _run(self, session: Session) -> None:
        await session.run(self.membership, self._limits.budget)
        measured = session.measured
        if measured.first_token_s is not None and not measured.recomputed_tokens:
            waiting_s = measured.first_token_s - measured.created_s - measured.prefill_s
            ids = len(session.request.prompt_ids) + session.log.prefix_length
            self.cloud_speed.observe(ids, waiting_s, measured.prefill_s, measured.cached_tokens)
            if measured.list_s:
                self.cloud_speed.observe_list(measured.list_s, measured.prefill_s)
            decoded = len(session.log) + session.discarded - session.log.prefix_length - 1
            self.cloud_speed.observe_decode(decoded, measured.slot_s)

    # ---- streams of a session

    def _attach(self, session: Session, cursor: int) -> Reader:
        key = session.generation_id
        older = self._readers.get(key)
        if older is not None:
            older.interrupt(Aborted("a newer stream reads this generation", reason="SUPERSEDED"))
        lease = self._leases.pop(key, None)
        if lease is not None:
            lease.cancel()
        reader = Reader(session, cursor, heartbeat_s=self._limits.heartbeat_s)
        self._readers[key] = reader
        return reader

    def _detach(self, session: Session, reader: Reader) -> None:
        """A lost stream is not a cancel: an unclaimed generation ends by its lease."""
        key = session.generation_id
        if self._readers.get(key) is not reader:
            return
        del self._readers[key]
        self._leases[key] = asyncio.get_running_loop().call_later(
            self._limits.unclaimed_s, self._expire, session
        )

    def _expire(self, session: Session) -> None:
        self._leases.pop(session.generation_id, None)
        self._sessions.pop(session.generation_id, None)
        session.fail(Aborted("nobody claimed this generation", reason="UNCLAIMED"))


def _shutting_down() -> Unavailable:
    return Unavailable("the gateway is shutting down", reason="SHUTDOWN")
