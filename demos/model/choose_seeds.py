"""Choose the seeds of the demo's prompts for the present weights.

    python -m demos.model.choose_seeds

An answer must be long enough to show a hand-over, and no choice in it may be so
close that fp32 rounding could decide it: every margin (best minus second, after
noise) exceeds a floor that is well above what two engines differ by. Then all
three runs of the demo must give the same ids (exactness level 2).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

from demos.split.runs import Prompt, load_prompts
from segue_device import AsyncClient, Mode, Pacing, Result
from segue_device.convert import convert_to_onnx

HERE = Path(__file__).parent
PROMPTS = HERE / "demo_prompts.json"
DEVICE_MODEL = HERE.parents[1] / "models" / "tiny-onnx"
MARGIN_FLOOR = 4e-3
MIN_TOKENS = 110
SEEDS = range(1, 200)


async def answer(client: AsyncClient, prompt: Prompt, seed: int) -> Result:
    """The device's answer, unpaced."""
    stream = client.stream(
        messages=prompt.messages,
        sampling=dataclasses.replace(prompt.sampling, seed=seed),
        max_tokens=prompt.max_tokens,
        mode=Mode.ONLY_ON_DEVICE,
        pacing=Pacing.off(),
    )
    async with stream as running:
        return await running.final()


async def choose(client: AsyncClient, prompt: Prompt) -> int:
    """The first seed whose answer fits. Raises RuntimeError if none does."""
    for seed in SEEDS:
        result = await answer(client, prompt, seed)
        if len(result.token_ids) >= MIN_TOKENS and result.min_margin > MARGIN_FLOOR:
            print(
                f"{prompt.name}: seed {seed}, {result.usage.prompt_tokens} prompt tokens, "
                f"{len(result.token_ids)} answer tokens, smallest margin {result.min_margin:.4f}\n"
                f"    {result.text!r}"
            )
            return seed
    raise RuntimeError(f"{prompt.name}: no seed below {SEEDS.stop} gives such an answer")


async def main() -> None:
    """Rewrite the seeds in demo_prompts.json."""
    entries = json.loads(PROMPTS.read_text())
    model = convert_to_onnx(HERE / "tiny", DEVICE_MODEL)
    async with AsyncClient(model=model) as client:
        for entry, prompt in zip(entries, load_prompts(PROMPTS), strict=True):
            entry["sampling"]["seed"] = await choose(client, prompt)
    PROMPTS.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
