"""The life of one answer by its nine names, over real processes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from demos.cluster import Cluster
from segue_device import DeviceProfile, Done, Sampling, Source, Started, Takeover, Token
from segue_protocol.wire import private, public
from tests.processes import cluster_status, connected, is_idle, pid_of, stubs, wait_for

MESSAGES = [{"role": "user", "content": "Tell me what happened on the way to the harbour. " * 20}]
SAMPLING = Sampling(temperature=0.8, top_k=40, seed=5, logit_bias={2: -100.0})


def test_the_life_of_one_answer(cluster: Cluster) -> None:
    asyncio.run(_life(cluster))


async def _life(cluster: Cluster) -> None:
    before = await wait_for(cluster, is_idle)
    pids = {
        "gateway": before.gateway_pid,
        "prefill": pid_of(before, private.ROLE_PREFILL),
        "decode": pid_of(before, private.ROLE_DECODE),
    }
    assert pids["gateway"] == cluster.process.pid
    assert len({*pids.values(), os.getpid()}) == 4, "four processes"

    # So slow that the cloud's part is complete before it, however busy this machine is.
    slow = DeviceProfile(0.0, 1 / 100, 0.0, 0.01, 0.02)
    async with connected(cluster, profile=slow) as client:
        stream = client.stream(
            messages=MESSAGES, sampling=SAMPLING, max_tokens=60, credit_through=20
        )
        async with stream as answer:
            events = [event async for event in answer]
    started = next(event for event in events if isinstance(event, Started))
    result = events[-1].result
    assert isinstance(events[-1], Done)

    # Device: start, (1-6 in the cloud), catch up, take over, finish; in this order.
    tokens = [event for event in events if isinstance(event, Token)]
    takeover = next(event for event in events if isinstance(event, Takeover))
    assert [token.index for token in tokens] == list(range(60))
    assert [token.source for token in tokens] == (
        [Source.CLOUD] * takeover.index + [Source.DEVICE] * (60 - takeover.index)
    )
    assert events.index(takeover) == events.index(tokens[takeover.index]) - 1
    assert result.takeover_index == takeover.index == result.usage.cloud_tokens

    # Cloud: every step in order, each by the process it belongs to. The
    # resume token is the device's; a session without a stream is kept a while.
    assert result.cloud is not None
    assert result.cloud.reason == public.FINISH_REASON_TAKEN_OVER
    assert result.cloud.usage.recomputed_tokens == 0
    async with stubs(cluster) as (service, _):
        found = await service.GetGeneration(
            public.GetGenerationRequest(
                generation_id=started.generation_id, resume_token=started.resume_token
            )
        )
    names = [step.name for step in found.steps]
    assert names == [
        "start", "admit", "forward", "prefill", "transfer", "stream", "take over", "finish",
    ]  # fmt: skip
    owners = {step.name: step.pid for step in found.steps}
    assert owners["start"] == owners["admit"] == owners["forward"] == pids["gateway"]
    assert owners["prefill"] == pids["prefill"]
    assert owners["transfer"] == owners["stream"] == pids["decode"]
    times = [step.at_s for step in found.steps]
    assert times == sorted(times)
    assert list(found.output) == list(result.token_ids[: takeover.index])
    await wait_for(cluster, is_idle)


def test_a_wrong_resume_token_opens_nothing(cluster: Cluster) -> None:
    async def main() -> None:
        import grpc
        import pytest

        async with connected(cluster) as client:
            stream = client.stream(messages=MESSAGES, sampling=SAMPLING, max_tokens=8)
            async with stream as answer:
                events = [event async for event in answer]
        started = next(event for event in events if isinstance(event, Started))
        async with stubs(cluster) as (service, _):
            request = public.CancelGenerationRequest(
                generation_id=started.generation_id, resume_token=b"x" * 16
            )
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await service.CancelGeneration(request)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED

    asyncio.run(main())


def test_sixteen_streams_share_decode_steps(cluster: Cluster) -> None:
    """Continuous batching: at most 1/8 decode step per token."""

    async def main() -> None:
        before = await wait_for(cluster, is_idle)
        async with connected(cluster, with_engine=False) as client:

            async def one(number: int) -> int:
                stream = client.stream(
                    prompt=f"Number {number} tells a story.",
                    sampling=Sampling(seed=number, temperature=1.0, logit_bias={2: -100.0}),
                    max_tokens=150,
                    mode="only_in_cloud",
                )
                async with stream as answer:
                    return len((await answer.final()).token_ids)

            lengths = await asyncio.gather(*(one(number) for number in range(16)))
        assert lengths == [150] * 16
        after = await wait_for(cluster, is_idle)
        steps, tokens = _decoded(after)
        steps_before, tokens_before = _decoded(before)
        assert tokens - tokens_before == 16 * 149, "the first token is the prefill's"
        assert (steps - steps_before) * 8 <= tokens - tokens_before

    asyncio.run(main())


def _decoded(status: private.ClusterStatus) -> tuple[int, int]:
    worker = next(each for each in status.workers if each.role == private.ROLE_DECODE)
    return worker.decode_steps_total, worker.decoded_tokens_total


def test_the_gateway_process_has_no_torch(cluster: Cluster) -> None:
    status = asyncio.run(cluster_status(cluster))
    assert not _has_torch(status.gateway_pid)
    assert all(_has_torch(worker.pid) for worker in status.workers)


def _has_torch(pid: int) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()
