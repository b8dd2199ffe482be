"""The replies of the sandbox where the service's documentation leaves a choice: each can be switched.

The defaults were observed live or, where nothing was observed, are documented. Every other word of a row is a
form that is documented or was observed, too, so a client that works under all of them will not be surprised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NamedTuple

from msgspec import Meta

from ..api.suggestions import did_you_mean
from .declared_settings import WrongSetting, changed, check

DAY: Final = 86_400.0
"""Seconds; sources of personas, remaster and add_* are to be at most this old (vendor's page on personas)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """The behaviour of the sandbox where several forms are known, or where it is undocumented.

    "Observed" is the behaviour in a live run; the other forms are documented, by the vendor or a sister host.
    """

    # --- submitting ---
    submit: Literal["plain", "code", "nested"] = "plain"
    """Submit reply: without `code` (observed), with `code` (documented), or the id only under `data`."""
    steps: Literal["full", "short", "none"] = "full"
    """`steps` of upload-extend, upload-cover and sample: all keys, the short form, or left out."""
    step_failure: Literal[200, 400] = 400
    """HTTP status of a call with `failed_step`."""
    voice_warning: bool = True
    """True if create-voice adds its advisory `warning`."""
    suno_cdn: Literal["optional", "required"] = "optional"
    """`required`: `/sonic/create` refuses a body without `use_suno_cdn`."""
    extend: Literal["strict", "lenient"] = "strict"
    """`strict`: extend_music refuses a body without `continue_at`."""
    sources: Literal["any", "strict"] = "any"
    """`strict`: extend and cover refuse uploaded clips, their `*_upload_*` forms and add_* all others."""
    chirp_models: bool = False
    """True if `chirp-*` model names are accepted, as the sister hosts do."""

    # --- errors ---
    error: Literal["type", "error", "message", "code", "code-text", "detail"] = "type"
    """Body of a 400: `type` + `error`, one key alone, `code` + `message`, or a word as `code`."""
    unknown_task: Literal["400", "404", "code"] = "400"
    """Unknown task id: 400, 404, or 200 with `code` 404 in the body."""
    no_credits: Literal["402", "403", "code"] = "403"
    """Missing credits: 402, 403, or 200 with `code` 403 in the body. create-voice always says 402."""
    retry_after: Literal["seconds", "date", "none"] = "seconds"
    """`Retry-After` of a 429 of the create limit: seconds, an HTTP date, or none."""

    # --- waiting ---
    not_ready: Literal["202", "202-code", "200", "empty", "null"] = "202"
    """A task that has no clips yet: 202, 202 with `code`, 200 with `type`, or 200 with `data` [] / null."""
    running: Literal["visible", "hidden"] = "visible"
    """`visible`: 200 with `code` 200 while clips run (observed); `hidden`: not ready until the end (spec)."""
    failure: Literal[
        "clips",
        "failed-200",
        "timeout-200",
        "forbidden-200",
        "api-error-200",
        "api-error-refunded",
        "failed-500",
        "timeout-504",
    ] = "clips"
    """The form of a failed task; a scripted failure may name its own form."""
    clip_error: Literal["error", "error_message"] = "error_message"
    """The key of a failed clip that holds the text."""

    # --- clips ---
    duration: Literal["text", "number", "integer"] = "text"
    """`duration` of a sonic clip: decimal text (observed), a number (spec) or a whole number (docs)."""
    mv: Literal["echo", "chirp"] = "echo"
    """The model in results: as it was requested, or in chirp spelling."""
    video: Literal["null", "link"] = "null"
    """`video_url` of a finished clip: null (observed) or a link (docs)."""
    title: Literal["rewritten", "unchanged"] = "rewritten"
    """`rewritten`: description mode gives the song a title of its own (observed)."""
    stems_basic: Literal[2, 4] = 2
    """Number of stems of `/sonic/stems/basic`."""
    stems_full: Literal[12, 24] = 12
    """Number of stems; 24 adds a second, silent take of each."""
    stem_names: Literal["both", "type", "title"] = "both"
    """The field with a stem's name: `stem_type`, the end of `title`, or both."""
    voice_name: bool = True
    """True if a finished voice has a `name`."""
    voice_life: float = 30 * DAY
    """Seconds after which a created voice is gone, as `ages` counts them."""
    ages: Literal["real", "clock"] = "real"
    """How old a clip or a voice is where that has a limit: in real seconds, and those by which the time was
    moved forward, or in seconds of the sandbox's faster clock."""

    # --- direct replies ---
    upload: Literal["plain", "nested"] = "plain"
    """Where the `clip_id` of an upload is: at the top, or under `data`."""
    upsampled: Literal["nested", "flat"] = "nested"
    """Where the upsampled tags are: under `data`, or at the top."""
    lyrics: Literal[1, 2] = 2
    """Candidates of `/sonic/lyrics`."""
    batch_tasks: Literal["task_id", "id", "text"] = "task_id"
    """Entry of a task in the reply of `/sonic/batch`: an object with its id under either key, or the id."""
    batch_entries: Literal["all", "accepted"] = "all"
    """`all`: a refused item of a batch has an entry with its error; `accepted`: it has none."""
    batch_status: Literal["data", "tasks"] = "data"
    """Key of the list in the reply to `GET /sonic/batch`."""
    batch_rate: Literal["once", "items"] = "once"
    """`items`: a batch counts for the create limit as many times as it has items."""
    midi_repeats: Literal["free", "charged"] = "free"
    """`charged`: a repeat after a 202 of `/sonic/midi` costs again."""
    head: Literal["ok", "refused"] = "ok"
    """`refused`: media links answer HEAD with 403."""

    # --- other families ---
    producer: Literal["clips", "status"] = "clips"
    """Producer's polling form: clip states, or a top-level `status` with clips that have none."""
    producer_seed: Literal["text", "number"] = "text"
    """`seed` of a Producer clip."""
    producer_cover: Literal["live", "retired"] = "live"
    """`retired`: covers of Producer answer 410."""
    producer_wav: Literal["audio_url", "wav_url"] = "wav_url"
    """The key of Producer's link to a WAV."""
    nuro: Literal["live", "retired"] = "live"
    """`retired`: all of Nuro answers 410."""
    nuro_failure: Literal["status", "type"] = "status"
    """A failed Nuro task: its `status`, or an error body with `type`."""
    riffusion: Literal["live", "retired"] = "live"
    """`retired`: all of Riffusion answers 410."""
    riffusion_interim: Literal["processing", "202"] = "processing"
    """Riffusion before its first song: 200 with "processing", or 202."""
    studio: Literal["live", "retired"] = "live"
    """`retired`: all of Studio answers 410."""
    studio_code: Literal["success", "200"] = "success"
    """`code` of Studio's submit reply."""
    studio_tags: Literal["list", "text"] = "list"
    """`tags` of a Studio song."""

    # --- webhooks ---
    platform: Literal["suno", "sonic"] = "suno"
    """`platform` of a Sonic webhook."""
    webhook_attempts: Annotated[int, Meta(ge=1, le=100)] = 3
    """How often a webhook is sent until the reply is a 2xx."""
    webhook_pause: float = 5.0
    """Seconds before the second try; doubled for each further one."""
    streaming: Literal["all", "each", "first"] = "all"
    """When `song.streaming` is sent: once all clips of a song stream, for each clip, or for the first one."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Durations:
    """The durations of tasks: median and sigma of a log-normal distribution, in API seconds; sigma 0 is
    exact.

    The defaults follow the reports of users for each family: 60 to 180 s for nine of ten songs.
    """

    song: tuple[float, float] = (104.0, 0.33)
    """A song, of any task type."""
    stems: tuple[float, float] = (90.0, 0.3)
    """Stems."""
    voice: tuple[float, float] = (45.0, 0.3)
    """A created voice."""
    lyrics_task: tuple[float, float] = (6.0, 0.3)
    """A legacy lyrics task."""
    producer: tuple[float, float] = (42.0, 0.2)
    """A track of Producer."""
    producer_file: tuple[float, float] = (9.0, 0.3)
    """An upload or a download of Producer."""
    nuro: tuple[float, float] = (50.0, 0.18)
    """A song of Nuro."""
    riffusion: tuple[float, float] = (80.0, 0.3)
    """A song of Riffusion."""
    studio: tuple[float, float] = (70.0, 0.3)
    """A song of Studio."""
    stream: float = 20.0
    """Seconds until the early stream is there, at most two fifths of the whole."""
    upload: float = 20.0
    """Seconds that an upload takes inside its POST."""
    lyrics: float = 8.0
    """Seconds that a direct lyrics call takes."""
    midi: float = 12.0
    """Seconds for which midi answers 202."""
    files: float = 6.0
    """Seconds for which download answers 202."""
    alignment: float = 30.0
    """Seconds for which aligned-lyrics of a fresh upload is empty."""

    def __post_init__(self) -> None:
        check(self)


class Preset(NamedTuple):
    """Choices that belong together, under the name of the clients that they are for."""

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
