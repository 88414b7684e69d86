"""A device with a cloud: what the gateway decides about it, and what goes over the wires."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from demos.trace.call import Call
from demos.trace.case import Case
from demos.trace.events import Events
from demos.trace.gateway import Gateway
from demos.trace.network import Wire
from demos.trace.phone import Done, Phone
from demos.trace.requests import Request
from segue_cloud.gateway.refinement import MIN_PROMPT_TOKENS
from segue_cloud.refine.attention import max_pool
from segue_cloud.refine.guards import Guards
from segue_cloud.refine.ranges import keep_ranges
from segue_cloud.tuner.advice import advise
from segue_device.kept_ranges import Run
from segue_protocol.tuning import Network, Targets

# Neighbours by which a token's score is pooled, as the refiner's scorer does.
POOL_TOKENS = 13

QualityTable = tuple[tuple[float, float], ...]


class SplitPhone(Phone):
    """The cloud begins, the device takes over. The gateway advises how."""

    def __init__(
        self,
        events: Events,
        case: Case,
        request: Request,
        done: Done,
        gateway: Gateway,
        *,
        cached_tokens: int = 0,
        quality: QualityTable = (),
    ) -> None:
        super().__init__(events, case, request, done, cached_tokens=cached_tokens)
        self._gateway = gateway
        self._quality = quality
        self._up = Wire(events, case.network, request.chance("up"))
        self._down = Wire(events, case.network, request.chance("down"))

    def begin(self) -> None:
        self.call = Call(
            peer=self,
            prompt_tokens=self.request.prompt_tokens,
            output_tokens=self.request.output_tokens,
        )
        self._up.send(lambda: self._steer(self._arrived), upload_s(self._case, self.request))
        super().begin()

    # ---- at the gateway

    def _arrived(self, call: Call) -> None:
        case, prompt_tokens = self._case, self.request.prompt_tokens
        advice = advise(
            case.device.profile,
            self._gateway.cloud_speed.speed(prompt_tokens),
            prompt_tokens=prompt_tokens,
            cached_tokens=self._cached_tokens,
            max_tokens=self.request.max_tokens,
            network=learnt_network(case, self.request),
            targets=Targets(ttft_s=case.targets.ttft_s, quality_floor=case.targets.quality_floor),
            quality=self._quality if prompt_tokens >= MIN_PROMPT_TOKENS else (),
        )
        call.credit, call.keep_ratio = max(1, advice.cloud_tokens), advice.keep_ratio
        self._down.send(lambda: self.on_started(advice.cloud_tokens, advice.pace_s))
        self._gateway.submit(call)

    def tokens(self, made_s: Sequence[float]) -> None:
        """From the gateway."""
        count = len(made_s)
        self._down.send(lambda: self.on_tokens(count))

    def kept_list(self) -> None:
        """From the gateway."""
        assert self.call is not None
        kept = kept_ranges(self.request, self.call.keep_ratio)
        self._down.send(lambda: self.on_list(kept))

    def refused(self) -> None:
        """From the gateway."""
        self._down.send(self.on_refused)

    # ---- to the gateway

    def _send_credit(self, through: int) -> None:
        self._up.send(lambda: self._steer(lambda call: self._gateway.raise_credit(call, through)))

    def _send_takeover(self) -> None:
        if self._cloud_alive:
            self._up.send(lambda: self._steer(self._gateway.end))

    def _steer(self, change: Callable[[Call], None]) -> None:
        """At the gateway; messages keep their order, so the call is known there."""
        assert self.call is not None
        change(self.call)


class RoutedPhone(SplitPhone):
    """Whole requests are routed, and move in mid-answer, after DiSCo (arXiv 2502.11417).

    The cloud writes until so much is buffered that showing it at the pace r_c lasts
    for the migration, t_m (the device's prefill of prompt and answer): B = r_c t_m.
    Only then does the device begin. As token ids cost next to nothing to send, every
    answer moves that can.
    """

    def __init__(
        self, events: Events, case: Case, request: Request, done: Done, gateway: Gateway
    ) -> None:
        super().__init__(events, case, request, done, gateway)
        self._rests = True

    def _arrived(self, call: Call) -> None:
        # It asks for a whole answer, and is held to nothing less; that its true length is
        # reserved is kinder than any gateway can be.
        call.credit = call.output_tokens
        self._down.send(lambda: self.on_started(call.output_tokens, self._screen.interval_s))
        self._gateway.submit(call)

    def on_tokens(self, count: int) -> None:
        super().on_tokens(count)
        if self._rests and not self._over and self._buffer_lasts():
            self._send_takeover()
            self._move()

    def on_refused(self) -> None:
        super().on_refused()
        self._move()

    def _buffer_lasts(self) -> bool:
        tokens = self.request.prompt_tokens + self.log_tokens
        migration_s = self._profile.prefill_s(tokens) + self._profile.handover_s
        buffered = self.log_tokens - self._screen.shown
        return buffered * self._screen.interval_s >= migration_s

    def _move(self) -> None:
        if self._rests:
            self._rests = self._cloud_alive = False
            self._wake()


def upload_s(case: Case, request: Request) -> float:
    """Seconds until the prompt's ids are sent."""
    network = case.network
    return request.prompt_tokens * network.bytes_per_token / network.uplink_bytes_per_s


def learnt_network(case: Case, request: Request) -> Network:
    """What a device that has asked before knows of its network."""
    network = case.network
    return Network(
        added_s=network.rtt_s + 2 * network.jitter_s + upload_s(case, request),
        deviation_s=math.sqrt(2) * network.jitter_s,
    )


def kept_ranges(request: Request, keep_ratio: float) -> list[Run]:
    """What the refiner keeps of a prompt of noise, no text: as scattered as it gets."""
    noise = np.random.default_rng(request.chance("kept").getrandbits(64))
    scores = max_pool(noise.random(request.prompt_tokens, np.float32), POOL_TOKENS)
    return keep_ranges(scores, range(request.prompt_tokens), keep_ratio, Guards(special_ids=()))
