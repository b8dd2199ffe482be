"""Every fault against every call: requests, texts, jobs, pickles and secrets, counted at a hostile server.

Each cell is one fault of `fault_cases` against one call. A raw server of its own on loopback plays the fault
and counts what arrives; a client on an accelerated clock, with a SQLite store and a job key, makes the call,
and a second client uses the same job key again, with the fault gone. `fault_oracle`, written from the
service's rules and not from the package, says what may be concluded. A cell fails if a paid call that may
have been carried out was sent again, if a text says without proof that nothing was charged, if the job
disagrees with the error, if an error does not pickle and come back equal, if a secret is in a text, log,
pickle or file, or if anything but a `MusicAPIError` escapes.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from fault_cases import FAULTS
from fault_cells import Run, cells
from fault_checks import FOREIGN, KINDS, Cell, Notebook, check_secrets, current, shows_secret, unattributed
from report import Report, arguments

TOGETHER = 24
"""Cells at once in a process: most of them wait."""
CELL_LIMIT = 60.0
"""Real seconds after which a cell counts as hanging."""


async def run_cell(name: str, run: Run, folder: Path, places: asyncio.Semaphore) -> Cell:
    """One cell, in its own folder and with its own notebook."""
    cell = Cell(name)
    async with places:
        current.set(cell)
        try:
            async with asyncio.timeout(CELL_LIMIT):
                with tempfile.TemporaryDirectory(dir=folder) as own:
                    await run(cell, Path(own))
        except TimeoutError:
            cell.fails(FOREIGN, f"hangs: not done after {CELL_LIMIT:g} s")
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            cell.fails(
                FOREIGN, f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"
            )
        check_secrets(cell, "the log", "\n".join(cell.log))
    return cell


async def run_all(chosen: Mapping[str, Run], folder: Path) -> list[Cell]:
    """All of these cells, many at once."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, told: unattributed.append(f"in the loop: {told}"))
    places = asyncio.Semaphore(TOGETHER)
    return list(await asyncio.gather(*(run_cell(name, run, folder, places) for name, run in chosen.items())))


def run_share(share: tuple[str, Sequence[str]]) -> tuple[list[tuple[str, list[tuple[str, str]]]], list[str]]:
    """A share of the cells, in a process of its own."""
    folder, wanted = share
    warnings.simplefilter("ignore", DeprecationWarning)
    logging.basicConfig(level=logging.DEBUG, handlers=[Notebook()], force=True)
    known = cells()
    done = asyncio.run(run_all({name: known[name] for name in wanted}, Path(folder)))
    shown = [line for line in unattributed if shows_secret(line)]
    loop = [line for line in unattributed if line.startswith("in the loop")]
    return [(cell.name, cell.faults) for cell in done], [*shown, *loop]


def main() -> int:
    """Run, print, and tell by the exit code."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", default="", help="cells whose name holds this")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    chosen = [name for name in cells() if options.only in name]
    report = Report("fault_matrix", (__doc__ or "").strip())
    with tempfile.TemporaryDirectory() as folder:
        shares = [(folder, chosen[n :: options.workers]) for n in range(options.workers)]
        with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
            done = pool.map(run_share, shares)
    known = {name: faults for results, _ in done for name, faults in results}
    found = {name: known[name] for name in chosen}
    stray = [line for _, lines in done for line in lines]
    return tell(report, found, stray, options.out)


def tell(
    report: Report, found: Mapping[str, Sequence[tuple[str, str]]], stray: Sequence[str], out: Path
) -> int:
    """The table, the failing cells by name, the exit code."""
    rows: dict[str, Counter[str]] = {}
    for name, faults in found.items():
        row = rows.setdefault(name.partition(" × ")[0], Counter())
        row["cells"] += 1
        row.update({kind for kind, _ in faults})
    total: Counter[str] = sum(rows.values(), Counter())
    table = [(name, *(row[column] for column in ("cells", *KINDS))) for name, row in rows.items()]
    table.append(("all", *(total[column] for column in ("cells", *KINDS))))
    failing = {name: faults for name, faults in found.items() if faults}
    report.text(f"{len(found):,} cells of {len(FAULTS)} faults; {len(failing):,} cells fail.")
    report.table("Cells, and in how many of them what failed", ("call", "cells", *KINDS), table)
    for kind in KINDS:
        report.target(kind, total[kind], 0)
    report.target("errors that reached the event loop, and secrets in logs of no cell", len(stray), 0)
    report.data["failing"] = {name: list(faults) for name, faults in failing.items()}
    groups: dict[tuple[str, str], list[str]] = {}
    for name, faults in failing.items():
        for kind, why in faults:
            same = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1", why)
            groups.setdefault((kind, same), []).append(name)
    if failing or stray:
        report.text("## Failing cells, by what failed")
        order = sorted(groups.items(), key=lambda group: (KINDS.index(group[0][0]), -len(group[1])))
        for (kind, why), named in order:
            report.text(f"- {kind}: {why} ({len(named)} cells)", *(f"    - {name}" for name in named))
        report.text(*(f"- stray: {line[:200]}" for line in stray))
    report.write(out)
    return 0 if report.targets_met() else 1


if __name__ == "__main__":
    sys.exit(main())
