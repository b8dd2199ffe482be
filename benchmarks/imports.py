"""What importing costs: the package and its command against its four dependencies, a first call, the plugin.

Each is timed in fresh processes, in turns; medians. The time is CPU time of the whole process less that of a
bare interpreter, so that neither the disk nor other programs count. The first call after a client was entered
is seen as others in its event loop see it: the gap is the longest time between two turns of the loop, on the
wall, as is the import of aiohttp beside it. The plugin is timed in runs of pytest with one empty test and no
other plugin, each beside a run without it.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from report import Report, arguments

ROUNDS = 15
BARE = "nothing"
FOUR = "its four dependencies"
PACKAGE = "musicapi_async"
CLIENT = "musicapi_async and its client"
OPENED = "musicapi_async and what the first call opens"
HELP = "musicapi --help"
PROGRAMS = {
    BARE: ["-c", "pass"],
    FOUR: ["-c", "import aiohttp, msgspec, anyio, backoff"],
    "aiohttp alone": ["-c", "import aiohttp"],
    PACKAGE: ["-c", "import musicapi_async"],
    CLIENT: ["-c", "from musicapi_async import MusicAPI"],
    OPENED: ["-c", "from musicapi_async import MusicAPI; import musicapi_async._transport.session"],
    HELP: ["-c", "from musicapi_async.cli import main; main()", "--help"],
}
AIOHTTP = ["-c", "import time; t = time.perf_counter(); import aiohttp; print(time.perf_counter() - t)"]
FIRST_CALL = str(Path(__file__).parent / "first_call.py")
FIRST_CALLS = [(call, by) for by in ("client", "fastapi") for call in ("credits", "create", "wait")]
PLUGIN = ["-p", "musicapi_async.testing.plugin"]


def run(program: list[str], **more: str) -> str:
    """What one process prints; bytecode is written, as where a package was installed."""
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, *program], check=True, stdout=subprocess.PIPE, text=True, env={**compiled, **more}
    )
    return done.stdout


def seconds(program: list[str], **more: str) -> float:
    """CPU time of one process, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(program, **more)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_calls(rounds: int) -> tuple[float, list[tuple[str, float, float]]]:
    """Seconds that aiohttp takes to import, and of each first call its gap and what entering took."""
    importing: list[float] = []
    taken: dict[tuple[str, str], list[tuple[float, ...]]] = {one: [] for one in FIRST_CALLS}
    for _ in range(rounds):
        importing.append(float(run(AIOHTTP)))
        for call, by in FIRST_CALLS:
            taken[call, by].append(tuple(map(float, run([FIRST_CALL, call, by]).split())))
    return statistics.median(importing), [
        (
            call if by == "client" else f"{call}, with the lifespan of {by}",
            *map(statistics.median, zip(*pairs, strict=True)),
        )
        for (call, by), pairs in taken.items()
    ]


def plugin(rounds: int) -> tuple[float, float, float]:
    """CPU seconds of an empty run of pytest without the plugin and with it, and the median of the ratios."""
    pairs: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_nothing.py").write_text("def test_nothing():\n    pass\n", encoding="utf-8")
        pytest = [
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-c",
            os.devnull,
            "--rootdir",
            folder,
            folder,
        ]
        for number in range(rounds + 1):
            both = [pytest, [*pytest, *PLUGIN]]
            order = (0, 1) if number % 2 else (1, 0)  # what runs second finds a warmer machine
            took = {which: seconds(both[which], PYTEST_DISABLE_PLUGIN_AUTOLOAD="1") for which in order}
            pairs.append((took[0], took[1]))
    del pairs[0]  # it compiled what was not compiled yet
    without, beside = (statistics.median(column) for column in zip(*pairs, strict=True))
    return without, beside, statistics.median(two / one for one, two in pairs)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    report = Report("imports", (__doc__ or "").strip(), ("click", "rich"))
    for program in PROGRAMS.values():
        seconds(program)  # compiles what is not compiled yet
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(options.rounds):
        for name, program in PROGRAMS.items():
            times[name].append(seconds(program))
    middle = {name: statistics.median(found) for name, found in times.items()}
    own = {name: middle[name] - middle[BARE] for name in PROGRAMS if name != BARE}
    report.table(
        f"Medians of {options.rounds} processes; a bare interpreter takes {middle[BARE] * 1e3:.0f} ms",
        ("import", "ms", "against its four dependencies"),
        [(name, found * 1e3, found / own[FOUR]) for name, found in own.items()],
    )
    importing, calls = first_calls(options.rounds)
    report.table(
        f"The first call after entering; importing aiohttp takes {importing * 1e3:.0f} ms",
        ("call", "gap ms", "against importing aiohttp", "entering ms"),
        [(name, gap * 1e3, gap / importing, entering * 1e3) for name, gap, entering in calls],
    )
    without, beside, ratio = plugin(2 * options.rounds)
    report.table(
        f"An empty run of pytest, {2 * options.rounds} times",
        ("run", "ms"),
        [("without the plugin", without * 1e3), ("with it", beside * 1e3)],
    )
    report.target("import musicapi_async against its dependencies", own[PACKAGE] / own[FOUR], 0.05)
    report.target("its client against its dependencies", own[CLIENT] / own[FOUR], 0.5)
    report.target("musicapi --help against its dependencies", own[HELP] / own[FOUR], 1.0)
    report.target(
        "largest gap of a first call against importing aiohttp",
        max(gap for _, gap, _ in calls) / importing,
        0.1,
    )
    report.target("an empty run of pytest with the plugin against one without", ratio, 1.05)
    report.write(options.out)


if __name__ == "__main__":
    main()
