"""The answers of the sandbox where the service's documentation leaves a choice: each can be switched.

The defaults are what was seen live or, where nothing was seen, what is documented. Every other word of a row
is a form that is documented or was seen, too, so a client that works under all of them will not be surprised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

DAY: Final = 86_400.0
"""Seconds; sources of personas, remaster and add_* are to be at most this old (vendor's page on personas)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """The answers of the sandbox where several are known, or none."""

    # --- submitting ---
    submit: Literal["plain", "code", "nested"] = "plain"
    """Submit reply: without `code` (seen), with `code` (documented), or the id only under `data`."""
    steps: Literal["full", "short", "none"] = "full"
    """`steps` of upload-extend, upload-cover and sample: all keys, the short form, or left out."""
    step_failure: Literal[200, 400] = 400
    """HTTP status of a call with `failed_step`."""
    voice_warning: bool = True
    """True if create-voice adds its advisory `warning`."""
    suno_cdn: Literal["optional", "required"] = "optional"
    """True if `/sonic/create` refuses a body without `use_suno_cdn`."""
    extend: Literal["strict", "lenient"] = "strict"
    """True if extend_music refuses a body without `continue_at`."""
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
    """True if a 429 of the create limit carries `Retry-After`, and in which form."""

    # --- waiting ---
    not_ready: Literal["202", "202-code", "200", "empty", "null"] = "202"
    """A task that has no clips yet: 202, 202 with `code`, 200 with `type`, or 200 with `data` [] / null."""
    running: Literal["shown", "hidden"] = "shown"
    """`shown`: 200 with `code` 200 while clips run (seen); `hidden`: not ready until all is done (spec)."""
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
    """`duration` of a sonic clip: decimal text (seen live), a number (spec) or a whole number (docs)."""
    mv: Literal["echo", "chirp"] = "echo"
    """True if results show the model as it was requested or in chirp spelling."""
    video: Literal["null", "link"] = "null"
    """`video_url` of a finished clip: null (seen live) or a link (docs)."""
    title: Literal["rewritten", "unchanged"] = "rewritten"
    """True if description mode gives the song a title of its own (seen)."""
    stems_basic: Literal[2, 4] = 2
    stems_full: Literal[12, 24] = 12
    """Number of stems; 24 adds a second, silent take of each."""
    stem_names: Literal["both", "type", "title"] = "both"
    """The field with a stem's name: `stem_type`, the end of `title`, or both."""
    voice_name: bool = True
    """True if a finished voice has a `name`."""
    voice_life: float = 30 * DAY
    """Seconds after which a created voice is gone."""

    # --- direct answers ---
    upload: Literal["plain", "nested"] = "plain"
    upsampled: Literal["nested", "flat"] = "nested"
    lyrics: Literal[1, 2] = 2
    """Candidates of `/sonic/lyrics`."""
    batch: Literal[400, 501] = 501
    """Status of `/sonic/batch`, whose bodies are unknown."""
    midi_repeats: Literal["free", "charged"] = "free"
    """True if a repeat after a 202 of `/sonic/midi` costs again."""
    head: Literal["ok", "refused"] = "ok"
    """True if media links answer HEAD."""

    # --- other families ---
    producer: Literal["clips", "status"] = "clips"
    """Producer's polling form: clip states, or a top-level `status` with clips that have none."""
    producer_seed: Literal["text", "number"] = "text"
    producer_cover: Literal["live", "retired"] = "live"
    producer_wav: Literal["audio_url", "wav_url"] = "wav_url"
    nuro: Literal["live", "retired"] = "live"
    nuro_failure: Literal["status", "type"] = "status"
    riffusion: Literal["live", "retired"] = "live"
    riffusion_interim: Literal["processing", "202"] = "processing"
    studio: Literal["live", "retired"] = "live"
    studio_code: Literal["success", "200"] = "success"
    studio_tags: Literal["list", "text"] = "list"

    # --- webhooks ---
    platform: Literal["suno", "sonic"] = "suno"
    """`platform` of a Sonic webhook."""
    webhook_attempts: int = 3
    """How often a webhook is tried until it is answered with a 2xx."""
    webhook_pause: float = 5.0
    """Seconds before the second try; doubled for each further one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Durations:
    """How long things take: (median, sigma) of a log-normal spread in API seconds; sigma 0 is exact.

    The defaults follow what users report for each family: songs 60 to 180 s in nine cases of ten.
    """

    song: tuple[float, float] = (104.0, 0.33)
    stems: tuple[float, float] = (90.0, 0.3)
    voice: tuple[float, float] = (45.0, 0.3)
    lyrics_task: tuple[float, float] = (6.0, 0.3)
    producer: tuple[float, float] = (42.0, 0.2)
    producer_file: tuple[float, float] = (9.0, 0.3)
    nuro: tuple[float, float] = (50.0, 0.18)
    riffusion: tuple[float, float] = (80.0, 0.3)
    studio: tuple[float, float] = (70.0, 0.3)
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
