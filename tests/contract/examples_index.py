"""The example bodies of the API's contract, and what must be made of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "examples"

STATUSES: dict[str, tuple[int, ...]] = {
    "non-2xx (500 assumed)": (400, 403, 500, 503),
    "unknown (200 or 400)": (200, 400),
    "unknown (200 or 202)": (200, 202),
    "unknown (503 assumed)": (503,),
    "unknown": (200, 500),
}
"""Statuses to try where the index says that the real one is not known."""


class Example(NamedTuple):
    """One body of the contract, with one endpoint and one status that it goes with."""

    name: str
    kind: str
    method: str
    path: str
    status: int
    outcome: str
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    def __str__(self) -> str:
        return f"{self.name}-{self.status}-{self.path.strip('/').replace('/', '.')}"


def _read() -> list[Example]:
    found: list[Example] = []
    for entry in json.loads((FOLDER / "INDEX.json").read_bytes()):
        raw = (FOLDER / entry["file"]).read_bytes()
        note = entry["http_note"]
        statuses = STATUSES[note] if note else (entry["http_status"] or 0,)
        for endpoint in entry["endpoint"].split(", "):
            method, _, path = endpoint.partition(" ")
            for status in statuses:
                name = entry["file"].removesuffix(".json")
                found.append(Example(name, entry["kind"], method, path, status, entry["outcome"] or "", raw))
    return found


EXAMPLES = _read()
RESPONSES = [example for example in EXAMPLES if example.kind == "response"]
REQUESTS = [example for example in EXAMPLES if example.kind == "request"]
WEBHOOKS = [example for example in EXAMPLES if example.kind == "webhook"]
