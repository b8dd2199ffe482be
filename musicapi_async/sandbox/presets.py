"""Presets: choices that belong together, under the name of the clients that they are for.

| preset | the sandbox behaves so that |
| --- | --- |
| `vendor-samples` | the published samples, which return on the first HTTP 200, end with playable clips |
| `vendor-sdk` | the vendor's SDK, written from its machine-readable contract, can read every reply |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from ..api.suggestions import did_you_mean
from .declared_settings import WrongSetting, changed
from .reply_choices import Choices, Durations


class Preset(NamedTuple):
    """The changes of a preset, and for whom they are."""

    help: str
    choices: Mapping[str, object]
    durations: Mapping[str, object] = {}


PRESETS: Final[Mapping[str, Preset]] = {
    "vendor-samples": Preset(
        "The service's published samples return on the first HTTP 200: clips are hidden until all are "
        "finished, and a failed task has a status of its own.",
        {"running": "hidden", "not_ready": "202", "failure": "failed-500", "unknown_task": "404"},
    ),
    "vendor-sdk": Preset(
        "The service as its machine-readable contract describes it; what the vendor's SDK cannot read as "
        "unfinished (midi, lyrics) is finished at once.",
        {
            "running": "hidden",
            "duration": "number",
            "unknown_task": "404",
            "producer_seed": "number",
            "studio_code": "200",
            "studio_tags": "text",
        },
        {"midi": 0.0, "lyrics_task": 0.0, "alignment": 0.0},
    ),
}
"""The presets by name: `Sandbox(like=...)`, `musicapi sandbox --like`, `POST /_sandbox/preset`."""


def preset(name: str) -> tuple[Choices, Durations]:
    """Return the choices and durations of a preset. Raises `WrongSetting` for an unknown name."""
    found = PRESETS.get(name)
    if found is None:
        raise WrongSetting(f"like must be one of {', '.join(PRESETS)}{did_you_mean(name, PRESETS)}")
    return changed(Choices(), found.choices), changed(Durations(), found.durations)
