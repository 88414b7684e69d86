"""``segue ask``: one question, one answer."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segue_device.cli import options
from segue_device.cli.failures import INTERRUPTED, reports_errors
from segue_device.cli.terminal import Terminal
from segue_device.modes import Mode

if TYPE_CHECKING:
    from segue_device import Result

Question = Annotated[
    str, typer.Argument(help="The question; - reads it from stdin.", show_default=False)
]

Explain = Annotated[
    bool, typer.Option("--explain", help="Say why the cloud made as many tokens as it did.")
]


@reports_errors
def ask(
    model: options.Model,
    question: Question,
    cloud: options.Cloud = None,
    mode: options.ModeOption = Mode.SPLIT,
    max_tokens: options.MaxTokens = options.MAX_TOKENS,
    temperature: options.Temperature = 0.0,
    seed: options.Seed = None,
    system: options.System = None,
    keep_ratio: options.KeepRatio = None,
    unpaced: options.Unpaced = False,
    explain: Explain = False,
    insecure: options.Insecure = False,
    token_file: options.TokenFile = None,
    ca: options.Authority = None,
    certificate: options.Certificate = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Ask one question and stream the answer."""
    from segue_device import FinishReason, Sampling
    from segue_device.cli import answering

    terminal = Terminal()
    text = sys.stdin.read().rstrip("\n") if question == "-" else question
    if not text.strip():
        raise typer.BadParameter("the question is empty", param_hint="QUESTION")
    messages = [{"role": "system", "content": system}] if system else []
    with answering.open_client(
        terminal,
        model,
        cloud=cloud,
        insecure=insecure,
        credentials=options.credentials(token_file, ca, certificate, key),
        unpaced=unpaced,
    ) as client:
        answer = client.stream(
            messages=[*messages, {"role": "user", "content": text}],
            max_tokens=max_tokens,
            sampling=Sampling(temperature=temperature, seed=seed),
            mode=mode,
            keep_ratio=keep_ratio,
        )
        if as_json:
            result = answering.collect_answer(answer)
            terminal.json(_as_json(result))
        else:
            result = answering.stream_answer(answer, terminal)
            terminal.note(answering.summary(result))
            if explain:
                terminal.note(result.explanation or "no tuner was asked")
    if result.finish_reason is FinishReason.CANCELLED:
        raise typer.Exit(INTERRUPTED)


def _as_json(result: Result) -> dict[str, Any]:
    """The answer with its figures; times in seconds from the request."""
    timings = result.timings
    return {
        "text": result.text,
        "token_ids": list(result.token_ids),
        "finish_reason": result.finish_reason.value,
        "seed": result.seed,
        "usage": dataclasses.asdict(result.usage),
        "takeover_index": result.takeover_index,
        "ttft_s": timings.ttft_s,
        "tpot_s": timings.tpot_s,
        "e2e_s": timings.e2e_s,
        "max_gap_s": timings.max_gap_s,
        "takeover_gap_s": timings.takeover_gap_s,
        "explanation": result.explanation,
    }
