"""WebSocket over real processes: the same answer as over gRPC, and a typed end."""

from __future__ import annotations

import asyncio

import pytest

from demos.cluster import Cluster, running_cluster
from segue_device import AsyncClient, Mode, Result, Sampling, Token
from segue_protocol.errors import SegueError
from tests.processes import TINY, is_idle, wait_for

SAMPLING = Sampling(temperature=0.8, top_k=40, seed=5, logit_bias={2: -100.0})


async def _answer(address: str) -> Result:
    async with AsyncClient(cloud=address) as client:
        stream = client.stream(
            prompt="On the way to the harbour",
            sampling=SAMPLING,
            max_tokens=40,
            mode=Mode.ONLY_IN_CLOUD,
        )
        async with stream as answer:
            return await answer.final()


def test_the_same_answer_over_both_ports(cluster: Cluster) -> None:
    async def main() -> None:
        over_grpc = await _answer(cluster.address)
        over_websocket = await _answer(cluster.websocket_url)
        assert len(over_websocket.token_ids) == 40
        assert over_websocket.token_ids == over_grpc.token_ids
        assert over_websocket.text == over_grpc.text
        await wait_for(cluster, is_idle)

    asyncio.run(main())


def test_the_end_of_the_service_is_a_typed_error() -> None:
    async def main(cluster: Cluster) -> None:
        async with AsyncClient(cloud=cluster.websocket_url) as client:
            stream = client.stream(
                prompt="On and on", sampling=SAMPLING, max_tokens=3000, mode=Mode.ONLY_IN_CLOUD
            )
            async with stream as answer:
                async for event in answer:
                    if isinstance(event, Token) and event.index == 3:
                        cluster.process.terminate()
                        break
                with pytest.raises(SegueError) as ended:
                    await answer.final()
            assert (ended.value.code, ended.value.reason) == ("UNAVAILABLE", "SHUTDOWN")
            assert len(ended.value.partial) > 3
        assert cluster.process.wait(30) == 0

    with running_cluster(TINY) as cluster:
        asyncio.run(main(cluster))


def test_a_cluster_without_websocket() -> None:
    with running_cluster(TINY, "--websocket-port", "-1") as cluster:
        assert cluster.websocket_port is None
        assert len(asyncio.run(_answer(cluster.address)).token_ids) == 40
