"""The chat page in a real browser, over a real cluster."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from demos.browser import running_browser
from demos.chat.process import ChatServer, running_chat
from tests.browser.chat_page import LONG, MIDDLE, SHORT, ChatPage, figure, finished, made

Open = Callable[..., ChatPage]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


class Servers:
    """Starts one, and another when a test has killed its cloud."""

    def __init__(self, held: ExitStack) -> None:
        self._held = held
        self._newest: ChatServer | None = None

    def healthy(self) -> ChatServer:
        if self._newest is None or self._newest.gateway_pid is None:
            self._newest = self._held.enter_context(running_chat())
        return self._newest


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with ExitStack() as held:
        yield Servers(held)


@pytest.fixture
def server(servers: Servers) -> ChatServer:
    """One whose cloud is alive; the test may kill it."""
    return servers.healthy()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens pages; each must have asked nobody but its own server, and complained of nothing."""
    opened: list[tuple[ChatPage, str]] = []

    def open_one(server: ChatServer, **options: Any) -> ChatPage:
        tab = ChatPage.open(browser, server.url, **options)
        opened.append((tab, server.url))
        return tab

    yield open_one
    for tab, url in opened:
        tab.context.close()
        assert tab.requests
        # Its server, what the page makes itself, and the cloud that the server started.
        own = (url, f"blob:{url}", "ws://127.0.0.1:")
        assert [each for each in tab.requests if not each.startswith(own)] == []
        assert tab.complaints == []


@pytest.fixture
def tab(open_page: Open, server: ChatServer) -> ChatPage:
    return open_page(server)


def test_three_turns_and_a_takeover(tab: ChatPage) -> None:
    tab.set()
    first = finished(tab.ask_offered(MIDDLE))
    mark = first.locator(".takeover")
    expect(mark).to_have_count(1)
    cloud, device = made(first)
    assert cloud == int(mark.get_attribute("data-index") or 0) > 0
    assert cloud + device == 40
    # Told in text too: where the device goes on, and on the way to a screen reader.
    expect(mark).to_contain_text("from here on: the device")
    expect(tab.page.locator("#spoken")).to_contain_text("from here on: the device")
    assert tab.page.locator("#spoken p").count() < 10  # sentences, not tokens
    assert "of" in figure(first, "Cloud slot time saved")
    tab.set(device="laptop-3000", max_tokens=20)
    for number, text in ((2, "And then?"), (3, "Who was it?")):
        answer = finished(tab.ask(text))
        assert len(answer.locator(".text").inner_text()) > 10
        assert "from before" in figure(answer, "Prompt"), (
            "a turn begins from the cells of the one before"
        )
        assert tab.answers.count() == number


@pytest.mark.parametrize(
    ("made_by_cloud", "account", "saved"),
    [
        # 10 ms for each of 10 tokens behind the first; 40 tokens would have taken 390 ms.
        (11, {"cloudTokens": 11, "slotS": 0.1}, {"savedS": 0.29, "aloneS": 0.39}),
        (11, None, None),
        (1, {"cloudTokens": 1, "slotS": 0.0}, None),
        (40, {"cloudTokens": 40, "slotS": 0.39}, None),
    ],
    ids=["measured", "no account", "too short", "cloud alone"],
)
def test_slot_time_saved(tab: ChatPage, made_by_cloud: int, account: Any, saved: Any) -> None:
    usage = {"cloudTokens": made_by_cloud, "deviceTokens": 40 - made_by_cloud}
    result = {"tokenIds": [7] * 40, "usage": usage, "cloud": account}
    code = "async (result) => (await import('/story.js')).slotSaved(result)"
    found = tab.page.evaluate(code, result)
    assert (found is None) == (saved is None)
    if saved is not None:
        assert {name: found[name] for name in saved} == pytest.approx(saved)


def test_never_more_shown_than_received(tab: ChatPage) -> None:
    code = """async () => {
      const { Story } = await import('/story.js');
      const story = new Story();
      const told = { receivedTokens: 1, prefilledTokens: 0, promptTokens: 9, lagTokens: 0 };
      for (const index of [0, 1, 2]) {
        story.apply({ type: 'token', index, source: 'cloud', atS: index });
        story.apply({ type: 'progress', ...told, atS: index });
      }
      return story.samples.map(({ received, shown }) => [received, shown]);
    }"""
    assert tab.page.evaluate(code) == [[1, 1], [1, 1], [2, 2], [2, 2], [3, 3], [3, 3]]


def test_stop_in_prefill(tab: ChatPage) -> None:
    tab.set(mode="only_on_device")
    answer = tab.ask_offered(LONG)
    expect(answer.locator(".situation")).to_contain_text("has read 1")
    tab.page.click("#stop")
    expect(finished(answer).locator(".situation")).to_have_text("Stopped before the first token.")
    expect(tab.page.locator("#send")).to_be_enabled()


def test_stop_in_decode_by_keyboard_alone(tab: ChatPage) -> None:
    tab.set(max_tokens=400)
    for _ in range(20):
        tab.page.keyboard.press("Tab")
        if tab.page.evaluate("() => document.activeElement.id") == "text":
            break
    tab.page.keyboard.type("Write about the sea.")
    tab.page.keyboard.press("Enter")
    expect(tab.answers.locator(".by.device")).to_contain_text(" ")
    tab.page.keyboard.press("Escape")
    answer = finished(tab.answers)
    expect(answer.locator(".situation")).to_contain_text("Stopped: ")
    assert 0 < sum(made(answer)) < 400


def test_the_text_goes_on_when_the_network_is_cut(tab: ChatPage) -> None:
    tab.set(max_tokens=60)
    answer = tab.ask_offered(MIDDLE)
    expect(answer.locator(".by.cloud")).to_be_visible()
    tab.page.click("#cut")
    expect(tab.page.locator("#cut")).to_have_attribute("aria-pressed", "true")
    expect(answer.locator(".notes")).to_contain_text("connection broke")
    cloud, device = made(finished(answer))
    assert device > 0
    assert cloud + device == 60
    assert figure(answer, "Cloud slot time saved") == "not known"
    tab.page.click("#cut")
    expect(tab.page.locator("#cut")).to_have_attribute("aria-pressed", "false")


def test_without_a_device_a_cut_ends_the_answer_in_words(tab: ChatPage) -> None:
    tab.page.click("#cut")
    expect(tab.page.locator("#cut")).to_have_attribute("aria-pressed", "true")
    tab.set(mode="only_in_cloud")
    answer = tab.ask("Good morning.")
    expect(answer).to_have_attribute("data-state", "failed")
    expect(answer.locator(".situation")).to_contain_text("the emulated network is cut")
    tab.page.click("#cut")
    expect(tab.page.locator("#cut")).to_have_attribute("aria-pressed", "false")


def test_a_reload_loses_nothing(tab: ChatPage) -> None:
    tab.set(max_tokens=60)
    answer = tab.ask_offered(SHORT)
    expect(answer.locator(".by").first).to_contain_text(" ")
    tab.page.reload()
    tab.wait_until_ready()
    expect(tab.answers).to_have_count(1)
    expect(answer).to_have_attribute("data-state", "running")
    assert sum(made(finished(answer))) == 60
    text = answer.locator(".text").inner_text()
    tab.page.reload()
    tab.wait_until_ready()
    assert finished(answer).locator(".text").inner_text() == text
    assert tab.page.input_value("#device") == "phone-250", "settings survive too"
    tab.set(device="laptop-3000", max_tokens=20)
    finished(tab.ask("And then?"))
    assert "from before" in figure(tab.answers.nth(1), "Prompt"), "the conversation goes on"


def test_the_browser_is_the_device(tab: ChatPage) -> None:
    tab.page.select_option("#where", "browser")
    expect(tab.page.locator("#where-hint")).to_contain_text("Real: this browser")
    expect(tab.page.locator("#device")).to_be_disabled()
    tab.page.fill("#max_tokens", "60")
    answer = finished(tab.ask_offered(SHORT))
    cloud, device = made(answer)
    assert device > 0
    assert cloud + device == 60
    text = answer.locator(".text").inner_text()
    tab.page.reload()
    tab.wait_until_ready()
    assert finished(answer).locator(".text").inner_text() == text
    tab.page.click("#cut")
    expect(tab.page.locator("#cut")).to_have_attribute("aria-pressed", "true")
    tab.page.fill("#max_tokens", "20")
    assert made(finished(tab.ask("And then?")))[1] > 0, "without a cloud it goes on alone"


def test_the_device_reads_what_the_cloud_found_worth_it(tab: ChatPage) -> None:
    tab.set(max_tokens=20)
    tab.page.fill("#keep_ratio", "0.3")
    answer = finished(tab.ask_offered(LONG))
    expect(answer.locator(".notes")).to_contain_text("the device reads only those")
    found = re.fullmatch(r"(\d+) tokens, (\d+) read", figure(answer, "Prompt"))
    assert found is not None
    whole, read = found.groups()
    assert int(read) < int(whole)


def test_three_ways(tab: ChatPage) -> None:
    tab.set(device="tablet-1600")
    tab.page.get_by_role("link", name="Three ways").click()
    tab.page.locator("#compare-samples button").nth(SHORT).click()
    tab.page.click("#compare-run")
    table = tab.page.locator("#compare-table")
    expect(table).to_be_visible()
    expect(table).to_contain_text("All three made the same tokens")
    expect(tab.page.locator("#ways .answer[data-state=done]")).to_have_count(3)
    ways = tab.page.locator("#ways .answer")
    assert ways.locator("h2").all_inner_texts() == ["Device only", "Split", "Cloud only"]
    assert [figure(ways.nth(column), "Cloud") for column in (0, 2)] == ["0 tokens", "40 tokens"]


def test_nothing_serious_for_assistive_technology(open_page: Open, server: ChatServer) -> None:
    tab = open_page(server, viewport={"width": 360, "height": 740}, bypass_csp=True)
    assert tab.violations() == [], "an empty conversation"
    tab.page.click("#settings summary")
    assert tab.violations() == [], "settings"
    tab.set(mode="only_on_device", max_tokens=20)
    answer = tab.ask_offered(SHORT)
    expect(answer.locator(".by")).to_be_visible()
    assert tab.violations() == [], "an answer"
    finished(answer)
    assert _overflow(tab) <= 0
    tab.page.get_by_role("link", name="Three ways").click()
    tab.page.locator("#compare-samples button").nth(SHORT).click()
    tab.page.click("#compare-run")
    expect(tab.page.locator("#compare-table")).to_be_visible()
    assert tab.violations() == [], "three ways"
    assert _overflow(tab) <= 0


FIELDS = {"text": "Good morning.", "settings": {}}


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "words"),
    [
        ("api/conversations", {"Origin": "http://elsewhere.example"}, {}, 403, "elsewhere"),
        ("api/conversations", {"Host": "rebound.example"}, {}, 403, "rebound.example"),
        ("api/conversations", {"Content-Type": "text/plain"}, {}, 400, "application/json"),
        ("api/comparisons", {}, {"text": "Hello"}, 400, "exactly the fields text, settings"),
        ("api/comparisons", {}, FIELDS | {"settings": {"depth": 3}}, 400, "no setting 'depth'"),
        ("api/comparisons", {}, FIELDS | {"settings": {"rtt_ms": -1}}, 400, "from 0 to 1000"),
        ("api/comparisons", {}, FIELDS | {"text": ""}, 400, "the prompt is empty"),
        ("api/conversations/unknown/turns", {}, FIELDS, 404, "begin a new one"),
        ("api/network", {}, {"cut": "yes"}, 400, "true or false"),
    ],
)
def test_what_the_server_refuses(
    server: ChatServer, path: str, headers: dict[str, str], body: Any, status: int, words: str
) -> None:
    given = {"Content-Type": "application/json", **headers}
    answer = httpx.post(server.url + path, headers=given, content=json.dumps(body))
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_the_text_goes_on_when_the_gateway_is_killed(tab: ChatPage, server: ChatServer) -> None:
    tab.set(max_tokens=60)
    answer = tab.ask_offered(MIDDLE)
    expect(answer.locator(".by.device")).to_be_visible()
    assert server.gateway_pid is not None
    os.kill(server.gateway_pid, signal.SIGKILL)
    finished(answer)
    cloud, device = made(answer)
    assert cloud > 0
    assert cloud + device == 60


def _overflow(tab: ChatPage) -> int:
    """Pixels that one would have to scroll sideways."""
    code = "() => document.scrollingElement.scrollWidth - window.innerWidth"
    return int(tab.page.evaluate(code))
