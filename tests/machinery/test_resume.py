"""A generation outlives its stream: drop, resume at any index, supersede, expire."""

from __future__ import annotations

import asyncio

import pytest

from segue_cloud.gateway.gateway import GatewayLimits
from segue_protocol.errors import Aborted, NotFound, OutOfRange, PermissionDenied, SegueError
from segue_protocol.streams import LocalStream
from segue_protocol.wire import public
from tests.harness import Cloud, reference_cloud
from tests.machinery.test_proofs import start_message
from tests.virtual_clock import run_virtual

LENGTH = 16


def _open(
    cloud: Cloud, first: public.GenerateRequest
) -> LocalStream[public.GenerateRequest, public.GenerateResponse]:
    stream = LocalStream(cloud.gateway.generate)
    asyncio.get_running_loop().create_task(stream.send(first))
    return stream


async def _read(
    stream: LocalStream[public.GenerateRequest, public.GenerateResponse], until: int | None = None
) -> tuple[public.Started, list[int], public.Finish | None]:
    """Read `until` tokens are there, or to the end."""
    started, ids, finish = public.Started(), [], None
    while (response := await stream.receive()) is not None:
        if response.HasField("started"):
            started = response.started
        ids.extend(response.tokens.ids)
        if response.HasField("finish"):
            finish = response.finish
        if until is not None and len(ids) >= until:
            break
    return started, ids, finish


def _resume(started: public.Started, index: int) -> public.GenerateRequest:
    return public.GenerateRequest(
        resume=public.Resume(
            generation_id=started.generation_id,
            resume_token=started.resume_token,
            next_index=index,
        )
    )


@pytest.mark.parametrize("held", range(1, LENGTH))
def test_drop_and_resume_at_any_index(held: int) -> None:
    async def main() -> None:
        async with reference_cloud() as cloud:
            _, whole, _ = await _read(_open(cloud, start_message(LENGTH, LENGTH)))
            stream = _open(cloud, start_message(LENGTH, LENGTH))
            started, ids, _ = await _read(stream, until=held)
            await stream.aclose()
            await asyncio.sleep(1.0)  # the cloud goes on meanwhile: a drop is no cancel
            again, rest, finish = await _read(_open(cloud, _resume(started, len(ids))))
            assert again.generation_id == started.generation_id
            assert ids + rest == whole
            assert finish is not None
            assert finish.usage.recomputed_tokens == 0

    run_virtual(main())


def test_the_newest_stream_wins() -> None:
    async def main() -> None:
        async with reference_cloud(step_s=0.1) as cloud:
            older = _open(cloud, start_message(LENGTH, LENGTH))
            started, ids, _ = await _read(older, until=2)
            newer = _open(cloud, _resume(started, len(ids)))
            _, rest, finish = await _read(newer)
            assert finish is not None
            assert len(ids) + len(rest) == LENGTH
            with pytest.raises(Aborted) as superseded:
                await _read(older)
            assert superseded.value.reason == "SUPERSEDED"

    run_virtual(main())


def test_an_unclaimed_generation_ends_by_its_lease() -> None:
    async def main() -> None:
        limits = GatewayLimits(unclaimed_s=5.0)
        async with reference_cloud(step_s=1.0, limits=limits) as cloud:
            stream = _open(cloud, start_message(LENGTH, LENGTH))
            started, _, _ = await _read(stream, until=1)
            await stream.aclose()
            await asyncio.sleep(7.0)
            cloud.check_idle()
            with pytest.raises(NotFound, match="output_prefix"):
                await _read(_open(cloud, _resume(started, 1)))

    run_virtual(main())


def test_output_prefix_starts_an_answer_again() -> None:
    """What a device does whose gateway is gone: the same ids, from its own log on."""

    async def main() -> None:
        async with reference_cloud() as cloud:
            _, whole, _ = await _read(_open(cloud, start_message(LENGTH, LENGTH)))
            for held in range(1, LENGTH):
                request = start_message(LENGTH, LENGTH)
                request.start.output_prefix.extend(whole[:held])
                stream = _open(cloud, request)
                _, ids, finish = await _read(stream)
                assert ids == whole[held:], "the client holds the rest"
                assert finish is not None
                assert finish.usage.cloud_tokens == LENGTH - held

    run_virtual(main())


def test_foreign_and_impossible_cursors() -> None:
    async def main() -> None:
        async with reference_cloud() as cloud:
            started, _, _ = await _read(_open(cloud, start_message(LENGTH, LENGTH)))
            wrong = _resume(started, 0)
            wrong.resume.resume_token = b"guessed"
            for request, kind in ((wrong, PermissionDenied), (_resume(started, 99), OutOfRange)):
                with pytest.raises(kind):
                    await _read(_open(cloud, request))

    run_virtual(main())


def test_gateway_shutdown_is_told_to_every_reader() -> None:
    async def main() -> None:
        async with reference_cloud(step_s=1.0) as cloud:
            stream = _open(cloud, start_message(LENGTH, LENGTH))
            await _read(stream, until=1)
            await cloud.gateway.aclose()
            with pytest.raises(SegueError) as ended:
                await _read(stream)
            assert ended.value.reason == "SHUTDOWN"

    run_virtual(main())
