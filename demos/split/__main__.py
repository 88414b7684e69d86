"""The main job: the same prompts on the device alone, in the cloud alone, and split."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from demos.cluster import running_cluster
from demos.split.emulation import Emulation
from demos.split.present import Presenter
from demos.split.runs import Prompt, Run, load_prompts, run_prompt
from demos.split.table import table
from segue_device import AsyncClient, DeviceModel
from segue_device.convert import convert_to_onnx
from segue_device.engines import EngineRunner, ThrottledEngine, load_engine
from segue_device.transports.delayed import DelayedTransport
from segue_device.transports.grpc import GrpcTransport
from segue_protocol.tokenizer import ChatTokenizer

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "demos" / "model" / "tiny"


async def compare(
    prompts: list[Prompt],
    device_model: Path,
    tokenizer: ChatTokenizer,
    emulation: Emulation,
    address: str,
    present: Presenter,
) -> list[Run]:
    """Run every prompt three ways over one client."""
    engine = ThrottledEngine(load_engine(device_model), emulation.profile)
    transport = DelayedTransport(GrpcTransport(address), emulation.network_rtt_s)
    client = AsyncClient(
        cloud=transport,
        model=DeviceModel(EngineRunner(engine), emulation.profile, tokenizer.vocabulary, tokenizer),
        reuse_kv=False,  # the same prompt runs three ways, each from an empty cache
    )
    async with client:
        await run_prompt(client, prompts[0], emulation, Presenter.silent(), max_tokens=4)  # warm
        return [await run_prompt(client, prompt, emulation, present) for prompt in prompts]


def main() -> int:
    """Returns 0 if every split answer was the unsplit one."""
    parser = argparse.ArgumentParser(prog="python -m demos.split", description=__doc__)
    parser.add_argument("--model", type=Path, default=TINY, help="a Hugging Face directory")
    parser.add_argument("--prompts", type=Path, default=ROOT / "demos/model/demo_prompts.json")
    parser.add_argument("--emulation", type=Path, default=ROOT / "demos/split/phone.json")
    parser.add_argument("--record", type=Path, help="write when each token arrived")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    emulation = Emulation.load(options.emulation)
    tokenizer = ChatTokenizer.from_directory(options.model)
    device_model = convert_to_onnx(options.model, ROOT / "models" / f"{options.model.name}-onnx")
    present = Presenter(sys.stdout, emulation.name)
    # Every prompt is asked several times; a cached one would flatter the cloud.
    with running_cluster(options.model, "--prefix-cache-bytes", "0") as cluster:
        runs = asyncio.run(
            compare(
                load_prompts(options.prompts),
                device_model,
                tokenizer,
                emulation,
                cluster.address,
                present,
            )
        )
    print(table(runs, emulation))
    if options.record:
        options.record.write_text(json.dumps([run.arrivals() for run in runs]) + "\n")
    if options.json:
        report = {
            "runs": [run.as_json() for run in runs],
            "emulation": emulation.as_json(),
        }
        print(json.dumps(report))
    return 0 if all(run.identical for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
