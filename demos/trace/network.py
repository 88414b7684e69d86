"""One direction of a device's connection: delayed, jittery, in order."""

from __future__ import annotations

import random

from demos.trace.case import NetworkCase
from demos.trace.events import Action, Events


class Wire:
    """Half a round trip, plus an exponential delay of every message's own."""

    def __init__(self, events: Events, network: NetworkCase, chance: random.Random) -> None:
        self._events = events
        self._half_s = network.rtt_s / 2
        self._jitter_s = network.jitter_s
        self._chance = chance
        self._last_s = 0.0

    def arrival_s(self, sent_s: float, sending_s: float = 0.0) -> float:
        """When a message that is sent at `sent_s`, and takes `sending_s` to send, arrives."""
        jitter_s = self._chance.expovariate(1 / self._jitter_s) if self._jitter_s else 0.0
        arrival_s = sent_s + sending_s + self._half_s + jitter_s
        self._last_s = max(self._last_s, arrival_s)  # a stream delivers in order
        return self._last_s

    def send(self, arrived: Action, sending_s: float = 0.0) -> None:
        """Send now."""
        self._events.at(self.arrival_s(self._events.now_s, sending_s), arrived)
