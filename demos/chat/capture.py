"""Pictures of the real page: ``python -m demos.chat.capture`` writes them to docs/images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

from demos.browser import running_browser
from demos.chat.process import running_chat

ROOT = Path(__file__).resolve().parents[2]
PHONE = {"width": 360, "height": 780}
DESKTOP = {"width": 1160, "height": 840}
DEADLINE_MS = 120_000.0
# Positions of the demo's prompts on the page, and a device slow enough to see what happens.
VILLAGE, NOTES = 1, 2
DEVICE = "phone-250"


def capture(url: str, browser: Browser, directory: Path) -> list[Path]:
    """Write every picture; returns their paths."""
    shots = []
    for scheme in ("light", "dark"):
        for size_name, size in (("desktop", DESKTOP), ("phone", PHONE)):
            page = _open(browser, url, scheme, size)
            for name, play in (("chat", _chat), ("ways", _three_ways)):
                play(page)
                shots.append(directory / f"{name}-{size_name}-{scheme}.png")
                page.screenshot(path=shots[-1])
            page.context.close()
    return shots


def _open(browser: Browser, url: str, scheme: Any, size: Any) -> Page:
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    context.set_default_timeout(DEADLINE_MS)
    page = context.new_page()
    page.goto(url)
    expect(page.locator("html[data-ready]")).to_be_attached()
    page.locator("#settings").evaluate("details => details.open = true")
    page.select_option("#device", DEVICE)
    if size is PHONE:
        page.locator("#settings").evaluate("details => details.open = false")
    return page


def _chat(page: Page) -> None:
    """In mid-answer, some way behind the takeover."""
    page.locator("#chat-samples button").nth(VILLAGE).click()
    page.click("#send")
    expect(page.locator(".answer .by.device")).to_contain_text(". ", timeout=DEADLINE_MS)


def _three_ways(page: Page) -> None:
    """The three beside each other, after their end."""
    page.click("#stop")
    expect(page.locator("#turns .answer")).to_have_attribute(
        "data-state", "done", timeout=DEADLINE_MS
    )
    page.get_by_role("link", name="Three ways").click()
    page.locator("#compare-samples button").nth(NOTES).click()
    page.locator("#max_tokens").evaluate(
        "input => { input.value = 60; input.dispatchEvent(new Event('input')); }"
    )
    page.click("#compare-run")
    expect(page.locator("#compare-table")).to_be_visible(timeout=DEADLINE_MS)
    page.locator("#ways").evaluate("ways => ways.scrollIntoView({block: 'start'})")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demos.chat.capture", description=__doc__)
    parser.add_argument("--directory", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    with running_chat() as server, running_browser() as browser:
        for path in capture(server.url, browser, options.directory):
            print(f"{path.stat().st_size / 1024:6.0f} KiB  {path}")


if __name__ == "__main__":
    main()
