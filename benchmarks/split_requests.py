"""Devices that take the cloud's part of an answer, and what they saw of it."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.workload import Arrival
from segue_cloud.gateway.gateway import Gateway
from segue_protocol.errors import SegueError
from segue_protocol.identity import ModelIdentity
from segue_protocol.prefix import prefix_hash
from segue_protocol.streams import LocalStream, Stream
from segue_protocol.timeline import DeviceProfile
from segue_protocol.version import protocol_version
from segue_protocol.wire import public

# Emulated: the phone of FIELD's orders of magnitude. It decides how many tokens the cloud makes.
PHONE = DeviceProfile(0.0, 1 / 800, 0.0, 0.05, 0.02)

PublicStream = Stream[public.GenerateRequest, public.GenerateResponse]


@dataclass
class Seen:
    """What one device saw; times since it asked, on its clock."""

    tokens_s: list[float] = field(default_factory=list)
    error: SegueError | None = None

    def succeeded(self, ttft_s: float, gap_s: float) -> bool:
        """Whether the answer came to its end within both targets."""
        return self.error is None and self.ttft_s <= ttft_s and self.max_gap_s <= gap_s

    @property
    def ttft_s(self) -> float:
        return self.tokens_s[0] if self.tokens_s else math.inf

    @property
    def tpot_s(self) -> float:
        """Mean time per output token after the first."""
        after = len(self.tokens_s) - 1
        return (self.tokens_s[-1] - self.tokens_s[0]) / after if after > 0 else 0.0

    @property
    def max_gap_s(self) -> float:
        return max((b - a for a, b in itertools.pairwise(self.tokens_s)), default=0.0)


async def replay(
    gateway: Gateway,
    arrivals: Sequence[Arrival],
    seed: int,
    profile: DeviceProfile | None = PHONE,
) -> list[Seen]:
    """Every request at its own time, whatever became of the others (open loop).

    `profile` None: the cloud makes the whole answer.
    """
    identity = gateway.membership.identity
    assert identity is not None
    started_s = asyncio.get_running_loop().time()

    async def one(place: int, arrival: Arrival) -> Seen:
        await asyncio.sleep(started_s + arrival.at_s - asyncio.get_running_loop().time())
        prompt = list(random.Random(seed * 1_000_003 + place).randbytes(arrival.length.prompt))
        stream: PublicStream = LocalStream(gateway.generate)
        try:
            return await ask(stream, prompt, arrival.length.output, identity, profile=profile)
        finally:
            await stream.aclose()

    return await asyncio.gather(*(one(*each) for each in enumerate(arrivals)))


async def ask(
    stream: PublicStream,
    prompt: Sequence[int],
    max_tokens: int,
    identity: ModelIdentity,
    timings: public.CloudTimings | None = None,
    profile: DeviceProfile | None = PHONE,
) -> Seen:
    """One answer: take as many tokens as the cloud advises, then take over.

    Fills `timings`, if given, with the cloud's account.
    """
    clock = asyncio.get_running_loop().time
    asked_s, seen, ids = clock(), Seen(), list[int]()
    try:
        await stream.send(start(prompt, max_tokens, identity, profile))
        through = max_tokens
        while (response := await stream.receive()) is not None:
            if response.HasField("started"):
                through = response.started.credit_through
            elif response.HasField("tokens"):
                ids += response.tokens.ids
                seen.tokens_s += [clock() - asked_s] * len(response.tokens.ids)
                if through <= len(ids) < max_tokens:
                    takeover = public.Takeover(index=len(ids), prefix_hash=prefix_hash(prompt, ids))
                    await stream.send(public.GenerateRequest(takeover=takeover))
            elif response.HasField("finish") and timings is not None:
                timings.CopyFrom(response.finish.timings)
    except SegueError as error:
        seen.error = error
    return seen


def start(
    prompt: Sequence[int],
    max_tokens: int,
    identity: ModelIdentity,
    profile: DeviceProfile | None,
) -> public.GenerateRequest:
    """The first message of an answer that ends by its length alone."""
    return public.GenerateRequest(
        start=public.Start(
            protocol=protocol_version(),
            identity=identity.to_wire(),
            prompt_token_ids=public.TokenIds(ids=prompt),
            limits=public.Limits(max_tokens=max_tokens),
            profile=profile.to_wire() if profile is not None else None,
        )
    )
