"""Hints about the base URL, where an error lets suspect that it is wrong.

A wrong base URL never says so: it shows as a page of HTML, as 404 for everything, as a redirect, as a key
that is not known there, or as a refused connection. The advice names the address, since it may come from an
environment that no one reads.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

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
"""404 texts that speak of no task, clip or persona, but of the path."""
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
                f"Check MUSICAPI_KEY (without 'Bearer '), that it is a key of {host}, where base_url leads "
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
    if base_url.endswith(API_PATH):
        hint = f"Is base_url right? Calls go to {base_url}, which does not answer like the API."
    elif host in HOSTS:
        hint = f"base_url is {base_url}; at this host it is https://{host}{API_PATH}."
    else:
        hint = f"Is base_url right? Calls go to {base_url}; the API's address is like {DEFAULT_BASE_URL}."
    if host == SUNO_HOST and " /sonic/" in error.call:
        hint += ' This host has another word in its paths: MusicAPI(sonic_word="suno").'
    return hint
