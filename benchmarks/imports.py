"""What importing costs: the package and its command against its four dependencies.

Each is timed in fresh processes, in turns; medians. The time is CPU time of the whole process less that of a
bare interpreter, so that neither the disk nor other programs count.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

from report import Report, arguments

ROUNDS = 15
BARE = "nothing"
FOUR = "its four dependencies"
PACKAGE = "musicapi_async"
OPENED = "musicapi_async and what the first call opens"
HELP = "musicapi --help"
PROGRAMS = {
    BARE: ["-c", "pass"],
    FOUR: ["-c", "import aiohttp, msgspec, anyio, backoff"],
    "aiohttp alone": ["-c", "import aiohttp"],
    PACKAGE: ["-c", "import musicapi_async"],
    OPENED: ["-c", "import musicapi_async, musicapi_async._transport.session"],
    HELP: ["-c", "from musicapi_async.cli import main; main()", "--help"],
}


def seconds(program: list[str]) -> float:
    """CPU time of one process, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *program], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


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
    report.target("import musicapi_async against its dependencies", own[PACKAGE] / own[FOUR], 0.5)
    report.target("musicapi --help against its dependencies", own[HELP] / own[FOUR], 1.0)
    report.write(options.out)


if __name__ == "__main__":
    main()
