"""``segue profile``: how fast a model is on this device."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segue_device.cli import options
from segue_device.cli.failures import reports_errors
from segue_device.cli.terminal import Advance, Terminal

if TYPE_CHECKING:
    from segue_device.profile import Measurement
    from segue_device.profile_store import ProfileKey
    from segue_protocol.timeline import DeviceProfile

BUDGET_S = 10.0

# The example: a cloud in the same region, tokens shown at a reading pace.
EXAMPLE_TTFT_S = 0.3
EXAMPLE_INTERVAL_S = 0.05
EXAMPLE_PROMPTS = (512, 2048, 8192)

Seconds = Annotated[
    float, typer.Option("--seconds", min=0.1, metavar="S", help="About how long to measure.")
]


@reports_errors
def profile(
    model: options.Model, seconds: Seconds = BUDGET_S, as_json: options.Json = False
) -> None:
    """Measure how fast this device runs a model, and store it for later starts."""
    import anyio

    from segue_device.engines import load_engine
    from segue_device.profile_store import ProfileKey, store_profile

    terminal = Terminal()
    with terminal.working(f"loading {model}"):
        engine = load_engine(model)
    key = ProfileKey.of(engine, {})
    context = engine.capabilities.max_context_tokens
    with terminal.progress() as advance:
        found = anyio.run(_measure, engine, seconds, advance)
    path = store_profile(key, found.profile)
    if as_json:
        terminal.json(_as_json(key, found, context) | {"stored": str(path)})
        return
    for line in _lines(key, found, context):
        terminal.line(line)
    terminal.line(f"stored in {path}")


async def _measure(engine: Any, seconds: float, advance: Advance) -> Measurement:
    from segue_device.engines import EngineRunner
    from segue_device.profile import measure_profile

    runner = EngineRunner(engine)
    try:
        return await measure_profile(
            runner, budget_s=seconds, on_progress=lambda done: advance("measuring", done, 1.0)
        )
    finally:
        await runner.close()


def _cloud_tokens(profile: DeviceProfile, context: int) -> dict[int, int | None]:
    """N* of the example by prompt length; None where it is unbounded."""
    from segue_protocol.timeline import n_star_without_refinement

    return {
        tokens: n_star_without_refinement(
            profile,
            prompt_tokens=tokens,
            first_token_s=EXAMPLE_TTFT_S,
            show_interval_s=max(EXAMPLE_INTERVAL_S, profile.decode_s),
        )
        for tokens in EXAMPLE_PROMPTS
        if tokens <= context
    }


def _as_json(key: ProfileKey, found: Measurement, context: int) -> dict[str, Any]:
    longest = max(found.seconds_by_tokens)
    return {
        "engine": asdict(key),
        "profile": asdict(found.profile),
        "fit_error": found.fit_error,
        "measured": [
            {"tokens": tokens, "seconds": seconds}
            for tokens, seconds in found.seconds_by_tokens.items()
        ],
        "prefill_tokens_per_s": longest / found.profile.prefill_s(longest),
        "decode_tokens_per_s": 1 / found.profile.decode_s,
        "example": {
            "first_token_s": EXAMPLE_TTFT_S,
            "show_interval_s": max(EXAMPLE_INTERVAL_S, found.profile.decode_s),
            "cloud_tokens": _cloud_tokens(found.profile, context),
        },
    }


def _lines(key: ProfileKey, found: Measurement, context: int) -> list[str]:
    profile = found.profile
    shortest, longest = min(found.seconds_by_tokens), max(found.seconds_by_tokens)
    rate = longest / profile.prefill_s(longest)
    wanted = ", ".join(
        f"{'no number' if cloud is None else cloud} for {tokens}"
        for tokens, cloud in _cloud_tokens(profile, context).items()
    )
    interval_ms = 1000 * max(EXAMPLE_INTERVAL_S, profile.decode_s)
    lines = [
        f"engine   {key.engine}, {key.numerics}, weights {key.weights_digest[:12] or 'unknown'}",
        f"prefill  P(n) = {profile.prefill_base_s:.3g} + {profile.prefill_per_token_s:.3g} n + "
        f"{profile.prefill_per_token2_s:.3g} n^2 s",
        f"         measured at {shortest} to {longest} tokens, fit error "
        f"{100 * found.fit_error:.1f} %; {rate:.0f} tokens/s at {longest}",
        f"decode   {1000 * profile.decode_s:.3g} ms a token, {1 / profile.decode_s:.0f} tokens/s",
    ]
    if wanted:
        lines.append(
            f"cloud    tokens wanted for a prompt: {wanted} (first one after {EXAMPLE_TTFT_S} s, "
            f"shown every {interval_ms:.0f} ms)"
        )
    return lines
