"""Local files in the place of links, as the client's `uploader` publishes them.

The service fetches audio from public links and takes no files. Every field that is declared as a link
(`field_limits.LINK`) takes a local file as well: a path, or a file opened by its name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from ..files import expand
from .request import Request, is_link

PLACEHOLDER: Final = "https://file.example/"
"""Link of a file that is not published yet, for checks before that."""

NO_FILES: Final[Mapping[str, str]] = {}
"""The digests of a request without local files."""


def local_file(value: object) -> Path | None:
    """Return the local file that is given in the place of a link; None for anything else.

    Text with a scheme, such as `ftp://`, is no path; a file in memory has no name.
    """
    if isinstance(value, os.PathLike):
        return expand(os.fsdecode(cast("os.PathLike[str]", value)))
    if isinstance(value, str):
        return expand(value) if value and "://" not in value else None
    name: object = getattr(value, "name", None)
    return Path(name) if hasattr(value, "read") and isinstance(name, str) else None


def local_files(request: Request, links: tuple[str, ...]) -> dict[str, Path]:
    """Return the local files of a request by field; `links` are the fields that take a link."""
    values: dict[str, object] = {name: getattr(request, name) for name in links}
    found = {name: local_file(value) for name, value in values.items() if not is_link(value)}
    return {name: path for name, path in found.items() if path is not None}


def with_links(request: Request, links: Mapping[str, str]) -> Request:
    """Return the request with these links in the place of its files."""
    changed: dict[str, Any] = dict(links)
    return msgspec.structs.replace(request, **changed)
