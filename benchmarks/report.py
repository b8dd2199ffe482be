"""What all benchmarks share: the machine, the versions, and Markdown and JSON with the figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("aiohttp", "anyio", "backoff", "msgspec", "uvloop")


class Report:
    """Collects sections of a benchmark and writes them as `<name>.md` and `<name>.json`."""

    def __init__(self, name: str, what: str, packages: Sequence[str] = ()) -> None:
        self.name = name
        self.begun = time.perf_counter()
        known = environment(packages)
        self.lines = [f"# {name}", "", what, "", f"`python benchmarks/{name}.py`; {in_one_line(known)}.", ""]
        self.data: dict[str, Any] = {"name": name, "environment": known, "tables": [], "targets": []}

    def text(self, *lines: str) -> None:
        """Add a paragraph."""
        self.lines += [*lines, ""]

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add a table; the first column is text, the others are figures."""
        self.lines += [f"## {title}", "", "| " + " | ".join(head) + " |"]
        self.lines += ["| --- " + "| ---: " * (len(head) - 1) + "|"]
        self.lines += ["| " + " | ".join(figure(cell) for cell in row) + " |" for row in rows]
        self.lines += [""]
        self.data["tables"].append(
            {"title": title, "rows": [dict(zip(head, row, strict=True)) for row in rows]}
        )

    def target(self, what: str, measured: float, bound: float, *, at_least: bool = False) -> None:
        """State a target and whether it is met."""
        met = measured >= bound if at_least else measured <= bound
        self.data["targets"].append({"what": what, "measured": measured, "bound": bound, "met": met})

    def targets_met(self) -> bool:
        """Whether every stated target is met."""
        return all(target["met"] for target in self.data["targets"])

    def write(self, out: Path) -> None:
        """Write both files, print the Markdown."""
        if self.data["targets"]:
            self.lines += [
                "## Targets",
                "",
                "| target | bound | measured | met |",
                "| --- | ---: | ---: | --- |",
            ]
            for target in self.data["targets"]:
                self.lines.append(
                    f"| {target['what']} | {figure(target['bound'])} | {figure(target['measured'])} "
                    f"| {'yes' if target['met'] else '**no**'} |"
                )
            self.lines.append("")
        self.data["seconds"] = round(time.perf_counter() - self.begun, 2)
        self.lines.append(f"Took {self.data['seconds']:.1f} s.")
        out.mkdir(parents=True, exist_ok=True)
        markdown = "\n".join(self.lines) + "\n"
        (out / f"{self.name}.md").write_text(markdown, encoding="utf-8")
        (out / f"{self.name}.json").write_text(json.dumps(self.data, indent=2) + "\n", encoding="utf-8")
        sys.stdout.write(markdown)


def figure(value: Any) -> str:
    """A table cell: three significant digits, more before the point."""
    if not isinstance(value, float):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def environment(packages: Sequence[str] = ()) -> dict[str, Any]:
    """The machine and the versions that figures depend on; `packages` are more than the usual ones."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "packages": {name: found for name in (*PACKAGES, *packages) if (found := installed(name))},
    }


def in_one_line(found: dict[str, Any]) -> str:
    """An environment as text."""
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items())
    return (
        f"{found['implementation']} {found['python']}, {found['system']}, {found['cores']} cores, {packages}"
    )


def installed(name: str) -> str | None:
    """The installed version of a package, if there is one."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def arguments(what: str) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the report")
    parser.add_argument("--seed", type=int, default=1, help="of the random durations and failures")
    return parser
