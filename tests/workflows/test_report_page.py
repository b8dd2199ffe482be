"""The page of a batch in a real browser, from the file system: twelve songs of the sandbox.

The songs are made once. The last test reads the console and what was requested in all others.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from browser import set_width, start_browser
from report_pages import songs as songs_on
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.workflows import Manifest, copy_picks, run_batch

PATIENCE = 90.0
IN_SYNC = 0.03
"""Seconds that stems may be apart."""
AXE = "axe-core@4.14.1"
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
LYRICS = "[Verse]\nRain on the window\nLights along the street\n[Chorus]\nStay for the night\nStay a while"
SECONDS = 9


def rows() -> list[dict[str, Any]]:
    """Songs with lyrics; the first with stems and files, one with a title that would be markup."""
    titles = [
        "Rain",
        "Tram",
        HOSTILE,
        "Northern line",
        "Boats",
        "Copper",
        "Tide",
        "Glass",
        "Ember",
        "Sunday",
        "Hours",
        "Radio",
    ]
    songs: list[dict[str, Any]] = [
        {"id": f"s{i}", "mv": ("sonic-v6", "sonic-v5")[i % 2], "prompt": LYRICS, "title": title[:80], "steps": ["lyrics", "bpm"], "clips": "first",
         "tags": ("lo-fi, rain", "synth-pop, drums")[i % 2]}
        for i, title in enumerate(titles)
    ]  # fmt: skip
    songs[0] |= {"steps": ["lyrics", "bpm", "stems_full", "wav"], "clips": "all"}
    songs[1]["steps"] = ["lyrics", "stems_basic"]
    songs[3]["steps"] = ["lyrics", "stems_full"]
    return songs


async def make_album(out: Path) -> None:
    """Make the songs; the stems of the second fail. The manifest is named as one in a file."""
    async with Sandbox(speed=400, credits=1e6, seed=5, longest=SECONDS) as sandbox:
        sandbox.faults.on("POST", "/sonic/stems/basic", Fault.fail())
        async with sandbox.client(rate_limit=None) as client:
            result = await run_batch(
                client,
                Manifest.of(rows(), "my songs.jsonl"),
                out=out,
                budget=9000,
                prices={"create_music": 20},
            )
    assert (result.done, result.failed_steps) == (12, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("batch") / "My album"
    asyncio.run(make_album(out))
    return out


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Generator[webdriver.Chrome]:
    driver = start_browser(tmp_path_factory.mktemp("profile"), downloads=downloads)
    yield driver
    driver.quit()


class Page:
    """The page as a producer uses it."""

    def __init__(self, driver: webdriver.Chrome, file: Path, width: int = 1280) -> None:
        self.driver = driver
        set_width(driver, width)
        # Keys that are sent before a new tab has the focus would be lost.
        driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
        driver.get(file.as_uri())
        self.until(lambda: self.run("return document.querySelectorAll('.take').length"))

    def run(self, script: str, *values: object) -> Any:
        return self.driver.execute_script(script, *values)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def play(self, index: int) -> None:
        """Click the button of a take, by its place on the page."""
        button = self.all(".take .round")[index]
        self.run("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def choose(self, box: str, value: str) -> None:
        """Choose an option, and leave its box."""
        Select(self.one(f"#{box}")).select_by_value(value)
        self.run("document.activeElement.blur()")

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def until(self, true: Callable[[], Any], what: str = "") -> Any:
        """Wait until it is true; return it."""
        end, pause = time.monotonic() + PATIENCE, 0.05
        while not (found := true()):
            assert time.monotonic() < end, what or f"not within {PATIENCE} s"
            time.sleep(pause)  # the browser needs a hundredth of a second of work for each answer
            pause = min(pause * 1.5, 0.4)
        return found

    def playing(self) -> list[dict[str, Any]]:
        """Return the audio elements that sound."""
        return self.run(
            "return [...document.querySelectorAll('audio')].filter((one) => !one.paused && !one.muted && one.volume > 0.01)"
            ".map((one) => ({track: one.dataset.track, at: one.currentTime, length: one.duration, src: one.src}))"
        )

    def sounds(self) -> dict[str, Any]:
        """Wait until something plays; return it. Nothing else may sound."""
        (one,) = self.until(lambda: [one for one in self.playing() if one["at"] > 0.1])
        assert len(self.playing()) == 1
        return one

    def titles(self) -> list[str]:
        """Return the titles of the songs that are displayed, in their order."""
        return self.run(
            "return [...document.querySelectorAll('.song')].filter((one) => !one.hidden).map((one) => one.querySelector('h2').textContent)"
        )

    def seek(self, wave: WebElement, share: float) -> None:
        """Click into a wave form."""
        width = wave.size["width"]
        ActionChains(self.driver).move_to_element_with_offset(
            wave, int(width * (share - 0.5)), 0
        ).click().perform()


@pytest.fixture
def chromium(browser: webdriver.Chrome) -> Generator[webdriver.Chrome]:
    """The browser with a new tab, which closes after the test; no picks are stored then."""
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    yield browser
    browser.execute_script("localStorage.clear()")
    browser.close()
    browser.switch_to.window(first)


@pytest.fixture
def page(chromium: webdriver.Chrome, folder: Path) -> Page:
    return Page(chromium, folder / "report.html")


def test_plays_seeks_and_only_one_sounds(page: Page) -> None:
    """A click plays, one in the wave form seeks, a drag too; another song silences the first."""
    page.play(0)
    first = page.sounds()
    assert first["length"] == pytest.approx(SECONDS, abs=1)
    wave = page.all(".take .wave")[0]
    page.seek(wave, 0.5)
    assert page.until(lambda: page.sounds()["at"] > 0.45 * SECONDS)
    bar = page.one(".player .wave")
    ActionChains(page.driver).click_and_hold(bar).move_by_offset(
        -int(bar.size["width"] * 0.4), 0
    ).release().perform()
    page.until(lambda: page.sounds()["at"] < 0.3 * SECONDS)
    page.play(4)
    assert page.until(lambda: (one := page.sounds())["track"] != first["track"] and one)
    assert page.one(".player").is_displayed()
    page.one(".player .round").click()
    page.until(lambda: not page.playing())


def test_takes_are_compared_at_the_same_position(page: Page) -> None:
    """A/B continues where the other take was, also with the key, and also while nothing plays."""
    page.play(0)
    page.seek(page.all(".take .wave")[0], 0.5)
    before = page.until(lambda: (one := page.sounds())["at"] > 0.45 * SECONDS and one)
    page.press("a")
    after = page.until(lambda: (one := page.sounds())["track"] != before["track"] and one)
    assert 0 <= after["at"] - before["at"] < 1.5
    page.one(".player .act").click()
    page.until(lambda: (one := page.sounds())["track"] == before["track"] and one["at"] > after["at"] - 0.1)


def test_stems_play_in_sync_with_mute_and_solo(page: Page) -> None:
    """All stems that sound start together and stay within 30 ms; silent ones are folded away."""
    page.press("j", "l")
    page.until(lambda: page.all(".stem-play"))
    stems = songs_on(Path(page.run("return decodeURIComponent(location.pathname)")))[0]["takes"][0]["stems"]
    sounding = [stem["name"] for stem in stems if not stem.get("silent")]
    assert 2 < len(sounding) < len(stems)
    names = "return [...document.querySelectorAll('.take:first-child .stems li > span')].map((one) => one.textContent)"
    assert page.run(names) == sounding
    page.one(".stem-play").click()
    page.until(lambda: [one for one in page.playing() if one["at"] > 0.5])

    def drift() -> float:
        times = page.run(
            "return [...document.querySelectorAll('audio[data-track$=stems]')].map((one) => one.currentTime)"
        )
        assert len(times) == len(sounding)
        return max(times) - min(times)

    def in_sync() -> bool:
        """A machine that stalls for a moment may hold one element back; the player mends that."""
        return all(drift() < IN_SYNC for _ in range(20))

    page.until(in_sync)
    page.seek(page.one(".player .wave"), 0.4)
    page.until(lambda: len(page.playing()) == len(sounding))
    page.until(in_sync)
    page.all(".stems li button")[1].click()  # solo of the first
    page.until(lambda: len(page.playing()) == 1)
    page.all(".stems li button")[1].click()
    page.all(".stems li button")[2].click()  # the second is muted
    page.until(lambda: len(page.playing()) == len(sounding) - 1)
    page.until(in_sync)


def test_take_without_stems_is_compared_whole(page: Page) -> None:
    """A/B from the stems of one take to another that has none."""
    page.one("#search").send_keys("northern")
    page.run("document.activeElement.blur()")
    page.press("j", "l")
    page.until(lambda: page.all(".stem-play"))[0].click()
    page.until(lambda: [one for one in page.playing() if one["track"].endswith(" stems")])
    page.press("a")
    page.until(lambda: page.playing() and not page.sounds()["track"].endswith(" stems"))


def test_lyrics_follow_and_seek(page: Page) -> None:
    """The line that is sung is marked; a click on a line plays it."""
    page.press("j", "l")
    lines = page.until(lambda: page.all(".take:first-child .lyrics .line"))
    assert [line.text for line in lines][:2] == ["[Verse]", "Rain on the window"]
    lines[-1].click()
    assert page.sounds()["at"] > SECONDS / 3
    page.until(lambda: lines[-1].get_attribute("aria-current") == "true")
    lines[1].click()
    page.until(lambda: lines[1].get_attribute("aria-current") == "true")
    assert lines[-1].get_attribute("aria-current") is None


def test_search_filters_order_and_keys(page: Page) -> None:
    """Words of title, tags, model and prompt; models, picks, lengths; and j, k, space, digits and `?`."""
    assert len(page.titles()) == 12
    assert "Rain on the window" in page.one(".song .from").text
    assert not page.one("#clear").is_displayed()
    page.press("/")
    page.press("northern")
    assert page.titles() == ["Northern line"]
    page.one("#search").clear()
    page.one("#search").send_keys("SYNTH sonic-v5")
    assert len(page.titles()) == 6
    page.one("#clear").click()
    page.one("#length-from").send_keys("1:00")
    assert page.titles() == []
    assert page.one("#none").is_displayed()
    page.one("#clear").click()
    page.choose("sort", "title")
    assert page.titles() == sorted(page.titles(), key=str.casefold)
    page.choose("sort", "row")
    page.press("jj3f")
    page.choose("choice", "keep")
    assert page.titles() == ["Rain"]
    page.one("#clear").click()
    page.run("document.activeElement.blur()")
    page.press("k", " ")
    first = page.sounds()
    page.press("j")
    page.until(lambda: page.sounds()["track"] != first["track"])
    before = page.sounds()["at"]
    page.press(Keys.ARROW_RIGHT)
    page.until(lambda: page.sounds()["at"] > before + 4)
    page.press(" ")
    page.until(lambda: not page.playing())
    page.all(".take .drop")[2].click()
    page.press(" ")  # the player again, not the button that was clicked
    page.sounds()
    page.press(" ")
    assert page.one("#picked").text == "1 to keep, 1 to drop, 1 rated"
    stars = page.all(".take .stars")[3]
    page.run("arguments[0].focus()", stars)
    page.press("4")  # of the take whose stars have the focus
    assert stars.get_attribute("aria-valuetext") == "4 stars"
    page.run("document.activeElement.blur()")
    page.press("?")
    assert page.one("#help").is_displayed()
    page.press(Keys.ESCAPE)
    assert not page.one("#help").is_displayed()


def test_picks_survive_a_reload_and_are_copied(
    page: Page, folder: Path, downloads: Path, tmp_path: Path
) -> None:
    """Stars and choices are stored, exported in three forms, and the takes to keep are copied."""
    page.press("j5f", "j2d", "jf", "j4")
    page.driver.refresh()
    page.until(lambda: page.one("#picked").text == "2 to keep, 1 to drop, 3 rated")
    page.press("e")  # as #json does, which is far from the last take by Tab
    top = "return document.getElementById('says').getBoundingClientRect().top"
    page.run("scrollTo(0, document.body.scrollHeight)")
    page.until(lambda: page.one("#says").is_displayed() and page.run(top) >= 0)
    for name in ("csv", "m3u"):
        page.one(f"#{name}").click()
    paths = [downloads / name for name in ("picks.json", "picks.csv", "picks.m3u8")]
    page.until(lambda: all(path.is_file() for path in paths))
    assert "musicapi batch keep" in page.one("#says").text
    picks = json.loads(paths[0].read_text())["picks"]
    assert [(one["row"], one["take"], one["stars"], one["choice"]) for one in picks] == [
        (1, 1, 5, "keep"), (1, 2, 2, "drop"), (2, 1, 0, "keep"), (2, 2, 4, "")
    ]  # fmt: skip
    table = list(csv.DictReader(paths[1].read_text().splitlines()))
    assert [row["clip_id"] for row in table] == [one["clip_id"] for one in picks]
    listed = [line for line in paths[2].read_text().splitlines() if not line.startswith("#")]
    chosen = [folder / one["file"] for one in picks if one["choice"] == "keep"]
    assert listed == [path.as_uri() for path in chosen]
    copies = copy_picks(folder, paths[0], tmp_path / "chosen")
    assert [copy.read_bytes() for copy in copies] == [path.read_bytes() for path in chosen]
    page.run("localStorage.clear(); location.reload()")
    page.until(lambda: page.one("#picked").text.startswith("0 to keep"))
    page.one("#import").send_keys(str(paths[0]))
    page.until(lambda: page.one("#picked").text == "2 to keep, 1 to drop, 3 rated")


def test_failures_are_on_top_with_their_command(page: Page, folder: Path) -> None:
    """The step that failed, its reason, its song, and the command; the link leads to the song."""
    problems = page.one(".problems")
    assert "Step stems_basic failed: generation failed" in problems.text
    assert (
        f"musicapi batch run 'my songs.jsonl' --out '{folder}' --budget 9000 --retry-failed" in problems.text
    )
    problems.find_element(By.CSS_SELECTOR, "a").click()
    page.until(lambda: page.run("return document.getElementById('song-2').getBoundingClientRect().top < 40"))


def test_timeline_has_an_axis_and_totals(page: Page) -> None:
    """It is folded away, and drawn when it is opened."""
    assert not page.all("#timeline *")
    page.run("document.getElementById('course').open = true")
    page.until(lambda: page.all("#timeline svg rect"))
    assert [row.text.split()[0] for row in page.all("#timeline tbody tr")] == [
        "waiting",
        "generating",
        "steps",
    ]
    assert len(page.all("#timeline svg text.soft")) >= 12 + 2


def test_markup_in_titles_is_text(page: Page) -> None:
    """A title that would end the data or load a picture is displayed as it is."""
    assert page.titles()[2] == HOSTILE[:80]
    assert page.driver.title == "My album"


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out(chromium: webdriver.Chrome, folder: Path, width: int) -> None:
    """No sideways scrolling, with all details open and the player in view."""
    page = Page(chromium, folder / "report.html", width)
    page.run("for (const one of document.querySelectorAll('details')) one.open = true")
    page.play(0)
    page.sounds()
    assert page.run("return document.documentElement.scrollWidth") <= width
    edges = "const box = document.querySelector('.player').getBoundingClientRect(); return [box.left, box.right, box.bottom]"
    left, right, bottom = page.run(edges)
    assert (left, bottom) == (0, pytest.approx(900, abs=1))
    assert right <= width


def test_page_of_a_run_loads_itself_unless_it_plays(page: Page, folder: Path) -> None:
    """As long as the batch runs; what plays is not cut off, and the view is as it was."""
    running = folder / "running.html"
    text = (folder / "report.html").read_text("utf-8")
    assert text.count('"running":false') == 1
    running.write_text(
        text.replace('"running":false', '"running":true').replace('"renewed":', '"renewed":1,"was":')
    )
    # The test decides when the time of a reload has come: on a busy machine it would come between any two commands.
    keep = "window.setInterval = (reload, pause) => Object.assign(window, { reload, pause })"
    page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": keep})
    live = Page(page.driver, running)
    assert live.run("return window.pause") == 1000

    def reloads() -> str:
        return live.run(
            "window.mark = 1; window.reload(); return document.getElementById('live').textContent"
        )

    assert "this page follows it" in reloads()
    live.until(lambda: live.run("return !window.mark && document.readyState === 'complete'"))
    live.one("#search").send_keys("tram")
    assert "when nothing plays" in reloads()  # nor while someone types
    live.run("document.activeElement.blur()")
    reloads()
    live.until(lambda: live.run("return !window.mark && document.readyState === 'complete'"))
    assert live.titles() == ["Tram"]
    live.play(0)
    live.sounds()
    assert "when nothing plays" in reloads()
    live.sounds()
    assert live.run("return window.mark") == 1


def test_file_that_is_gone_is_named(page: Page, folder: Path, tmp_path: Path) -> None:
    """A page that was sent alone says what is missing; one with everything in it plays."""
    alone = tmp_path / "report.html"
    shutil.copy(folder / "report.html", alone)
    sent = Page(page.driver, alone)
    sent.play(0)
    sent.until(lambda: "it is not beside this page" in sent.one(".player .problem").text)
    assert ".mp3" in sent.one(".player .problem").text


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, from the npm registry."""
    place = tmp_path_factory.mktemp("axe")
    packed = subprocess.run(
        ["npm", "pack", AXE, "--silent"], cwd=place, capture_output=True, text=True, timeout=120, check=False
    )
    if packed.returncode and not os.environ.get("CI"):
        pytest.skip(f"the npm registry cannot be reached: {packed.stderr[-200:]}")
    assert packed.returncode == 0, packed.stderr
    shutil.unpack_archive(place / packed.stdout.strip(), place, filter="data")
    return (place / "package" / "axe.min.js").read_text("utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Page, axe: str, scheme: str) -> None:
    """Names, roles, contrast, and focus, with details open and the player in view."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    page.press("j", "l", "3f", " ")
    page.sounds()
    page.run("document.getElementById('course').open = true; document.querySelector('.about').open = true")
    page.until(lambda: page.all("#timeline svg rect"))
    page.run(axe)
    found = page.driver.execute_async_script(
        "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then((found) => "
        "done(found.violations.map((one) => [one.impact, one.id, one.nodes.slice(0, 3).map((node) => node.html)])))"
    )
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert [one for one in found if one[0] in ("serious", "critical", "moderate")] == []


def test_nothing_was_requested_and_the_console_is_empty(browser: webdriver.Chrome, page: Page) -> None:
    """Of this test and all above: files beside the page, and no error but for the file that was gone."""
    page.play(0)
    page.sounds()
    requested = {
        message["params"]["request"]["url"].partition(":")[0]
        for entry in browser.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"] == "Network.requestWillBeSent"
        and message["params"]["documentURL"].startswith("file:")
    }
    assert requested <= {"file", "data", "blob", "about"}
    assert "file" in requested
    errors = [entry["message"] for entry in browser.get_log("browser")]
    assert [message for message in errors if "ERR_FILE_NOT_FOUND" not in message] == []
