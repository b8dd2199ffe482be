"""Settings shared by all tests."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

# A shell starts what it puts into the background with Ctrl-C ignored, and children inherit that; the tests that
# press Ctrl-C in a process need it to be heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# On a shared machine a slow example proves nothing, so no example is timed. In CI the examples are the same
# in every run; elsewhere each run looks in new places.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", UNTIMED)
settings.register_profile("ci", UNTIMED, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

BROWSER = shutil.which("chromedriver") is not None and any(
    shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")
)
# CI installs a browser. Where there is none, the page of the example service is left out, and the header says so.
collect_ignore = [] if BROWSER or os.environ.get("CI") else ["examples/test_service_page.py"]


def pytest_report_header() -> str:
    """Say what this machine cannot test."""
    return (
        "" if not collect_ignore else "no browser: the page of the example service is not tested (chromium)"
    )


THOROUGH: Final = {
    # kills and full disks
    "test_batch_kill",
    "test_step_kill",
    "test_disk_faults",
    "test_written_down",
    # a browser, and commands as processes
    "test_service_page",
    "test_service_process",
    "test_cli_demo",
    "test_cli_lost_output",
    "test_cli_processes",
    # many random cases of pure rules
    "test_mutations",
    "test_job_machine",
    "test_waiter_machine",
    # other clients, and audio
    "test_contract_by_hand",
    "test_vendor_sdk",
    "test_render",
    "test_sandbox_music",
    "test_sandbox_works",
    "test_scores",
    # texts, which are the same for each Python
    "test_guides",
    "test_public_api",
    "test_readme",
    "test_reference",
    "test_words",
}
"""Files whose tests are marked `thorough`: they take long, or cannot differ between Pythons."""
_FILES = {path.stem for path in Path(__file__).parent.rglob("test_*.py")}
assert _FILES >= THOROUGH, f"THOROUGH names files that are not there: {sorted(THOROUGH - _FILES)}"

# The tests of these rooms wait for other processes most of the time, so they begin first, the longest before all.
PATIENT = ("examples", "workflows", "contrib", "cli", "docs")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Spread the whole suite over the cores, and two more, as half of its time is waiting; a part runs here."""
    return (os.cpu_count() or 2) + 2 if config.args_source is not config.ArgsSource.ARGS else 0


class OneBrowser(LoadScopeScheduling):
    """A scheduler that gives each test to a free worker, but the browser's tests to one, which starts it once.

    The marks of xdist's own `loadgroup` would do the same, were they not without effect since pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file.endswith("test_service_page.py") else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneBrowser:
    """Choose which worker runs which test."""
    return OneBrowser(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the thorough tests, and start with those that take longest, so that none is left alone at the end."""
    for item in items:
        if item.path.stem in THOROUGH:
            item.add_marker(pytest.mark.thorough)
    order = {room: place for place, room in enumerate(PATIENT)}
    items.sort(key=lambda item: order.get(item.path.parent.name, len(PATIENT)))


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, which is what aiohttp needs."""
    return "asyncio"
