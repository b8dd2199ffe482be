"""Hints about the base URL, for errors that a wrong one may have caused.

The symptoms of a wrong base URL are a page of HTML, 404 for every path, a redirect, an unknown key, or a
refused connection. The hint names the URL, because it may come from an environment variable that the user
does not know of. A path that the API does not have, which only an untyped call can have, is suspected first,
and a base URL of the service never.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final
from urllib.parse import urlsplit

from ..api.families import FAMILIES
from ..api.suggestions import did_you_mean
from ..errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    InvalidResponseError,
    MusicAPIError,
    NotFoundError,
)
from ..options import DEFAULT_BASE_URL

API_PATH: Final = urlsplit(DEFAULT_BASE_URL).path
HOSTS: Final = ("api.musicapi.ai", "api.aimusicapi.ai", "api.sunoapi.com")
"""The service and its sister hosts, which all have the same path."""
SUNO_HOST: Final = "api.sunoapi.com"
"""Has the word 'suno' in its paths."""
NO_SUCH_PATH: Final = re.compile(
    r"(http )?404|(the )?((page|route|path|endpoint|resource) )?(was )?not found|cannot (get|post) .*",
    re.IGNORECASE,
)
"""404 texts that are about the path, not about a task, clip or persona."""
OF_A_THING: Final = re.compile(r"\b(task|clip|persona|voice|song|file)s?\b", re.IGNORECASE)
"""404 texts of a service that knows the API."""


def add_hint(error: MusicAPIError, base_url: str) -> MusicAPIError:
    """Put the base URL into the hint of an error if it may be the cause; returns the error."""
    error.hint = suggestion(error, base_url) or error.hint
    return error


def suggestion(error: MusicAPIError, base_url: str) -> str:
    """Return what to check about the base URL; '' if the error is of another kind."""
    host = urlsplit(base_url).hostname
    match error:
        case AuthenticationError():
            return (
                f"Check the API key (without 'Bearer '), that it is a key of {host}, where base_url leads "
                "(other hosts have accounts and keys of their own), and that it may be used from this "
                "machine: keys may be bound to IP addresses."
            )
        case APIStatusError() if 300 <= error.status < 400:
            to = error.headers.get("location", "")
            return (
                f"{base_url} redirects{f' to {to[:200]}' if to else ''}: set base_url to the address itself."
            )
        case NotFoundError() | BadRequestError(status=405) | InvalidResponseError():
            return _of_path(error, base_url) if _may_be_path(error, base_url) else ""
        case _:
            return ""


def _may_be_path(error: NotFoundError | BadRequestError | InvalidResponseError, base_url: str) -> bool:
    if isinstance(error.body, str | bytes):  # a page or a text, where the API answers in JSON
        return True
    if isinstance(error, InvalidResponseError):
        return False
    if NO_SUCH_PATH.fullmatch(error.message.strip(" .")):
        return True
    return not base_url.endswith(API_PATH) and not OF_A_THING.search(error.message)


def _of_path(error: MusicAPIError, base_url: str) -> str:
    host = urlsplit(base_url).hostname
    method, _, path = error.call.partition(" ")
    path = path.partition("?")[0]
    calls = [call for pattern, call in _calls() if pattern.fullmatch(path)]
    if not any(call.startswith(f"{method} ") for call in calls):
        near = did_you_mean(path, (call.partition(" ")[2] for _, call in _calls()))
        hint = f"The API has {' and '.join(calls)}." if calls else f"Check the path{near}."
        hint += "" if is_of_service(base_url) else f" Or is base_url wrong? Calls go to {base_url}."
    elif is_of_service(base_url):
        hint = f"{base_url} does not answer like the API now: a proxy may answer in its place."
    elif host in HOSTS:
        hint = f"base_url is {base_url}; at this host it is https://{host}{API_PATH}."
    elif base_url.endswith(API_PATH):
        hint = f"Is base_url right? Calls go to {base_url}, which does not answer like the API."
    else:
        hint = f"Is base_url right? Calls go to {base_url}; the API's address is like {DEFAULT_BASE_URL}."
    if host == SUNO_HOST and path.startswith("/sonic/"):
        hint += ' This host has another word in its paths: MusicAPI(sonic_word="suno").'
    return hint


def is_of_service(base_url: str) -> bool:
    """Return True for a base URL of the service itself, which is no cause of an error."""
    parts = urlsplit(base_url)
    return parts.path == API_PATH and parts.hostname in HOSTS and parts.port in (None, 443)


@cache
def _calls() -> list[tuple[re.Pattern[str], str]]:
    """Return the calls of the API, each with the pattern of its path; a host may have 'suno' for 'sonic'."""
    calls = {
        call
        for family in FAMILIES.values()
        for one in family.operations().values()
        for call in (one.call_name, f"GET {one.polled.path}" if one.polled else "")
        if call
    }
    pattern = {call: re.escape(call.partition(" ")[2]).replace(r"\{task_id\}", "[^/]+") for call in calls}
    return [
        (re.compile(text.replace("/sonic/", "/(?:sonic|suno)/")), call)
        for call, text in sorted(pattern.items())
    ]
