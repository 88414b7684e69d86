"""The chat page as a person uses it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
DEADLINE_MS = 40_000.0
# Positions of the demo's prompts among the page's offers, by their length.
SHORT, MIDDLE, LONG = 0, 1, 3

expect.set_options(timeout=DEADLINE_MS)


@dataclass
class ChatPage:
    """One tab. `requests` are all it asked for, `complaints` what its console says is wrong."""

    context: BrowserContext
    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, browser: Browser, url: str, **options: Any) -> ChatPage:
        """Open the page, by default at desktop size, and wait until it is ready."""
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(DEADLINE_MS)
        tab = cls(context, context.new_page())
        context.on("request", lambda request: tab.requests.append(request.url))
        tab.page.on("websocket", lambda socket: tab.requests.append(socket.url))
        tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
        tab.page.on("console", tab._hear)
        tab.page.goto(url)
        tab.wait_until_ready()
        return tab

    def wait_until_ready(self) -> None:
        expect(self.page.locator("html[data-ready]")).to_be_attached()

    def set(self, *, mode: str = "split", device: str = "phone-250", max_tokens: int = 40) -> None:
        """The settings of the next answers; by default the device reads slowly."""
        self.page.select_option("#mode", mode)
        self.page.select_option("#device", device)
        self.page.fill("#max_tokens", str(max_tokens))

    def ask(self, text: str) -> Locator:
        """The next turn; returns its answer."""
        self.page.fill("#text", text)
        return self.send()

    def ask_offered(self, number: int) -> Locator:
        """The same with one of the prompts that an empty conversation offers."""
        self.page.locator("#chat-samples button").nth(number).click()
        return self.send()

    def send(self) -> Locator:
        before = self.answers.count()
        self.page.click("#send")
        expect(self.answers).to_have_count(before + 1)
        return self.answers.nth(before)

    @property
    def answers(self) -> Locator:
        return self.page.locator("#turns .answer")

    def violations(self) -> list[str]:
        """What axe-core calls serious or critical, in light and in dark.

        Needs a context that bypasses the page's policy.
        """
        if not self.page.evaluate("() => 'axe' in window"):
            self.page.add_script_tag(path=AXE)
        return [found for scheme in ("light", "dark") for found in self._violations_in(scheme)]

    def _violations_in(self, scheme: Any) -> list[str]:
        self.page.emulate_media(color_scheme=scheme)
        found = self.page.evaluate("() => axe.run({resultTypes: ['violations']})")
        return [
            f"{scheme} {each['id']}: {each['help']} {[node['html'] for node in each['nodes']]}"
            for each in found["violations"]
            if each["impact"] in ("serious", "critical")
        ]

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)


def finished(answer: Locator) -> Locator:
    """The answer, once it is over without an error."""
    expect(answer).to_have_attribute("data-state", "done")
    return answer


def figure(answer: Locator, name: str) -> str:
    """One of the figures below a finished answer."""
    return answer.locator(f'dl > div:has(dt:text-is("{name}")) dd').inner_text()


def made(answer: Locator) -> tuple[int, int]:
    """How many tokens of a finished answer the cloud made, and how many the device."""
    cloud, device = (int(figure(answer, side).split()[0]) for side in ("Cloud", "Device"))
    return cloud, device
