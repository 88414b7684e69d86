"""A browser is the device: llama.cpp in WebAssembly takes over from a real cluster."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page

from demos.browser import running_browser
from demos.cluster import Cluster, running_cluster
from demos.split.runs import load_prompts
from segue_device.engines import Cancel, DeviceEngine, load_engine
from segue_protocol.frames import from_json
from segue_protocol.identity import ModelIdentity, exactness_level
from segue_protocol.sampling import Sampling, sample
from segue_protocol.tokenizer import ChatTokenizer
from segue_protocol.wire import public
from tests.browser.site import gguf_model, site
from tests.processes import TINY, is_idle, wait_for

PROMPT = load_prompts(TINY.parent / "demo_prompts.json")[0]
SAMPLINGS = {"greedy": Sampling(), "seeded": PROMPT.sampling}
MAX_TOKENS = 32
NEAR_TIE = 1e-3
LOAD_TIMEOUT_MS = 60_000


@dataclass
class Tab:
    """The page, and what it asked the network for."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def call(self, name: str, *arguments: Any) -> Any:
        """`device.name(...)` of the page; waits for what it promises."""
        return self.page.evaluate("([name, args]) => device[name](...args)", [name, arguments])

    def load(self) -> None:
        """The page and its model."""
        self.page.locator("body[data-ready]").wait_for(state="attached", timeout=LOAD_TIMEOUT_MS)
        self.call("load")


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with site() as url:
        yield url


@pytest.fixture(scope="module")
def cluster(origin: str) -> Iterator[Cluster]:
    with running_cluster(TINY, "--websocket-origins", origin) as running:
        yield running


@pytest.fixture(scope="module")
def tab(origin: str, cluster: Cluster) -> Iterator[Tab]:
    """Loaded and connected; the policy of the page must not have stopped anything."""
    with running_browser() as browser:
        page = browser.new_page()
        page.set_default_timeout(LOAD_TIMEOUT_MS)
        tab = Tab(page)
        page.on("request", lambda request: tab.requests.append(request.url))
        page.on("websocket", lambda socket: tab.requests.append(socket.url))
        page.on("console", lambda message: tab.complaints.append(message.text))
        page.on("pageerror", lambda error: tab.complaints.append(str(error)))
        page.goto(origin)
        tab.load()
        tab.call("connect", cluster.websocket_url)
        yield tab


@pytest.fixture(scope="module")
def llama_cpp() -> Iterator[DeviceEngine]:
    """The same file in the Python SDK's engine."""
    engine = load_engine(gguf_model())
    yield engine
    engine.close()


def asked(sampling: Sampling, **changes: Any) -> dict[str, Any]:
    """The prompt, in the names of the JavaScript SDK."""
    settings = {
        "temperature": sampling.temperature,
        "topK": sampling.top_k,
        "seed": sampling.seed or 0,
    }
    options = {"messages": PROMPT.messages, "sampling": settings, "maxTokens": MAX_TOKENS}
    return {**options, **changes}


def alone(engine: DeviceEngine, sampling: Sampling) -> list[int]:
    """The answer of the Python device alone, to be had at level 2 without a near tie."""
    prompt = ChatTokenizer.from_directory(gguf_model()).encode_chat(PROMPT.messages)
    sampling = replace(sampling, stop_token_ids=engine.identity.stop_token_ids)
    engine.rewind(0)
    engine.append(prompt, range(len(prompt)), cancel=Cancel())
    ids: list[int] = []
    while len(ids) < MAX_TOKENS and not {*ids[-1:]} & {*sampling.stop_token_ids}:
        chosen = sample(
            engine.logits(), sampling, prompt_ids=prompt, output_ids=ids, index=len(ids)
        )
        assert chosen.margin > NEAR_TIE, "choose another prompt: level 2 says nothing here"
        engine.append([chosen.token_id], [len(prompt) + len(ids)], cancel=Cancel())
        ids.append(chosen.token_id)
    return ids


def whole(outcome: dict[str, Any]) -> dict[str, Any]:
    """The result of an answer that did not fail."""
    assert outcome["error"] is None, outcome
    result: dict[str, Any] = outcome["events"][-1]["result"]
    return result


def types(outcome: dict[str, Any]) -> list[str]:
    return [event["type"] for event in outcome["events"]]


def run(coroutine: Any) -> Any:
    """Beside the browser's own event loop, which owns this thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def test_the_browser_claims_level_2(tab: Tab, llama_cpp: DeviceEngine) -> None:
    message = from_json(json.dumps(tab.call("identity")), public.ModelIdentity())
    identity = ModelIdentity.from_wire(message)
    assert identity == llama_cpp.identity
    assert exactness_level(identity, llama_cpp.identity) == 2
    tokenizer = ChatTokenizer.from_directory(gguf_model())
    for content in (PROMPT.messages[0]["content"], " <|eos|> 12  héllo\n\n\t🎶 don't"):
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": content},
        ]
        assert tab.call("encodeChat", messages) == tokenizer.encode_chat(messages)


@pytest.mark.parametrize("kind", SAMPLINGS)
def test_ids_are_those_of_the_python_device(
    tab: Tab, llama_cpp: DeviceEngine, origin: str, cluster: Cluster, kind: str
) -> None:
    sampling = SAMPLINGS[kind]
    tab.call("start", asked(sampling, creditThrough=8))
    outcome = tab.call("finish")
    result = whole(outcome)
    assert result["tokenIds"] == alone(llama_cpp, sampling)
    # Earlier than the credit ends when the device is ready before the cloud has used it.
    cut = result["takeoverIndex"]
    assert 0 < cut <= 8
    made = result["usage"]["cloudTokens"], result["usage"]["deviceTokens"]
    assert made == (cut, MAX_TOKENS - cut)
    assert result["minMargin"] > NEAR_TIE
    assert "prefill_progress" in types(outcome)
    assert "warning" not in types(outcome)  # of a prefix hash, of merges or of templates
    assert tab.call("shown") == result["text"]
    hosts = {urlsplit(url).netloc for url in tab.requests if not url.startswith("blob:")}
    assert hosts == {urlsplit(origin).netloc, urlsplit(cluster.websocket_url).netloc}
    assert tab.complaints == []


def test_a_second_turn_begins_from_the_cache(
    tab: Tab, cluster: Cluster, llama_cpp: DeviceEngine
) -> None:
    tab.call("connect", cluster.websocket_url, {"reuseKv": True, "mode": "only_on_device"})
    tab.call("start", asked(Sampling(), maxTokens=3))
    first = whole(tab.call("finish"))
    tab.call("start", asked(PROMPT.sampling))
    second = whole(tab.call("finish"))
    assert second["usage"]["cachedTokens"] == first["usage"]["promptTokens"] - 1
    assert second["tokenIds"] == alone(llama_cpp, PROMPT.sampling)
    tab.call("connect", cluster.websocket_url)


def test_cancel_in_prefill_and_in_decode(tab: Tab, cluster: Cluster) -> None:
    tab.call("start", asked(PROMPT.sampling))
    tab.call("seen", "prefill_progress")
    tab.call("cancel")
    in_prefill = whole(tab.call("finish"))
    assert (in_prefill["finishReason"], in_prefill["usage"]["deviceTokens"]) == ("cancelled", 0)
    tab.call("start", asked(PROMPT.sampling, creditThrough=2, maxTokens=500))
    tab.call("seen", "token", 5)
    tab.call("cancel")
    in_decode = whole(tab.call("finish"))
    assert in_decode["finishReason"] == "cancelled"
    assert 0 < in_decode["usage"]["deviceTokens"] < 400
    run(wait_for(cluster, is_idle))


def test_a_page_loaded_again_goes_on(tab: Tab, cluster: Cluster, llama_cpp: DeviceEngine) -> None:
    tab.call("startWithoutDevice", asked(PROMPT.sampling, creditThrough=20))
    tab.call("seen", "token", 4)
    tab.requests.clear()
    tab.page.reload()
    tab.load()
    tab.call("connect", cluster.websocket_url)
    assert not any("model.gguf" in url for url in tab.requests), "the model was kept"
    tab.call("resume")
    outcome = tab.call("finish")
    result = whole(outcome)
    assert result["tokenIds"] == alone(llama_cpp, PROMPT.sampling)
    assert 4 <= result["takeoverIndex"] <= 20
    assert "resumed" in types(outcome)
    assert "started" not in types(outcome), "the same generation goes on"
    assert tab.call("shown") == result["text"]


def test_the_gateway_dies_after_the_takeover(
    tab: Tab, cluster: Cluster, llama_cpp: DeviceEngine
) -> None:
    """The last test of this module: starting another cluster would take longer than all of it."""
    tab.call("start", asked(PROMPT.sampling, creditThrough=4))
    tab.call("seen", "takeover")
    cluster.process.send_signal(signal.SIGKILL)
    assert cluster.process.wait() == -signal.SIGKILL
    result = whole(tab.call("finish"))
    assert result["tokenIds"] == alone(llama_cpp, PROMPT.sampling)
    assert 0 < result["takeoverIndex"] <= 4
    tab.call("start", asked(PROMPT.sampling))
    outcome = tab.call("finish")
    assert whole(outcome)["tokenIds"] == result["tokenIds"]
    assert "started" not in types(outcome), "no cloud, and still an answer"
