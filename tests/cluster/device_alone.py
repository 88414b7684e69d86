"""An app on a device that has nothing but the core of the SDK.

Run by an interpreter into which only the two wheels and what they require are
installed: ``python -I device_alone.py ws://HOST:PORT MODEL``, where MODEL is a model
that no engine is there to read. Prints JSON.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from typing import Any

from segue_device import AsyncClient, Sampling
from segue_protocol.errors import Unsupported

SAMPLING = Sampling(logit_bias={2: -100.0})  # the model does not stop by itself
EXTRAS = ("grpc", "jinja2", "llama_cpp", "numpy", "onnxruntime", "tokenizers", "torch")


async def _answer(cloud: str) -> dict[str, Any]:
    async with AsyncClient(cloud=cloud) as client:
        stream = client.stream(
            prompt="On the way", sampling=SAMPLING, max_tokens=20, mode="only_in_cloud"
        )
        async with stream as answer:
            pieces = [piece async for piece in answer.text_deltas()]
            result = await answer.final()
    return {"text": "".join(pieces), "cloud_tokens": result.usage.cloud_tokens}


async def _refusal(**where: str) -> str:
    try:
        async with AsyncClient(**where) as client:
            client.stream(prompt="Hello", max_tokens=1, mode="only_in_cloud")
    except Unsupported as error:
        return error.message
    return "none"


async def main(cloud: str, model: str) -> None:
    told = await _answer(cloud)
    told["without_grpc"] = await _refusal(cloud="127.0.0.1:8710")
    told["without_engine"] = await _refusal(model=model)
    told["importable"] = [name for name in EXTRAS if importlib.util.find_spec(name)]
    told["modules"] = sorted(sys.modules)
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
