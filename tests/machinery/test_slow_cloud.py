"""A cloud that makes tokens more slowly than they are shown: the device still takes over."""

from __future__ import annotations

import pytest

from segue_device import Mode, Sampling
from tests.harness import PROFILE, reference_client, reference_cloud
from tests.virtual_clock import run_virtual

SAMPLING = Sampling(logit_bias={256: -100.0})
LENGTH = 120


@pytest.mark.parametrize("step_s", [0.06, 0.08, 0.15])
@pytest.mark.parametrize("prompt_tokens", [50, 400, 1500])
def test_the_credit_ends_when_the_device_is_ready(prompt_tokens: int, step_s: float) -> None:
    async def main() -> None:
        async with reference_cloud(step_s=step_s, max_tokens=2048, pages=1024) as cloud:
            async with reference_client(cloud.transport()) as client:
                stream = client.stream(
                    prompt_token_ids=(tuple(range(32, 127)) * 20)[:prompt_tokens],
                    sampling=SAMPLING,
                    max_tokens=LENGTH,
                    mode=Mode.SPLIT,
                )
                async with stream as answer:
                    result = await answer.final()
        ready_s = PROFILE.prefill_s(prompt_tokens)
        # As many as are made until then, and what had been asked for before.
        assert result.takeover_index is not None
        assert result.usage.cloud_tokens <= ready_s / step_s + 14

    run_virtual(main())
