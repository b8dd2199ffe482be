"""Settings shared by all tests."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from postgres_server import find_programs
from xdist.scheduler import LoadScopeScheduling

from musicapi_async.testing.virtual import VirtualTimeLoop

# A shell starts what it puts into the background with Ctrl-C ignored, and children inherit that; the tests that
# press Ctrl-C in a process need it to be heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A third of the time would go into compiling: each worker, and each process that a test starts, the same modules.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# No garbage arises while the modules of the tests are imported, and none of what they hold ever becomes garbage:
# a tenth of the whole time went into searching it.
gc.disable()

# On a shared machine a slow example proves nothing, so no example is timed. In CI the examples are the same
# in every run; elsewhere each run looks in new places, and two runs look in as many as one in CI.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", UNTIMED, max_examples=50)
settings.register_profile("ci", UNTIMED, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

BROWSER = shutil.which("chromedriver") is not None and any(
    shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")
)
NODE = shutil.which("node") is not None
# CI installs a browser and Node. What needs one that is not there is left out, and the header says so.
_NEEDS = {
    "examples/test_service_page.py": BROWSER,
    "workflows/test_report_page.py": BROWSER,
    "sandbox/test_control_page.py": BROWSER,
    "interop/test_node_fetch.py": NODE,
}
collect_ignore = [file for file, there in _NEEDS.items() if not (there or os.environ.get("CI"))]


def pytest_report_header() -> list[str]:
    """Say what this machine cannot test."""
    lacking = []
    if not BROWSER:
        lacking.append(
            "no browser: the pages of batches, example service and sandbox are not tested (chromium)"
        )
    elif shutil.which("npm") is None:
        lacking.append("no npm: the page of a batch is not tested with axe-core")
    if not NODE:
        lacking.append("no Node: the sandbox is not tested with plain fetch (nodejs, 18 or later)")
    if find_programs() is None:
        lacking.append("no PostgreSQL server, 15 or later: PostgresStore is not tested (postgresql)")
    return lacking


THOROUGH: Final = {
    # kills and full disks
    "test_batch_kill",
    "test_step_kill",
    "test_disk_faults",
    "test_written_down",
    "test_state_kill",
    # a browser, and commands as processes
    "test_report_page",
    "test_service_page",
    "test_service_process",
    "test_cli_demo",
    "test_cli_lost_output",
    "test_cli_processes",
    "test_cli_terminal",
    "test_mcp_processes",
    # many random cases of pure rules
    "test_mutations",
    "test_job_machine",
    # a database server
    "test_postgres",
    "test_postgres_faults",
    "test_batch_workers",
    "test_postgres_workers",
    "test_waiter_machine",
    # whole batches, whose parts have tests of their own, and many tasks
    "test_batch_truth",
    "test_budget",
    "test_cli_batch",
    "test_report",
    "test_sandbox_memory",
    # a Jupyter kernel
    "test_notebook",
    # other clients, and audio
    "test_contract_by_hand",
    "test_vendor_sdk",
    "test_from_outside",
    "test_node_fetch",
    "test_control_page",
    "test_streams_and_dates",
    "test_render",
    "test_sandbox_music",
    "test_ordered_tasks",
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
FIRST: Final = (
    "test_postgres_workers.py",
    "test_service_page.py",
    "test_batch_workers.py",
    "test_postgres.py",
)
"""One worker is busy with each for a minute or more, as its tests share a server and live in real time."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Spread the whole suite over the cores, and four more, as half of its time is waiting; a part runs here."""
    return (os.cpu_count() or 2) + 4 if config.args_source is not config.ArgsSource.ARGS else 0


def pytest_configure(config: pytest.Config) -> None:
    """Let each worker collect from another room on: what one has compiled, the others need not."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and config.args == ["tests"]:
        rooms = sorted({str(path.parent) for path in Path(__file__).parent.glob("*/test_*.py")})
        start = int(worker.removeprefix("gw")) * len(rooms) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        config.args = rooms[start:] + rooms[:start]


SHARED: Final = (
    *FIRST,
    "test_report_page.py",
    "test_guides.py",
    "test_reference.py",
    "test_words.py",
)
"""Files whose tests share what is expensive to make: a server, a browser, the API reference, a parsed package."""

ON_POSTGRES: Final = "[postgres"
"""What the id of a test has that runs on each kind of store, and here on PostgreSQL; all share one server."""


class SharedOnce(LoadScopeScheduling):
    """A scheduler that gives each test to a free worker, but those of a file in `SHARED` or on PostgreSQL to one.

    The marks of xdist's own `loadgroup` would do the same, were they not without effect since pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return ON_POSTGRES if ON_POSTGRES in nodeid else file if file.endswith(SHARED) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharedOnce:
    """Choose which worker runs which test."""
    return SharedOnce(config, log)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the thorough tests."""
    if item.path.stem in THOROUGH:
        item.add_marker(pytest.mark.thorough)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the tests that take longest, so that none is left alone at the end.

    The order is the same in each worker, wherever it began to collect.
    """
    order = {room: place for place, room in enumerate(PATIENT)}
    items.sort(
        key=lambda item: (
            item.path.name not in FIRST and ON_POSTGRES not in item.name,
            order.get(item.path.parent.name, len(PATIENT)),
            item.path,
        )
    )


def pytest_collection_finish() -> None:
    """Leave what the tests consist of out of every search for garbage."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> str | tuple[str, dict[str, Any]]:
    """Async tests run on asyncio, which is what aiohttp needs; a file may choose its own loop.

    Where no other process takes part, which would live in real time, nothing waits: time passes while all wait.
    """
    if request.path.parent.name in PATIENT:
        return "asyncio"
    return "asyncio", {"loop_factory": VirtualTimeLoop}


def _refuse_children_of_virtual_time(event: str, args: tuple[object, ...]) -> None:
    """Fail a test that starts a process on a loop whose minutes may pass before the process has answered.

    A limit of 60 s ran out in such a test after 3 s of real time, but only on a busy machine. A process that a
    worker thread starts and waits for is in order, because no time passes while the thread is at work.
    """
    if event == "subprocess.Popen" and isinstance(asyncio._get_running_loop(), VirtualTimeLoop):
        pytest.fail(
            "this test starts a process, so it needs a loop in real time: return 'asyncio' in anyio_backend"
        )


sys.addaudithook(_refuse_children_of_virtual_time)
