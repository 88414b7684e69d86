"""Any network, any moment of the takeover: the user reads the reference model's answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random

from hypothesis import event, given, note, settings
from hypothesis import strategies as st

from segue_cloud.gateway.gateway import GatewayLimits
from segue_device import (
    DeviceProfile,
    Done,
    Event,
    Fallback,
    Mode,
    Reconnecting,
    Result,
    Resumed,
    Sampling,
    SegueError,
    Source,
    Started,
    Takeover,
    Token,
)
from segue_device.transports.delayed import DelayedTransport
from segue_protocol.reference import STOP_ID
from tests.faulty_transport import HOLDS, REFUSED, Fault, FaultyStream, FaultyTransport
from tests.harness import (
    ReferenceAnswer,
    reference_answer,
    reference_client,
    reference_cloud,
)
from tests.virtual_clock import run_virtual

NEVER_OPENS = Fault(refused=True, silent=True)
NO_END = {STOP_ID: -100.0}
# More virtual time than the slowest answer takes, drops and silences included.
LIMIT_S = 900.0
# For leases and deadlines of the cloud to run out.
SETTLE_S = 60.0

MODES = (Mode.SPLIT, Mode.SPLIT, Mode.PREFER_IN_CLOUD, Mode.ONLY_IN_CLOUD)
DELAYS_S = ((0.0,), (0.0,), (0.05,), (0.0, 0.0, 0.4), (0.01, 3.0, 0.0), (20.0, 0.0))


@dataclass(frozen=True)
class Case:
    """One answer and the network that it meets."""

    prompt_tokens: int
    prompt_seed: int
    max_tokens: int
    mode: Mode
    sampling: Sampling
    credit: int | None
    profile: DeviceProfile
    step_s: float
    rtt_s: float
    unclaimed_s: float
    faults: tuple[Fault, ...]
    afterwards: Fault

    @property
    def prompt(self) -> tuple[int, ...]:
        return tuple(Random(self.prompt_seed).randbytes(self.prompt_tokens))

    @property
    def answer(self) -> ReferenceAnswer:
        return reference_answer(self.prompt, self.sampling, self.max_tokens)


def draw_case(random: Random) -> Case:
    mode = random.choice(MODES)
    case = Case(
        prompt_tokens=random.choice((1, 17, 120, 400, 400)),
        prompt_seed=random.randrange(100),
        max_tokens=random.choice((1, 2, 9, 24, 40, 40)),
        mode=mode,
        sampling=Sampling(
            temperature=random.choice((0.0, 0.9)),
            seed=random.randrange(100),
            logit_bias=random.choice((NO_END, NO_END, {STOP_ID: 20.0}, {})),
        ),
        credit=random.choice((None, None, 1, 5, 20, 40)) if mode is Mode.SPLIT else None,
        profile=DeviceProfile(
            prefill_base_s=random.choice((0.0, 0.3, 3.0, 30.0)),
            prefill_per_token_s=random.choice((1e-5, 1 / 800, 0.02)),
            prefill_per_token2_s=0.0,
            decode_s=random.choice((0.001, 0.05, 0.12)),
            handover_s=0.02,
        ),
        step_s=random.choice((0.004, 0.03, 0.03, 0.2)),
        rtt_s=random.choice((0.0, 0.04, 0.7)),
        unclaimed_s=random.choice((0.05, 30.0)),
        faults=tuple(_draw_fault(random, n) for n in range(random.choice((0, 1, 2, 3, 4, 5)))),
        afterwards=random.choice((HOLDS, HOLDS, REFUSED, NEVER_OPENS)),
    )
    return _with_stop_string(random, case) if random.random() < 0.3 else case


def _with_stop_string(random: Random, case: Case) -> Case:
    """Stop at a piece of the answer's own text, if it has one."""
    text = case.answer.text
    begin = random.randrange(case.max_tokens)
    stop = text[begin : begin + random.choice((1, 2, 5))]
    return replace(case, sampling=replace(case.sampling, stop=(stop,))) if stop else case


def _draw_fault(random: Random, number: int) -> Fault:
    # Mostly the first stream begins well: otherwise there is nothing to resume.
    first = ("response", "response", "response", "request", "none", "any")[random.randrange(6)]
    kinds = ("response", "response", "request", "refused", "none")
    kind = first if number == 0 and first != "any" else random.choice(kinds)
    return Fault(
        refused=kind == "refused",
        silent=random.random() < 0.25,
        responses=random.randrange(12) if kind == "response" else None,
        requests=random.randrange(3) if kind == "request" else None,
        delays_s=random.choice(DELAYS_S),
    )


@dataclass
class Outcome:
    """What the app saw, and what passed on the wire."""

    case: Case
    expected: ReferenceAnswer
    streams: list[FaultyStream]
    events: list[Event] = field(default_factory=list)
    error: SegueError | None = None

    @property
    def tokens(self) -> list[Token]:
        return [each for each in self.events if isinstance(each, Token) and each.index is not None]

    @property
    def result(self) -> Result | None:
        last = self.events[-1] if self.events else None
        return last.result if isinstance(last, Done) else None

    def count(self, kind: type) -> int:
        return sum(isinstance(each, kind) for each in self.events)


async def run_case(case: Case) -> Outcome:
    """The whole answer; afterwards the cloud holds nothing."""
    limits = GatewayLimits(unclaimed_s=case.unclaimed_s)
    async with reference_cloud(step_s=case.step_s, limits=limits) as cloud:
        faulty = FaultyTransport(cloud.transport(), case.faults, afterwards=case.afterwards)
        outcome = Outcome(case, case.answer, faulty.streams)
        transport = DelayedTransport(faulty, case.rtt_s)
        async with reference_client(transport, profile=case.profile) as client:
            stream = client.stream(
                prompt_token_ids=case.prompt,
                sampling=case.sampling,
                max_tokens=case.max_tokens,
                mode=case.mode,
                credit_through=case.credit,
            )
            async with stream as answer:
                try:
                    async for each in answer:
                        outcome.events.append(each)
                except SegueError as error:
                    outcome.error = error
        await asyncio.sleep(SETTLE_S)
        cloud.check_idle()
        assert not cloud.gateway.sessions, "no generation is kept for ever"
    return outcome


def check(outcome: Outcome) -> None:
    """Everything that holds whatever the network does."""
    case, expected, tokens = outcome.case, outcome.expected, outcome.tokens
    ids = tuple(token.token_id for token in tokens)
    assert [token.index for token in tokens] == list(range(len(tokens))), "no hole, no double"
    assert ids == expected.ids[: len(ids)]
    sources = [token.source for token in tokens]
    assert sources == sorted(sources, key=list(Source).index), "the cloud, then the device"
    _check_event_order(outcome)
    if outcome.error is not None:
        assert case.mode is Mode.ONLY_IN_CLOUD, "a device goes on alone"
        assert outcome.error.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        assert tuple(outcome.error.partial) == ids
        assert any(stream.broken for stream in outcome.streams) or max_delay_s(case) > 10
        return
    result = outcome.result
    assert result is not None
    assert ids == result.token_ids == expected.ids, "no early end"
    assert result.finish_reason is expected.reason
    text = "".join(each.text for each in outcome.events if isinstance(each, Token))
    assert text == result.text == expected.text
    _check_usage(result, sources, case.prompt_tokens)


def max_delay_s(case: Case) -> float:
    return max((delay_s for fault in case.faults for delay_s in fault.delays_s), default=0.0)


def _check_event_order(outcome: Outcome) -> None:
    generations = [each.generation_id for each in outcome.events if isinstance(each, Started)]
    assert len(generations) == len(set(generations)), "once a generation"
    assert outcome.count(Takeover) <= 1
    started = reconnecting = taken_over = False
    for each in outcome.events:
        if isinstance(each, Started):
            assert reconnecting == started, "a second one only where the first was forgotten"
            started = True
        elif isinstance(each, Reconnecting):
            assert started, "an unconfirmed request is not resumed"
            assert not reconnecting
            assert not taken_over
            reconnecting = True
        elif isinstance(each, Resumed):
            assert reconnecting, "reconnecting comes before resumed"
            reconnecting = False
        elif isinstance(each, Takeover):
            taken_over = True
        elif isinstance(each, Token) and each.index is not None:
            assert started or each.source is Source.DEVICE
            assert taken_over == (each.source is Source.DEVICE)
    done = [isinstance(each, Done) for each in outcome.events]
    assert not any(done[:-1])


def _check_usage(result: Result, sources: list[Source], prompt_tokens: int) -> None:
    usage, cloud = result.usage, sources.count(Source.CLOUD)
    assert (usage.cloud_tokens, usage.device_tokens) == (cloud, len(sources) - cloud)
    assert usage.prompt_tokens == prompt_tokens
    if usage.device_tokens:
        assert result.takeover_index == cloud
    assert len(result.timings.shown_s) == len(result.timings.received_s) == len(sources)
    if result.cloud is not None:
        assert result.cloud.usage.prompt_tokens == prompt_tokens


# ---- which states a run went through


def reached(outcome: Outcome) -> set[str]:
    """Names of the interesting things that happened in a run."""
    names: set[str] = set()
    streams, events = outcome.streams, outcome.events
    for number, stream in enumerate(streams):
        kinds = [message.WhichOneof("message") for message in stream.received]
        first = stream.sent[0].WhichOneof("message") if stream.sent else None
        if stream.fault.refused:
            names.add("refused at once" if number == 0 else "refused while reconnecting")
        elif number == 0 and stream.broken and not kinds:
            names.add("dropped before started")
        if first == "start" and number > 0:
            names.add("forgotten, started again with the log")
        if first == "resume" and stream.broken:
            names.add("dropped again in a resume")
        if (
            first == "resume"
            and kinds[1:2] == ["tokens"]
            and len(stream.received[1].tokens.ids) > 1
        ):
            names.add("resumed with tokens missed")
    open_since = None
    for place, each in enumerate(events):
        if isinstance(each, Reconnecting):
            open_since = place
            names.add("silent cloud" if "said nothing" in each.reason else "dropped")
        elif isinstance(each, Resumed):
            open_since = None
        elif isinstance(each, Takeover) and open_since is not None:
            if not any(isinstance(between, Fallback) for between in events[open_since:place]):
                names.add("taken over while reconnecting")
        elif isinstance(each, Takeover) and any(isinstance(past, Resumed) for past in events):
            names.add("taken over after a resume")
    if outcome.error is not None:
        names.add(f"failed with {outcome.error.code} after {'some' if outcome.tokens else 'no'}")
    result = outcome.result
    if result is not None and result.usage.discarded_tokens:
        names.add("tokens discarded")
    return names


REQUIRED = {
    "dropped",
    "dropped before started",
    "dropped again in a resume",
    "failed with UNAVAILABLE after no",
    "failed with UNAVAILABLE after some",
    "failed with DEADLINE_EXCEEDED after some",
    "forgotten, started again with the log",
    "refused at once",
    "refused while reconnecting",
    "resumed with tokens missed",
    "silent cloud",
    "taken over while reconnecting",
    "taken over after a resume",
    "tokens discarded",
}


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False))
def test_any_schedule_of_faults(random: Random) -> None:
    case = draw_case(random)
    note(repr(case))
    outcome = run_virtual(asyncio.wait_for(run_case(case), LIMIT_S))
    for name in reached(outcome):
        event(name)
    check(outcome)


def test_the_schedules_reach_every_interesting_state() -> None:
    random, counts = Random(1), Counter[str]()
    for _ in range(1000):
        outcome = run_virtual(asyncio.wait_for(run_case(draw_case(random)), LIMIT_S))
        check(outcome)
        counts.update(reached(outcome))
        if counts.keys() >= REQUIRED:
            break
    assert not REQUIRED - counts.keys(), counts
