"""A real browser for tests of pages, headless: Debian's chromium, driven by selenium."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from selenium import webdriver

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--mute-audio", "--disable-extensions", "--force-prefers-reduced-motion",
    "--process-per-site", "--disable-features=SpareRendererForSitePerProcess",
)  # fmt: skip


def _installed(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    assert found, f"the browser tests need one of {names}: apt-get install chromium chromium-driver"
    return found


def start_browser(folder: Path, *, downloads: Path | None = None) -> webdriver.Chrome:
    """Start a browser with its profile in a folder; what pages offer is downloaded into another one.

    Its logs are those of the console and, of all that a page requests, of the network.
    """
    options = webdriver.ChromeOptions()
    options.binary_location = _installed("chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if downloads is not None:
        preferences = {"download.default_directory": str(downloads), "download.prompt_for_download": False}
        options.add_experimental_option("prefs", preferences)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(_installed("chromedriver")))


def set_width(driver: webdriver.Chrome, width: int, height: int = 900) -> None:
    """Give the page of the current tab a size in pixels; a narrow one is a phone's."""
    metrics: dict[str, Any] = {
        "width": width,
        "height": height,
        "deviceScaleFactor": 1,
        "mobile": width < 600,
    }
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
