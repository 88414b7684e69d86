"""One cloud-only answer over raw gRPC: the test decides how far the cloud may write, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from demos.cluster import Cluster
from segue_protocol.version import protocol_version
from segue_protocol.wire import public
from tests.processes import stubs

DEADLINE_S = 45.0
MAX_TOKENS = 40
# Without the stop token the length of the answer is the test's.
SAMPLING = public.Sampling(temperature=0.7, seed=11, logit_bias={2: -100.0})


@dataclass
class RawAnswer:
    """A stream of `Generate` and what has come of it. Every wait has a deadline."""

    service: Any
    call: Any
    ids: list[int]
    started: public.Started = field(default_factory=public.Started)
    finish: public.Finish | None = None

    async def grant(self, through: int) -> None:
        """Let the cloud write output indices < through."""
        credit = public.Credit(through=through)
        await self.call.write(public.GenerateRequest(credit=credit))

    async def read_through(self, length: int) -> None:
        """Read until the answer has `length` tokens or ends; raises AioRpcError."""
        with anyio.fail_after(DEADLINE_S):
            while len(self.ids) < length and self.finish is None:
                self._take(await self.call.read())

    async def whole(self) -> list[int]:
        """Grant everything and read to the end."""
        await self.grant(MAX_TOKENS)
        await self.read_through(MAX_TOKENS + 1)
        assert self.finish is not None
        return self.ids

    async def found(self) -> public.GetGenerationResponse:
        """What the gateway knows of it now."""
        response: public.GetGenerationResponse = await self.service.GetGeneration(
            public.GetGenerationRequest(
                generation_id=self.started.generation_id, resume_token=self.started.resume_token
            ),
            timeout=DEADLINE_S,
        )
        return response

    async def reach(self, state: public.RequestState) -> None:
        """Wait until the request is in a state."""
        with anyio.fail_after(DEADLINE_S):
            while (await self.found()).state != state:
                pass

    async def steps(self, name: str) -> list[int]:
        """Who took the named step, in order."""
        return [step.pid for step in (await self.found()).steps if step.name == name]

    def _take(self, response: Any) -> None:
        assert isinstance(response, public.GenerateResponse), "the stream ended without `finish`"
        kind = response.WhichOneof("message")
        if kind == "started":
            self.started = response.started
        elif kind == "tokens":
            assert response.tokens.index == len(self.ids), "no token twice, none left out"
            self.ids.extend(response.tokens.ids)
        elif kind == "finish":
            self.finish = response.finish


@asynccontextmanager
async def raw_answer(
    cluster: Cluster, prompt: str, *, credit: int, output_prefix: Sequence[int] = ()
) -> AsyncIterator[RawAnswer]:
    """Start an answer of MAX_TOKENS tokens; `started` has come."""
    async with stubs(cluster) as (service, _):
        call = service.Generate(timeout=DEADLINE_S)
        start = public.Start(
            request_id="raw",
            protocol=protocol_version(),
            prompt_text=prompt,
            sampling=SAMPLING,
            limits=public.Limits(max_tokens=MAX_TOKENS),
            credit=public.Credit(through=credit),
            output_prefix=output_prefix,
        )
        await call.write(public.GenerateRequest(start=start))
        answer = RawAnswer(service, call, list(output_prefix))
        while not answer.started.generation_id:
            answer._take(await call.read())
        try:
            yield answer
        finally:
            call.cancel()
