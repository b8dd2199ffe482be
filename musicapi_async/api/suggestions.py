"""Suggestions for a word that is not known: the right one that was most likely meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from ..arguments import is_mapping, refused

LONGEST_WORD: Final = 60
"""Characters of a word that are compared: no name is longer, and comparing takes time."""

_FOLDERS: Final = ("download", "out")

MEANT: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "style": ("tags", "sound"),
        "styles": ("tags", "sound"),
        "genre": ("tags", "sound"),
        "genres": ("tags", "sound"),
        "mood": ("tags", "sound"),
        "lyric": ("prompt", "lyrics"),
        "lyrics": ("prompt",),
        "text": ("prompt", "lyrics"),
        "description": ("gpt_description_prompt", "describe"),
        "model": ("mv", "model_type"),
        "model_name": ("mv", "model_type"),
        "model_version": ("mv", "model_type"),
        "version": ("mv", "model_type"),
        "name": ("title",),
        "title": ("name",),
        "voice": ("vocal_gender", "persona_id"),
        "singer": ("vocal_gender", "persona_id"),
        "sex": ("vocal_gender",),
        "describe": ("gpt_description_prompt",),
        "m": ("mv",),
        "p": ("prompt",),
        "t": ("title",),
        "download": _FOLDERS,
        "d": _FOLDERS,
        "o": _FOLDERS,
        "out": _FOLDERS,
        "output": _FOLDERS,
        "output_dir": _FOLDERS,
        "outdir": _FOLDERS,
        "output_folder": _FOLDERS,
        "save": _FOLDERS,
        "save_to": _FOLDERS,
        "folder": _FOLDERS,
        "dir": _FOLDERS,
        "instrumental": ("make_instrumental",),
        "gender": ("vocal_gender",),
        "negative_style": ("negative_tags",),
        "exclude": ("negative_tags",),
        "weirdness": ("weirdness_constraint",),
        "seconds": ("duration", "length"),
        "length": ("duration",),
        "api_key": ("key_file",),
        "key": ("key_file",),
        "url": ("audio_url", "base_url"),
        "rate": ("rate_limit",),
        "concurrency": ("max_in_flight",),
        "retry": ("retry_failed",),
        "callback_url": ("webhook_url",),
        "webhook": ("webhook_url",),
        "clip": ("clip_id", "continue_clip_id"),
        "song_id": ("clip_id", "continue_clip_id"),
        "audio_id": ("clip_id", "continue_clip_id"),
        "persona": ("persona_id", "create_persona"),
        "voice_id": ("persona_id",),
        "file": ("url", "audio_url"),
        "path": ("url", "audio_url"),
        "link": ("url", "audio_url"),
        "generate": ("create", "create_music"),
        "create": ("create_music",),
        "get_task": ("get_music",),
        "stems": ("stems_basic",),
        "song": ("create", "create_music"),
    }
)
"""Words of other APIs and of everyday speech, with the names that are meant, best first: no similarity of
spelling leads from one to the other."""


OPTIONS_MEANT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "timeout": "attempt_timeout (seconds for one attempt) or deadline (seconds for a whole call)",
        "extra_headers": "headers (of client.with_options) or default_headers (of MusicAPI)",
        "idempotency_key": "job_key (of client.with_options)",
    }
)
"""Options of calls in other libraries that have other words here, or are more than one."""

SETTINGS_MEANT: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("api_base", "endpoint", "host"), "base_url"),
        **dict.fromkeys(("auth", "bearer", "token"), "api_key"),
        **dict.fromkeys(("connector", "http_client", "transport"), "session"),
        **dict.fromkeys(("cert", "ssl_context", "verify", "verify_ssl"), "ssl"),
        "event_hooks": "hooks",
        "retry": "max_retries",
        "user_agent": "app_info",
    }
)
"""Options of clients of httpx, openai and stripe that are spelled like a wrong option here, or like none."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most likely meant by `word`, or None if none is near."""
    by_plain = {_plain(name): name for name in known}
    plain = _plain(word[:LONGEST_WORD])
    for name in MEANT.get(plain, ()):
        if name in by_plain:
            return by_plain[name]
    from difflib import get_close_matches  # only a mistake needs it

    found = get_close_matches(plain, by_plain, n=1)
    return by_plain[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question to append to the text of an error, with a blank before it; '' if no word is near."""
    found = nearest(word, known)
    return "" if found is None else f" (did you mean {found!r}?)"


def check_options(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise `TypeError` for an option that is not known, with what was most likely meant."""
    listed = sorted(known)
    for name in given:
        if name not in listed:
            if (meant := OPTIONS_MEANT.get(name)) is not None:
                near = f" (did you mean {meant}?)"
            elif (setting := SETTINGS_MEANT.get(name)) in listed:
                near = f" (did you mean {setting!r}?)"
            else:
                near = did_you_mean(name, listed)
            raise TypeError(f"unknown option {name!r}{near}; there are {', '.join(listed)}")


def check_names(field: str, given: object, known: Collection[str], kind: str) -> Mapping[object, object]:
    """Return a mapping; refuse anything else, and a name that is not known, with what was most likely meant.

    Args:
        field: the name of the argument.
        given: the argument.
        known: the names that it can have.
        kind: the names in words, such as 'operations'.
    """
    if not is_mapping(given):
        raise refused(field, f"a mapping by names of {kind}", type(given).__name__)
    for name in given:
        if name not in known:
            near = did_you_mean(name, known) if isinstance(name, str) else ""
            raise refused(field, f"names of {kind}{near}", repr(name)[:100])
    return given


def is_folder(word: str) -> bool:
    """Return True if the word means a folder to save files in, which no request has."""
    return MEANT.get(_plain(word)) == _FOLDERS


def _plain(word: str) -> str:
    return word.strip().lower().lstrip("-").replace("-", "_").replace(" ", "_")
