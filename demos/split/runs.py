"""One prompt, three ways, and what was measured."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demos.split.emulation import Emulation
from demos.split.present import Presenter
from segue_device import AsyncClient, Mode, Result, Sampling, Token
from segue_device.events import Done, Fallback, Reconnecting, Takeover
from segue_protocol.timeline import n_star_without_refinement

STALL_S = 0.25
# One TTFT on a shared machine is noise: it is the median of the full run and
# these short ones, cloud-only and split in turns.
TTFT_PROBES = 4
PROBE_TOKENS = 2


@dataclass(frozen=True)
class Prompt:
    """A committed prompt with its seed."""

    name: str
    messages: Sequence[dict[str, str]]
    sampling: Sampling
    max_tokens: int


def load_prompts(path: Path) -> list[Prompt]:
    """Read ``demo_prompts.json``."""
    return [
        Prompt(
            name=entry["name"],
            messages=entry["messages"],
            sampling=Sampling(**entry["sampling"]),
            max_tokens=entry["max_tokens"],
        )
        for entry in json.loads(path.read_text())
    ]


@dataclass(frozen=True)
class Run:
    """Results of one prompt. Every duration is on the device's clock."""

    name: str
    device_only: Result
    cloud_only: Result
    split: Result
    n_star: int | None
    # By mode, in seconds; see TTFT_PROBES.
    ttft_s: Mapping[Mode, float]

    @property
    def identical(self) -> bool:
        """Token ids of all three answers, at exactness level 2."""
        ids = self.device_only.token_ids
        return ids == self.cloud_only.token_ids == self.split.token_ids

    @property
    def min_margin(self) -> float:
        """Over the whole answer: the device sampled every token of its own run."""
        return self.device_only.min_margin

    def arrivals(self) -> dict[str, Any]:
        """When each token of the split answer was received or made (emulated device)."""
        return {
            "name": self.name,
            "cloud_tokens": self.split.usage.cloud_tokens,
            "received_s": [round(moment, 4) for moment in self.split.timings.received_s],
        }

    def as_json(self) -> dict[str, Any]:
        """The report's shape."""
        split = self.split
        return {
            "name": self.name,
            "prompt_tokens": split.usage.prompt_tokens,
            "answer_tokens": len(split.token_ids),
            "identical": self.identical,
            "min_margin": self.min_margin,
            "device_only": self._speed(Mode.ONLY_ON_DEVICE, self.device_only),
            "cloud_only": {
                **self._speed(Mode.ONLY_IN_CLOUD, self.cloud_only),
                "cloud_tokens": self.cloud_only.usage.cloud_tokens,
            },
            "split": {
                **self._speed(Mode.SPLIT, split),
                "p99_gap_s": split.timings.percentile_gap_s(99),
                "stalls": split.timings.stalls(STALL_S),
                "cloud_tokens": split.usage.cloud_tokens,
                "device_tokens": split.usage.device_tokens,
                "discarded_tokens": split.usage.discarded_tokens,
                "takeover_index": split.takeover_index,
                "takeover_gap_s": split.timings.takeover_gap_s,
                "n_star": self.n_star,
            },
        }

    def _speed(self, mode: Mode, result: Result) -> dict[str, float | None]:
        return {
            "ttft_s": self.ttft_s[mode],
            "tpot_s": result.timings.tpot_s,
            "max_gap_s": result.timings.max_gap_s,
            "e2e_s": result.timings.e2e_s,
        }


async def run_prompt(
    client: AsyncClient,
    prompt: Prompt,
    emulation: Emulation,
    present: Presenter,
    max_tokens: int | None = None,
) -> Run:
    """Device only, cloud only, split; the split answer is shown as it comes."""
    results = {}
    present.begin(prompt.name)
    for mode in (Mode.ONLY_ON_DEVICE, Mode.ONLY_IN_CLOUD, Mode.SPLIT):
        stream = client.stream(
            messages=prompt.messages,
            sampling=prompt.sampling,
            max_tokens=max_tokens or prompt.max_tokens,
            mode=mode,
        )
        present.mode(mode)
        async with stream as answer:
            async for event in answer:
                if isinstance(event, Done):
                    results[mode] = event.result
                elif mode is Mode.SPLIT and isinstance(event, Token):
                    present.token(event)
                elif mode is Mode.SPLIT and isinstance(event, Takeover):
                    present.takeover()
                elif isinstance(event, Fallback | Reconnecting):
                    present.trouble(event.reason)
    split = results[Mode.SPLIT]
    present.end(split)
    ttft_s = {mode: [result.timings.ttft_s or 0.0] for mode, result in results.items()}
    for _ in range(TTFT_PROBES):
        for mode in (Mode.ONLY_IN_CLOUD, Mode.SPLIT):
            ttft_s[mode].append(await _probe(client, prompt, mode))
    return Run(
        prompt.name,
        results[Mode.ONLY_ON_DEVICE],
        results[Mode.ONLY_IN_CLOUD],
        split,
        _n_star(split, emulation),
        {mode: statistics.median(measured) for mode, measured in ttft_s.items()},
    )


async def _probe(client: AsyncClient, prompt: Prompt, mode: Mode) -> float:
    """TTFT of one more answer, of which only the beginning is made."""
    stream = client.stream(
        messages=prompt.messages, sampling=prompt.sampling, max_tokens=PROBE_TOKENS, mode=mode
    )
    async with stream as answer:
        return (await answer.final()).timings.ttft_s or 0.0


def _n_star(split: Result, emulation: Emulation) -> int | None:
    """N* of the formula (protocol `timeline`) at the TTFT that was measured."""
    profile = emulation.profile
    ttft_s = split.timings.ttft_s
    assert ttft_s is not None
    return n_star_without_refinement(
        profile,
        prompt_tokens=split.usage.prompt_tokens,
        first_token_s=ttft_s,
        show_interval_s=max(profile.decode_s, 0.05),
    )
