"""Bad input: each a typed error that names what is wrong, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import grpc.aio
import pytest

from demos.cluster import Cluster
from segue_device import Mode, Sampling
from segue_protocol.errors import ContextTooLong, InvalidRequest, SegueError, Unsupported
from segue_protocol.grpc_streams import from_rpc_error
from segue_protocol.identity import ModelIdentity
from segue_protocol.version import protocol_version
from segue_protocol.wire import public
from tests.processes import TINY, connected, generate, is_idle, wait_for

IDENTITY = ModelIdentity.from_directory(TINY, numerics="fp32")


def _start(**changes: object) -> public.Start:
    start = public.Start(
        request_id="test",
        protocol=protocol_version(),
        identity=IDENTITY.to_wire(),
        prompt_token_ids=public.TokenIds(ids=[10, 11, 12]),
        limits=public.Limits(max_tokens=4),
    )
    for name, value in changes.items():
        if value is None:
            start.ClearField(name)
        else:
            field = getattr(start, name)
            if hasattr(field, "CopyFrom"):
                field.CopyFrom(value)
            else:
                setattr(start, name, value)
    return start


def _other_identity(change: Callable[[public.ModelIdentity], None]) -> public.ModelIdentity:
    identity = IDENTITY.to_wire()
    change(identity)
    return identity


def _no_stop_ids(identity: public.ModelIdentity) -> None:
    del identity.stop_token_ids[:]


def _other_vocabulary(identity: public.ModelIdentity) -> None:
    identity.vocabulary_digest = b"x" * 32


CASES = {
    "no prompt": (_start(prompt_token_ids=None), "INVALID_ARGUMENT", "no prompt"),
    "empty prompt": (
        _start(prompt_token_ids=public.TokenIds()), "INVALID_ARGUMENT", "prompt_token_ids is empty",
    ),
    "empty text": (
        _start(identity=None, prompt_token_ids=None, prompt_text=""),
        "INVALID_ARGUMENT", "prompt_text is empty",
    ),
    "over the context": (
        _start(prompt_token_ids=public.TokenIds(ids=[10] * 5000)), "OUT_OF_RANGE", "4096 by 908",
    ),
    "unknown model": (_start(model="gpt-17"), "NOT_FOUND", "unknown model 'gpt-17'"),
    "other vocabulary": (
        _start(identity=_other_identity(_other_vocabulary)), "FAILED_PRECONDITION", "vocabulary",
    ),
    "other stop ids": (
        _start(identity=_other_identity(_no_stop_ids)), "FAILED_PRECONDITION", "stop",
    ),
    "id outside the vocabulary": (
        _start(prompt_token_ids=public.TokenIds(ids=[10, 999_999])),
        "INVALID_ARGUMENT", r"prompt_token_ids\[1\] is 999999",
    ),
    "ids of a device without a model": (
        _start(identity=None), "INVALID_ARGUMENT", "without a model identity",
    ),
    "no tokens wanted": (
        _start(limits=public.Limits(max_tokens=0)), "INVALID_ARGUMENT", "max_tokens is 0",
    ),
    "negative temperature": (
        _start(sampling=public.Sampling(temperature=-1)), "INVALID_ARGUMENT", "temperature",
    ),
    "temperature is no number": (
        _start(sampling=public.Sampling(temperature=float("nan"))),
        "INVALID_ARGUMENT", "temperature",
    ),
    "top_p of nothing": (
        _start(sampling=public.Sampling(top_p=0.0)), "INVALID_ARGUMENT", "top_p",
    ),
    "bias outside the vocabulary": (
        _start(sampling=public.Sampling(logit_bias={999_999: 1.0})), "INVALID_ARGUMENT", "999999",
    ),
    "profile of a device that never decodes": (
        _start(profile=public.DeviceProfile(prefill_per_token_s=0.001)),
        "INVALID_ARGUMENT", "decode_s",
    ),
    "another protocol": (
        _start(protocol=public.ProtocolVersion(major=9)), "UNIMPLEMENTED", "9.0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_bad_start_is_refused_by_name(cluster: Cluster, name: str) -> None:
    start, code, pattern = CASES[name]
    _expect(cluster, [public.GenerateRequest(start=start)], code, pattern)


BAD_STREAMS = {
    "empty first message": ([public.GenerateRequest()], "INVALID_ARGUMENT", "expected start"),
    "credit first": (
        [public.GenerateRequest(credit=public.Credit(through=3))], "INVALID_ARGUMENT", "credit",
    ),
    "start twice": (
        [public.GenerateRequest(start=_start(limits=public.Limits(max_tokens=2000)))] * 2,
        "INTERNAL", "start",
    ),
    "resume of nothing": (
        [public.GenerateRequest(resume=public.Resume(generation_id="none"))], "NOT_FOUND", "none",
    ),
    "takeover behind the log": (
        [
            public.GenerateRequest(start=_start(limits=public.Limits(max_tokens=2000))),
            public.GenerateRequest(takeover=public.Takeover(index=1999)),
        ],
        "OUT_OF_RANGE", "1999",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_STREAMS)
def test_a_bad_stream_is_refused_by_name(cluster: Cluster, name: str) -> None:
    requests, code, pattern = BAD_STREAMS[name]
    _expect(cluster, requests, code, pattern)


def _expect(
    cluster: Cluster, requests: list[public.GenerateRequest], code: str, pattern: str
) -> None:
    async def main() -> SegueError:
        try:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await generate(cluster, requests)
            return from_rpc_error(refused.value)
        finally:
            await wait_for(cluster, is_idle)

    error = asyncio.run(main())
    assert error.code == code, error
    assert error.reason != "UNKNOWN", "ErrorInfo is attached"
    import re

    assert re.search(pattern, error.message), error.message


def test_the_sdk_refuses_before_anything_is_sent(cluster: Cluster) -> None:
    async def main() -> None:
        async with connected(cluster) as client:
            for wrong, kind, pattern in [
                ({"prompt": ""}, InvalidRequest, "empty"),
                ({"prompt_token_ids": []}, InvalidRequest, "empty"),
                ({"messages": []}, InvalidRequest, "empty"),
                ({}, InvalidRequest, "expected one"),
                ({"prompt": "a", "prompt_token_ids": [1]}, InvalidRequest, "expected one"),
                ({"prompt": "a", "max_tokens": 0}, InvalidRequest, "max_tokens is 0"),
                ({"prompt_token_ids": [10] * 4096}, ContextTooLong, "by 4"),
                ({"prompt": "a", "sampling": Sampling(top_p=2.0)}, InvalidRequest, "top_p"),
            ]:
                with pytest.raises(kind, match=pattern):
                    client.stream(**{"max_tokens": 4, **wrong})
            with pytest.raises(TypeError):
                client.stream(prompt="a", max_tokens=4, temperatur=0.7)
        async with connected(cluster, with_engine=False) as client:
            for mode in (Mode.SPLIT, Mode.ONLY_ON_DEVICE):
                with pytest.raises(Unsupported, match="no device model") as refused:
                    client.stream(prompt="a", max_tokens=4, mode=mode)
                assert refused.value.reason == "NO_DEVICE_MODEL"

    asyncio.run(main())


def test_nobody_there_is_an_error_or_a_device_answer() -> None:
    """A closed port: cloud-only fails typed, split goes on alone."""
    from segue_device.transports.grpc import GrpcTransport
    from tests.harness import reference_client

    async def main() -> None:
        async with reference_client(GrpcTransport("127.0.0.1:1")) as client:
            stream = client.stream(prompt_token_ids=[65], max_tokens=3, mode=Mode.ONLY_IN_CLOUD)
            async with stream as answer:
                with pytest.raises(SegueError) as failed:
                    await answer.final()
            assert failed.value.code == "UNAVAILABLE"
            async with client.stream(prompt_token_ids=[65], max_tokens=3) as answer:
                result = await answer.final()
            assert result.usage.device_tokens == 3

    asyncio.run(main())
