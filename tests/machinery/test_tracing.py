"""The life of an answer as OpenTelemetry spans."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from segue_cloud.watch.trace_parent import TRACE_PARENT
from segue_cloud.watch.tracing import TraceWatch
from segue_device import Result, Sampling
from tests.harness import reference_cloud, reference_device
from tests.virtual_clock import run_virtual

PROMPT = tuple(b"A word that nobody may find again: Quetzalcoatlus. " * 4)
SAMPLING = Sampling(temperature=0.9, seed=1, logit_bias={256: -100.0})
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def _spans(trace_parent: str = "") -> tuple[Result, dict[str, ReadableSpan]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    async def main() -> Result:
        TRACE_PARENT.set(trace_parent)
        async with reference_cloud(watch=TraceWatch(provider.get_tracer("test"))) as cloud:
            async with reference_device(cloud) as device:
                stream = device.client.stream(
                    prompt_token_ids=PROMPT, sampling=SAMPLING, max_tokens=30, credit_through=12
                )
                async with stream as answer:
                    return await answer.final()

    result = run_virtual(main())
    spans = exporter.get_finished_spans()
    provider.shutdown()
    assert len({span.name for span in spans}) == len(spans)
    return result, {span.name: span for span in spans}


def test_every_step_is_there_and_in_order() -> None:
    result, spans = _spans()
    assert set(spans) == {
        f"segue.{name}" for name in ("answer", "forward", "prefill", "transfer", "stream", "parked")
    }
    answer = spans["segue.answer"]
    phases = [spans[f"segue.{name}"] for name in ("forward", "prefill", "transfer", "stream")]
    phases.append(spans["segue.parked"])
    assert answer.parent is None
    assert answer.context is not None
    for phase in phases:
        assert phase.parent is not None
        assert phase.parent.span_id == answer.context.span_id
    # Each begins where the one before ends; together they are the answer.
    assert phases[0].start_time == answer.start_time
    assert [phase.end_time for phase in phases] == [
        *(phase.start_time for phase in phases[1:]),
        answer.end_time,
    ]
    assert [event.name for event in answer.events] == ["start", "admit", "take over", "finish"]
    assert answer.attributes is not None
    assert answer.attributes["segue.takeover_index"] == result.takeover_index == 12
    assert answer.attributes["segue.cloud_tokens"] == 12
    exported = "".join(span.to_json() for span in spans.values())
    assert "Quetzal" not in exported
    assert result.text[:8] not in exported


def test_a_callers_span_is_the_parent() -> None:
    _, spans = _spans(f"00-{TRACE_ID}-{PARENT_ID}-01")
    parent = spans["segue.answer"].parent
    assert parent is not None
    assert f"{parent.trace_id:032x}" == TRACE_ID
    assert f"{parent.span_id:016x}" == PARENT_ID


@pytest.mark.parametrize("installed", [True, False])
def test_without_the_package_nothing_is_imported(installed: bool) -> None:
    hide = "" if installed else "sys.modules['opentelemetry'] = None\n"
    code = (
        f"import sys\n{hide}"
        "from segue_cloud.config import ServeConfig\n"
        "from segue_cloud.watch.watching import Watching\n"
        "Watching(ServeConfig())\n"
        "print('opentelemetry.trace' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == str(installed)
