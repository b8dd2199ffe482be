"""Headers that a program adds to API calls, and its name in the user agent: checked before anything is sent.

They go to the base URL with each call, never to the hosts of files. Names are compared in any case, so they
are stored in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from ._version import __version__
from .arguments import is_list, is_mapping, refused

USER_AGENT: Final = f"musicapi-async/{__version__}"
"""The user agent of this package, to which `app_info` adds the program."""
SHORTEST_HEADER_SECRET: Final = 8
"""Characters from which on a value is hidden in texts: a shorter one is an ordinary word."""

_TOKEN: Final = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
"""A name of a header or of a product (RFC 9110, 5.6.2)."""
_SEPARATORS: Final = re.compile(r"[\s;,]+")

_HOP: Final = "it belongs to the connection"
_OWN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "authorization": "it carries the API key: pass api_key=",
        "proxy-authorization": "it carries the login of the proxy: pass proxy='http://user:password@host'",
        "host": "it follows from base_url",
        "user-agent": "name your program with app_info='name/version'",
        "accept": "replies are read as JSON",
        "accept-encoding": "replies are read as they come",
        "range": "replies are read whole",
        "expect": "a paid call is sent in one piece",
        **dict.fromkeys(
            (
                "connection",
                "keep-alive",
                "proxy-connection",
                "te",
                "trailer",
                "transfer-encoding",
                "upgrade",
                "http2-settings",
            ),
            _HOP,
        ),
    }
)
"""Headers that are set here or by the connection, and what to do instead (hop-by-hop: RFC 9110, 7.6.1)."""
_OWN_BEGINNINGS: Final[Mapping[str, str]] = MappingProxyType(
    {"content-": "it describes the body, which is made here", "if-": "a reply is wanted in any case"}
)
_SECRET_NAME: Final = re.compile(
    r"auth|cookie|credential|jwt|key|login|pass|secret|session|signature|token", re.IGNORECASE
)
"""Parts of the name of a header whose value is taken for a secret."""


def check_headers(option: str, given: object) -> dict[str, str]:
    """Return headers by their names in lower case, or refuse them. No text holds a value.

    Args:
        option: the option that they were passed as, for the error.
        given: what was passed.

    Raises:
        RequestValidationError: no mapping of text to text, a header that is set here, or characters that no
            header takes.
    """
    if not is_mapping(given):
        raise refused(option, "a mapping such as {'X-Team': 'sound'}", type(given).__name__)
    checked: dict[str, str] = {}
    for name, value in given.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise refused(option, "names of letters, digits and hyphens", ascii(name)[:80])
        lowered = name.lower()
        own = _OWN.get(lowered) or next(
            (why for start, why in _OWN_BEGINNINGS.items() if lowered.startswith(start)), None
        )
        if own is not None:
            raise refused(option, f"{name} cannot be set: {own}")
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            kind = "such characters" if isinstance(value, str) else type(value).__name__
            raise refused(option, f"{name}: printable ASCII in one line", kind)
        if lowered in checked:
            raise refused(option, "each name once, in upper or lower case", repr(name))
        checked[lowered] = value
    return checked


def secrets_in(headers: Mapping[str, str] | None) -> Iterator[str]:
    """Yield the values that are taken for secrets by the names of their headers, and the parts of these."""
    for name, value in (headers or {}).items():
        if not _SECRET_NAME.search(name):
            continue
        pieces = _SEPARATORS.split(value)  # "Bearer ...", "one=...; two=..."
        found = {value, *pieces, *(piece.partition("=")[2] for piece in pieces)}
        yield from sorted(secret for secret in found if len(secret) >= SHORTEST_HEADER_SECRET)


def user_agent(app_info: object) -> str:
    """Return the user agent with the name, and the version, of a program: 'musicapi-async/1.0 app/2.1'.

    Raises `RequestValidationError` for anything but 'name', 'name/version' or `(name, version)`.
    """
    if app_info is None:
        return USER_AGENT
    parts: object = app_info.split("/") if isinstance(app_info, str) else app_info
    if is_list(parts):
        texts = [word for word in parts if isinstance(word, str) and _TOKEN.fullmatch(word)]
        if 0 < len(texts) == len(parts) <= 2:
            return f"{USER_AGENT} {'/'.join(texts)}"
    raise refused(
        "app_info", "a name and a version such as 'my-app/1.2' or ('my-app', '1.2')", ascii(app_info)[:80]
    )
