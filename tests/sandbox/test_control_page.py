"""The page of the sandbox in a browser: live, playable, and harmless whatever titles hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browser import set_width, start_browser
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from musicapi_async.sandbox import Durations, Entry, Fault, Sandbox

HOSTILE = "<img src=x onerror=document.title='owned'><b>bold</b>"


@pytest.fixture
def anyio_backend() -> str:
    """The browser lives in real time."""
    return "asyncio"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One browser for all pages of this file."""
    driver = start_browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


def wait(browser: Any, true: Callable[[Any], object]) -> None:
    WebDriverWait(browser, 20, 0.05).until(true)


def text(browser: Any, part: str) -> str:
    return str(browser.find_element(By.ID, part).text)


PLAY = """
const done = arguments[0], audio = document.querySelector("audio");
audio.play().then(() => setTimeout(() => done([audio.duration, audio.currentTime]), 400), e => done([String(e)]));
"""


async def test_page_shows_what_happens(browser) -> None:
    """Balance, requests and tasks come by themselves; a title is text; a clip plays; nothing is logged."""
    async with Sandbox(speed=200, longest=8) as box, box.client() as client:

        def first() -> None:
            browser.get(box.page_url)
            wait(browser, lambda _: text(browser, "balance") == "1000")
            assert box.control_token not in browser.current_url

        await asyncio.to_thread(first)
        task = await client.sonic.create_music(mv="sonic-v6", prompt="[Verse]\nla", title=HOSTILE)
        await task.wait()
        box.faults.on("POST", "/sonic/create", Fault.fail())
        box.durations = Durations(song=(10_000, 0))
        failing = await client.sonic.create_music(mv="sonic-v6", prompt="[Verse]\nla", title="Fails")

        def between() -> None:
            wait(browser, lambda _: text(browser, "balance") == "960")
            assert "(refunded)" not in text(browser, "journal")

        await asyncio.to_thread(between)
        box.forward(10_000)
        assert (await failing.refresh()).state == "failed"

        def then() -> None:
            wait(browser, lambda _: text(browser, "balance") == "980")
            wait(
                browser,
                lambda _: "failed" in text(browser, "tasks") and "succeeded" in text(browser, "tasks"),
            )
            assert HOSTILE in text(browser, "tasks")
            assert "POST /sonic/create" in text(browser, "journal")
            assert "(refunded)" in text(browser, "journal")
            assert (
                browser.find_elements(By.CSS_SELECTOR, "main b:not(#balance):not(#charges), main img") == []
            )
            browser.find_element(By.TAG_NAME, "h1").click()  # browsers play after a gesture only
            duration, position = browser.execute_async_script(PLAY)
            assert 5 < duration < 10
            assert position > 0
            box.reset()
            wait(browser, lambda _: text(browser, "balance") == "1000" and text(browser, "no-tasks"))
            assert (text(browser, "journal"), text(browser, "no-requests")) == ("", "No request yet.")
            assert browser.title == "musicapi sandbox"
            assert browser.get_log("browser") == []

        await asyncio.to_thread(then)


async def test_page_begins_with_the_newest_requests(browser) -> None:
    """After a day of requests the page shows the last 200 of them at once, the newest first."""
    async with Sandbox() as box:
        for number in range(1000):
            box.journal.add(Entry(number, "GET", f"/sonic/task/{number}", "poll", status=202))

        def read() -> None:
            browser.get(box.page_url)
            wait(browser, lambda _: browser.find_elements(By.CSS_SELECTOR, "#journal tr"))
            rows = browser.execute_script(
                "return [...document.getElementById('journal').rows].map(r => r.textContent)"
            )
            assert len(rows) == 200
            assert "/sonic/task/999" in rows[0]
            assert "/sonic/task/800" in rows[-1]

        await asyncio.to_thread(read)


async def test_clips_are_in_view_on_a_phone(browser) -> None:
    """At 390 pixels nothing is wider than the page, and a player is within it."""
    async with Sandbox(speed=200, longest=8) as box, box.client() as client:
        await (await client.sonic.create_music(mv="sonic-v6", prompt="[Verse]\nla", title="Rain")).wait()

        def read() -> None:
            set_width(browser, 390)
            browser.get(box.page_url)
            wait(browser, lambda _: browser.find_elements(By.TAG_NAME, "audio"))
            places = "return [...document.querySelectorAll('audio, td')].map(one => one.getBoundingClientRect().right)"
            assert max(browser.execute_script(places)) <= 390

        await asyncio.to_thread(read)


async def test_page_asks_for_the_token(browser) -> None:
    """Without it in the address there is a field; a wrong one is refused, the right one opens the page."""
    async with Sandbox() as box:

        def use() -> None:
            browser.get(box.page_url.partition("#")[0])
            wait(browser, lambda _: browser.find_element(By.ID, "token").is_displayed())
            for token, seen in (("wrong", "no token"), (box.control_token, "live")):
                field = browser.find_element(By.ID, "token")
                field.clear()
                field.send_keys(token)
                browser.find_element(By.CSS_SELECTOR, "#login button").click()
                wait(browser, lambda _, seen=seen: text(browser, "state") == seen)
            assert text(browser, "balance") == "1000"

        await asyncio.to_thread(use)
