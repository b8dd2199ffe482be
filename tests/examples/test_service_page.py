"""The example service's page in a real browser, headless: Debian's chromium, driven by selenium."""

from __future__ import annotations

import signal
import time
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from browser import set_width, start_browser
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from studio_process import SHORT, StudioProcess

PATIENCE = 90.0
SLOW, QUICK = 5.0, 30.0
"""Speeds at which a song takes some twenty seconds, time enough to listen while it is made, and three."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Generator[webdriver.Chrome]:
    """One browser for all tests of this file, with a first tab that stays empty."""
    driver = start_browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture
def chromium(browser: webdriver.Chrome) -> Generator[webdriver.Chrome]:
    """The browser; the tabs of a test close after it."""
    first, *_ = browser.window_handles
    yield browser
    for handle in browser.window_handles:
        if handle != first:
            browser.switch_to.window(handle)
            browser.close()
    browser.switch_to.window(first)


@pytest.fixture
def studio(tmp_path: Path, request: pytest.FixtureRequest) -> Generator[StudioProcess]:
    """A service without a key, on a sandbox of its own; the parameter is the sandbox's speed.

    At the lowest it is the sandbox that the service starts itself, with songs that are long enough to listen to.
    """
    running = StudioProcess(tmp_path, getattr(request, "param", 12.0))
    if running.speed > SLOW:
        running.start_sandbox()
    running.start()
    yield running
    running.end()
    running.end_sandbox()


class Page:
    """The page in one tab, as a visitor uses it."""

    def __init__(self, driver: webdriver.Chrome, url: str, width: int = 1280) -> None:
        self.driver = driver
        driver.switch_to.new_window("tab")
        self.tab = driver.current_window_handle
        set_width(driver, width)
        driver.get(url)
        self.until(lambda: "sandbox" in self.one("#link").text)

    def front(self) -> Page:
        self.driver.switch_to.window(self.tab)
        return self

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def until(self, true: Callable[[], Any], what: str = "") -> Any:
        """Wait until it is true."""
        end, pause = time.monotonic() + PATIENCE, 0.05
        while not (found := true()):
            assert time.monotonic() < end, what or f"not within {PATIENCE} s; songs: {self.states()}"
            time.sleep(pause)  # the browser needs a hundredth of a second of work for each answer
            pause = min(pause * 1.5, 0.4)
        return found

    def order(self, description: str) -> None:
        self.one("#description").send_keys(description)
        self.one("#make").click()

    def states(self) -> list[str]:
        """The states of the songs on the page, the newest first."""
        return self.run("return [...document.querySelectorAll('.song')].map((song) => song.dataset.state)")

    def audio(self, index: int = 0) -> dict[str, Any]:
        """Return what the player has of a version of the newest song: at 0 and paused, if it is another one.

        `length` is what the page displays.
        """
        return self.run(
            "const clip = document.querySelector('.song').querySelectorAll('.clip')"
            f"[{index}]; const a = [...document.querySelectorAll('audio')].find((one) => one.dataset.track === clip.dataset.clip); "
            "const [minutes, seconds] = clip.querySelector('.times').textContent.split('/').pop().split(':').map(Number); "
            "return {at: a?.currentTime ?? 0, paused: a?.paused ?? true, src: a?.src ?? '', length: 60 * minutes + seconds}"
        )

    def errors(self) -> list[str]:
        """Return the errors of the console, but for a server that is away."""
        log: list[dict[str, Any]] = self.driver.get_log("browser")
        away = (
            "ERR_CONNECTION_REFUSED",
            "ERR_INCOMPLETE_CHUNKED_ENCODING",
            "ERR_EMPTY_RESPONSE",
            "ERR_CONNECTION_RESET",
        )
        return [entry["message"] for entry in log if not any(word in entry["message"] for word in away)]


# About twenty seconds for a song: time enough to listen while it is being made, on a busy machine, too.
@pytest.mark.parametrize("studio", [SLOW], indirect=True)
def test_song_plays_early_finishes_and_is_saved(chromium: webdriver.Chrome, studio: StudioProcess) -> None:
    """A song that was playing while it was made plays on from the file, which can be downloaded."""
    page = Page(chromium, studio.url)
    assert page.one("#empty").is_displayed()
    page.order("warm lo-fi for a rainy evening, soft female voice")
    seen: list[str] = []

    def note() -> list[str]:
        states = page.states()
        if states and states[0] not in seen:
            seen.append(states[0])
        return seen

    page.until(lambda: "streaming" in note())
    streaming = page.run(
        "return [...document.querySelectorAll('.clip')].findIndex((clip) => clip.dataset.source === 'stream')"
    )
    assert streaming >= 0
    chromium.find_elements(By.CSS_SELECTOR, ".play")[streaming].click()
    early = page.until(lambda: (now := page.audio(streaming))["at"] > 0.2 and now)
    assert "/audiopipe/" in early["src"]
    assert "succeeded" not in note()
    page.until(lambda: "succeeded" in note())
    assert [state for state in seen if state in ("pending", "streaming", "succeeded")] == [
        "pending", "streaming", "succeeded"
    ]  # fmt: skip
    # What was playing goes on from where it was, now from the file.
    late = page.until(
        lambda: (now := page.audio(streaming))["at"] > early["at"] + 0.2 and "/files/" in now["src"] and now
    )
    assert not late["paused"]
    assert late["length"] == pytest.approx(75, abs=1)
    page.until(lambda: (page.audio(1 - streaming)["length"] or 0) > 10)
    assert page.audio(1 - streaming)["paused"]

    link = str(page.one(".save").get_attribute("href"))
    with urllib.request.urlopen(link) as answer:
        assert answer.headers["Content-Type"] == "audio/mpeg"
        assert "attachment" in answer.headers["Content-Disposition"]
        assert answer.headers["Content-Disposition"].rstrip('"').endswith(".mp3")
        assert answer.read(3) in (b"ID3", b"\xff\xfb\x90")
    assert page.errors() == []


@pytest.mark.parametrize("studio", [QUICK], indirect=True)
def test_persona_of_a_song_sings_the_next(chromium: webdriver.Chrome, studio: StudioProcess) -> None:
    """The rest of a visitor's way, with a mouse: keep a voice under a name, order a song with it."""
    page = Page(chromium, studio.url)
    page.order("warm lo-fi for a rainy evening, soft female voice")
    page.until(lambda: page.states() == ["succeeded"])
    page.one(".make-persona").click()
    name = page.one(".keep input")
    name.clear()
    name.send_keys("Rainy <b>voice</b>")
    page.one(".keep button").click()
    page.until(
        lambda: (
            page.run("return document.querySelector('#persona').selectedOptions[0].textContent")
            == "Rainy <b>voice</b>"
        )
    )
    page.order("a song about trains")
    page.until(lambda: page.states() == ["succeeded", "succeeded"])
    assert page.one(".song .by").text == "· sung by Rainy <b>voice</b>"
    page.until(lambda: (page.audio()["length"] or 0) > SHORT / 2)
    assert page.errors() == []


@pytest.mark.parametrize("studio", [QUICK], indirect=True)
def test_cover_that_failed_is_fetched_later(chromium: webdriver.Chrome, studio: StudioProcess) -> None:
    """A cover that could not be fetched is there once the network is back, without a reload."""
    page = Page(chromium, studio.url)
    page.order("rain")
    page.until(lambda: page.states() == ["succeeded"])
    covers = "return [...document.querySelectorAll('.clip img')].map((one) => [one.src, one.naturalWidth, one.className])"
    page.until(lambda: all(width for _, width, _ in page.run(covers)))
    chromium.execute_cdp_cmd("Network.enable", {})
    chromium.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})
    chromium.execute_cdp_cmd("Network.setBlockedURLs", {"urls": [src for src, _, _ in page.run(covers)]})
    chromium.refresh()
    page.until(lambda: [(width, name) for _, width, name in page.run(covers)] == [(0, "absent")] * 2)
    chromium.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    page.run("dispatchEvent(new Event('online'))")
    page.until(lambda: all(width and not name for _, width, name in page.run(covers)))


def test_page_continues_after_a_kill(chromium: webdriver.Chrome, studio: StudioProcess) -> None:
    """SIGKILL in the middle of a generation, with another one finished: no reload, no second charge."""
    page = Page(chromium, studio.url)
    page.order("funky disco with brass")
    page.until(lambda: page.states() in (["pending"], ["streaming"]))
    studio.end(signal.SIGKILL)
    page.until(lambda: page.one("#link").text == "reconnecting")
    studio.start()
    page.until(lambda: page.states() == ["succeeded"])
    page.until(lambda: "sandbox" in page.one("#link").text)
    page.one(".play").click()
    page.until(lambda: page.audio()["at"] > 0.2)
    studio.end(signal.SIGKILL)
    studio.start()
    again = Page(chromium, studio.url)
    again.until(lambda: again.states() == ["succeeded"])
    assert again.errors() == []


@pytest.mark.parametrize("studio", [QUICK], indirect=True)
def test_two_tabs_show_the_same_songs(chromium: webdriver.Chrome, studio: StudioProcess) -> None:
    """A song ordered in one appears in the other, from order to end, also with the phone's width."""
    one = Page(chromium, studio.url)
    two = Page(chromium, studio.url, width=390)
    one.front().order("slow piano ballad, male voice")
    two.front().order("synth-pop, first day of summer")
    for page in (one, two):
        page.front().until(lambda page=page: page.states() == ["succeeded", "succeeded"])
        titles = page.run("return [...document.querySelectorAll('.words')].map((words) => words.textContent)")
        assert sorted(titles) == ["slow piano ballad, male voice", "synth-pop, first day of summer"]
        assert page.errors() == []


@pytest.mark.parametrize("studio", [QUICK], indirect=True)
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out_of_the_page(
    chromium: webdriver.Chrome, studio: StudioProcess, width: int
) -> None:
    """No sideways scrolling and no control out of its card, with a long word and an open form."""
    page = Page(chromium, studio.url, width)
    page.order("x" * 120 + " rain")
    page.until(lambda: page.states() == ["succeeded"])
    page.one(".make-persona").click()
    page.run("document.querySelector('.keep input').value = 'y'.repeat(79)")
    page.one(".keep button").click()
    page.until(lambda: page.run("return document.querySelector('#persona').value"))
    chromium.save_screenshot(str(studio.folder / f"page-{width}.png"))
    assert page.run("return document.documentElement.scrollWidth") <= width
    outside = page.run(
        "return [...document.querySelectorAll('.card *')].filter((part) => { const b = part.getBoundingClientRect(), "
        "c = part.closest('.card').getBoundingClientRect(); return b.width && (b.right > c.right + 1 || b.left < c.left - 1); })"
        ".map((part) => part.outerHTML.slice(0, 80))"
    )
    assert outside == []


def test_stopped_server_ends_at_once_and_quietly(
    chromium: webdriver.Chrome, studio: StudioProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a page open and a song under way: no waiting for the event stream, no traceback."""
    page = Page(chromium, studio.url)
    page.order("rain")
    page.until(lambda: page.states() in (["pending"], ["streaming"]))
    assert studio.end(signal.SIGINT) in (0, -signal.SIGINT)
    assert page.states() in (["pending"], ["streaming"])
    assert capfd.readouterr().err == ""
    page.until(lambda: page.one("#link").text == "reconnecting")


@pytest.mark.parametrize("studio", [QUICK], indirect=True)
def test_page_says_what_is_impossible(chromium: webdriver.Chrome, studio: StudioProcess) -> None:
    """A text that the service refuses, and a server that is away."""
    page = Page(chromium, studio.url)
    studio.end()
    page.order("rain")
    page.until(lambda: "cannot be reached" in page.one("#says").text)
    studio.start()
    page.until(lambda: "sandbox" in page.one("#link").text)
    assert not page.one("#says").is_displayed()
    page.one("#make").click()
    page.until(lambda: page.states() == ["succeeded"])
    assert not page.one("#says").is_displayed()


def test_failed_song_says_why_and_can_be_repeated(chromium: webdriver.Chrome, studio: StudioProcess) -> None:
    """A description that the service refuses comes back into the form, to be changed."""
    page = Page(chromium, studio.url)
    page.order("a ballad in the style of example name")
    page.until(lambda: page.states() == ["failed"])
    assert "Please change the text" in page.one(".problem").text
    assert page.run("return document.querySelectorAll('.clip').length") == 0
    page.one(".again").click()
    assert page.one("#description").get_attribute("value") == "a ballad in the style of example name"
