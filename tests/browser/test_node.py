"""The JavaScript SDK in node, against a real gateway in this process."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from demos.chat.browser_device import SDK
from segue_cloud.config import TenantConfig
from segue_cloud.security.tokens import TenantTokens
from segue_device import Sampling
from segue_device.pull.listing import LISTING_NAME, Entry, format_listing
from segue_protocol.reference import STOP_ID
from tests.contract.transports import PROMPT, rig
from tests.harness import reference_answer
from tests.web_server import Offer, web_server

# Two dozen answers of real time.
DEADLINE_S = 90.0

TOKEN = "a-token-of-the-page+/="
NEVER_STOP = {STOP_ID: -100.0}
REQUESTS: dict[str, tuple[Sampling, int]] = {
    "greedy": (Sampling(), 24),
    "seeded": (Sampling(temperature=0.8, top_k=50, seed=2**63 + 7, logit_bias=NEVER_STOP), 64),
    "stopped by its end": (Sampling(temperature=1.0, seed=4), 200),
    "stopped by a string": (
        Sampling(temperature=0.7, seed=11, stop=("e",), logit_bias=NEVER_STOP),
        200,
    ),
    "penalized": (
        Sampling(
            temperature=1.2,
            top_p=0.9,
            min_p=0.02,
            repetition_penalty=1.3,
            presence_penalty=0.4,
            frequency_penalty=0.2,
            seed=5,
            logit_bias=NEVER_STOP,
        ),
        30,
    ),
}


def _answer(sampling: Sampling, max_tokens: int) -> dict[str, Any]:
    """What is asked for, in the SDK's names, and what has to come."""
    answer = reference_answer(PROMPT, sampling, max_tokens)
    return {
        "promptTokenIds": PROMPT,
        "maxTokens": max_tokens,
        "sampling": {
            "temperature": sampling.temperature,
            "topK": sampling.top_k,
            "topP": sampling.top_p,
            "minP": sampling.min_p,
            "repetitionPenalty": sampling.repetition_penalty,
            "presencePenalty": sampling.presence_penalty,
            "frequencyPenalty": sampling.frequency_penalty,
            "logitBias": sampling.logit_bias,
            "seed": str(sampling.seed or 0),
            "stop": sampling.stop,
        },
        "tokenIds": answer.ids,
        "text": answer.text,
        "finishReason": answer.reason.value,
    }


async def _node(name: str, environment: dict[str, str]) -> None:
    """Run one test file; its report is this test's if it fails."""
    process = await asyncio.create_subprocess_exec(
        "node",
        "--test",
        f"--test-timeout={DEADLINE_S * 1000:.0f}",
        str(SDK / "test" / name),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output.decode()


@pytest.mark.parametrize("name", ["vectors.test.js", "parts.test.js"])
def test_pure_parts(name: str) -> None:
    asyncio.run(_node(name, {}))


def test_client_and_gateway(tmp_path: Path) -> None:
    answers = {name: _answer(*request) for name, request in REQUESTS.items()}
    assert len(answers["seeded"]["tokenIds"]) == 64
    assert answers["stopped by its end"]["finishReason"] == "stop"
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(answers))

    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    tokens.chmod(0o600)
    tenants = TenantTokens([TenantConfig(name="page", token_file=str(tokens))])

    async def main() -> None:
        async with (
            rig("websocket-json", step_s=0.004) as cloud,
            rig("websocket-json", tokens=tenants) as guarded,
        ):
            environment = {
                "SEGUE_TEST_CLOUD": f"ws://127.0.0.1:{cloud.port}",
                "SEGUE_TEST_GUARDED_CLOUD": f"ws://127.0.0.1:{guarded.port}",
                "SEGUE_TEST_TOKEN": TOKEN,
                "SEGUE_TEST_ANSWERS": str(path),
            }
            await _node("client.test.js", environment)

    asyncio.run(main())


def test_model_store() -> None:
    content = bytes(range(250)) * 1200
    digest = hashlib.sha256(content).hexdigest()
    listing = format_listing((Entry("model", len(content), digest),))
    offers = {
        "good": Offer(content),
        "broken": Offer(content, cuts=[100_000, 50_000]),
        "whole": Offer(content, cuts=[100_000], takes_ranges=False),
        "hopeless": Offer(content, cuts=[1000] * 5),
        "other": Offer(content[::-1]),
        "longer": Offer(content + b"."),
        "odd": Offer(content),
    }
    with web_server() as web:
        for place, offer in offers.items():
            web.offers[f"/{place}/{LISTING_NAME}"] = Offer(listing)
            web.offers[f"/{place}/model"] = offer
        web.offers[f"/odd/{LISTING_NAME}"] = Offer(b'{"format": 2}')
        asyncio.run(_node("modelStore.test.js", {"SEGUE_TEST_SITE": web.url}))
        ranges = [wanted for path, wanted, _ in web.asked if path == "/broken/model"]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]
